"""What systemd and a service share: readiness messages (sd_notify(3)) and inherited listeners (sd_listen_fds(3)).

Both are opened before the seal: afterwards no socket can be made or connected.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

_FIRST_INHERITED = 3  # SD_LISTEN_FDS_START


@dataclass(frozen=True, slots=True)
class Notifier:
    """The connected notify socket, or nothing where no service manager listens."""

    connection: socket.socket | None

    @classmethod
    def from_environment(cls) -> Notifier:
        """Connect to ``$NOTIFY_SOCKET``, and take the variable out of the environment that children see."""
        address = os.environ.pop("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls(None)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            connection.connect("\0" + address[1:] if address[0] == "@" else address)
        except OSError:
            connection.close()
            return cls(None)
        connection.setblocking(False)
        return cls(connection)

    def tell(self, *assignments: str) -> None:
        """Send ``READY=1`` and the like; a service manager that does not listen is no reason to stop."""
        if self.connection is None:
            return
        try:
            self.connection.send("\n".join(assignments).encode())
        except OSError:
            return


def inherited_listeners() -> list[socket.socket]:
    """The listening sockets that a service manager passed to this very process; none where it passed none."""
    for_us = os.environ.pop("LISTEN_PID", "") == str(os.getpid())
    count = os.environ.pop("LISTEN_FDS", "0")
    os.environ.pop("LISTEN_FDNAMES", None)
    if not for_us or not count.isdecimal():
        return []
    listeners = [socket.socket(fileno=number) for number in range(_FIRST_INHERITED, _FIRST_INHERITED + int(count))]
    for listener in listeners:
        listener.set_inheritable(False)
    return listeners
