"""The process ``edged``: HTTP over a Unix socket, its children, its start and stop."""
