"""A box of its own for a benchmark: a real ``edged`` on a fresh EDGE_HOME that shares this machine's models.

It is started as an operator would start it, in a process of its own, and measured from outside.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from edge_runtime.client import SyncClient, connect_sync
from edge_runtime.paths import Paths

SMALL_WRITER = "smollm2-135m-instruct"
START_SECONDS = 60.0
_POLL_SECONDS = 0.002


class Box:
    """``with Box(writer) as box``: running and ready inside, gone with its home after.

    Raises RuntimeError, with the end of the daemon's log, where it does not become ready.
    """

    def __init__(self, writer: str = SMALL_WRITER, *, settings: str = "") -> None:
        self.home = Path(tempfile.mkdtemp(prefix="edge-benchmark-"))
        self.socket = self.home / "run" / "edged.sock"
        self.ready_s = 0.0  # from exec to the first 200 of /readyz
        self._daemon: subprocess.Popen[bytes] | None = None
        shutil.copytree(Paths.from_environment().models, self.home / "models", copy_function=_link)
        (self.home / "edge.toml").write_text(f'[models]\nwriter = "{writer}"\n\n{settings}\n', "utf-8")

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that no daemon is left behind
        self._start()
        return self

    def restart(self) -> None:
        """Stop the daemon as an operator would, and start it again on the same home."""
        self._stop()
        self._start()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Inside, no daemon runs and the home can be changed; after, one is ready again."""
        self._stop()
        yield
        self._start()

    def _start(self) -> None:
        environment = {**os.environ, "EDGE_HOME": str(self.home)}
        environment.pop("EDGE_SOCKET", None)
        environment.pop("EDGE_CONFIG", None)
        with (self.home / "edged.log").open("ab") as log:
            started = time.perf_counter()
            self._daemon = subprocess.Popen(
                [str(Path(sys.prefix) / "bin" / "edged")], env=environment, stdin=subprocess.DEVNULL, stderr=log
            )
        try:
            self._wait(started)
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def _stop(self) -> None:
        if self._daemon is not None and self._daemon.poll() is None:
            self._daemon.send_signal(signal.SIGTERM)
            try:
                self._daemon.wait(30)
            except subprocess.TimeoutExpired:
                self._daemon.kill()
                self._daemon.wait()

    def client(self) -> SyncClient:
        return connect_sync(self.socket)

    def add(self, documents: Mapping[str, bytes]) -> float:
        """Add ``documents`` by name; returns the seconds it took."""
        started = time.perf_counter()
        with self.client() as client:
            for name, content in documents.items():
                client.add_document(name, content)
        return time.perf_counter() - started

    def processes(self) -> dict[int, str]:
        """The daemon and every process below it: id to command line."""
        assert self._daemon is not None
        found, waiting = dict[int, str](), [self._daemon.pid]
        while waiting:
            pid = waiting.pop()
            try:
                found[pid] = (
                    Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                )
                for task in Path(f"/proc/{pid}/task").iterdir():
                    waiting += [int(child) for child in (task / "children").read_text().split()]
            except OSError:  # it ended meanwhile
                continue
        return found

    def engine(self) -> int:
        """The process id of the child that writes.

        Raises:
            RuntimeError: there is none at the moment.
        """
        for pid, command in self.processes().items():
            if "edge_runtime.engine" in command:
                return pid
        raise RuntimeError("no engine runs; the daemon's log says why")

    def resident_bytes(self) -> dict[str, int]:
        """Proportional set size (proc(5), smaps_rollup) of each process, by what it is, and their ``total``."""
        sizes: dict[str, int] = {}
        for pid, command in self.processes().items():
            name = next((part for part in ("engine", "embedding") if f"edge_runtime.{part}" in command), "edged")
            sizes[name] = sizes.get(name, 0) + _pss(pid)
        return {**sizes, "total": sum(sizes.values())}

    def held_bytes(self) -> int:
        """Resident set size (proc(5), statm) of all processes; pages that they share count in each."""
        return sum(_rss(pid) for pid in self.processes())

    def _wait(self, started: float) -> None:
        assert self._daemon is not None
        while time.perf_counter() - started < START_SECONDS:
            if self._daemon.poll() is not None:
                raise RuntimeError(f"edged ended with {self._daemon.returncode}:\n{self._log()}")
            if _is_ready(self.socket):
                self.ready_s = time.perf_counter() - started
                return
            time.sleep(_POLL_SECONDS)
        raise RuntimeError(f"edged was not ready within {START_SECONDS:.0f} s:\n{self._log()}")

    def _log(self) -> str:
        return "\n".join((self.home / "edged.log").read_text("utf-8", "replace").splitlines()[-20:])


def texts(folder: Path, names: Iterable[str] = ()) -> dict[str, bytes]:
    """The files of ``folder`` (all, or those of ``names``) by name."""
    wanted = set(names)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not wanted or path.name in wanted}


def _is_ready(path: Path) -> bool:
    """One GET /readyz, written by hand so that the measuring costs next to nothing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        try:
            connection.connect(str(path))
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: edged\r\nConnection: close\r\n\r\n")
            return connection.recv(16).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _rss(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
