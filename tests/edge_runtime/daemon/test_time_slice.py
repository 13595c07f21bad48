"""The short time slice is the asking thread's alone."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import subprocess, sys, threading
from edge_runtime.daemon import time_slice
before = time_slice.current()
taken = time_slice.shorten()
seen = []
thread = threading.Thread(target=lambda: seen.append(time_slice.current()))
thread.start()
thread.join()
show = "from edge_runtime.daemon import time_slice; print(time_slice.current())"
child = int(subprocess.run([sys.executable, "-c", show], capture_output=True, text=True).stdout)
own = time_slice.current() == (time_slice.SLICE if taken else before)
print(own, seen == [before], child == before)
"""


def test_neither_threads_nor_children_inherit_a_short_slice() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True", "True"], done.stderr
