"""``python -m edge_runtime.cli``: the program ``edge`` where its console script is not on the path."""

from edge_runtime.cli.main import main

main()
