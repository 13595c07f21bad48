"""Sources for fetch tests: wheels in a folder as pip's index, and a hub on 127.0.0.1 that can misbehave."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def make_wheel(folder: Path, package: str, version: str, members: Mapping[str, bytes]) -> Path:
    """A wheel of no code (PEP 427) that carries ``members``."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = package.replace("-", "_")
    info = f"{stem}-{version}.dist-info"
    path = folder / f"{stem}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in members.items():
            wheel.writestr(name, content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@dataclass
class Hub:
    """Serves ``files`` by path. ``cut`` closes each answer after so many bytes; ``statuses`` are
    answered first, one a request, 0 meaning the file."""

    files: dict[str, bytes] = field(default_factory=dict)
    tag: str = '"one"'
    cut: int | None = None
    statuses: list[int] = field(default_factory=list)
    silent: bool = False
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    base: str = ""
    served: threading.Event = field(default_factory=threading.Event)
    pause: threading.Event | None = None


@contextmanager
def hub() -> Iterator[Hub]:
    state = Hub()
    closing = threading.Event()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers.get("Range")))
            if state.silent:
                closing.wait()
                return
            status = state.statuses.pop(0) if state.statuses else 0
            if status:
                self.send_error(status)
                return
            name = self.path.partition("/resolve/main/")[2]
            if name not in state.files:
                self.send_error(404)
                return
            self._send(state.files[name])

        def _send(self, content: bytes) -> None:
            begin = 0
            if (wanted := self.headers.get("Range")) and self.headers.get("If-Range") == state.tag:
                begin = int(wanted.removeprefix("bytes=").rstrip("-"))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content) - begin))
            self.send_header("ETag", state.tag)
            self.end_headers()
            rest = content[begin:]
            if state.pause is not None:
                self.wfile.write(rest[: len(rest) // 2])
                self.wfile.flush()
                state.served.set()
                state.pause.wait(30)
                rest = rest[len(rest) // 2 :]
            self.wfile.write(rest if state.cut is None else rest[: state.cut])

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            try:
                super().handle()
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def finish(self) -> None:
            with suppress(BrokenPipeError, ConnectionResetError):
                super().finish()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    state.base = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
