"""The box: daemon, engine, knowledge and the clients of its socket. Nothing below this package opens a network socket."""
