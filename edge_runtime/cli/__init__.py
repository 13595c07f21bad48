"""The command ``edge``: everything an operator does from a shell, through :mod:`edge_runtime.client` alone."""
