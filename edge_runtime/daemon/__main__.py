"""``python -m edge_runtime.daemon`` is ``edged``."""

import sys

from edge_runtime.daemon.main import main

if __name__ == "__main__":
    sys.exit(main())
