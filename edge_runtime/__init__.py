"""The box: daemon, engine, knowledge and the clients of its socket. Nothing in here opens a network socket."""
