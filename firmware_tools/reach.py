"""Whether the package index answers at all, asked before pip, whose own patience is counted in minutes.

Only a connection is tried: a slow index is waited for. Where pip also has local sources, or a proxy, nothing is asked.
"""

from __future__ import annotations

import functools
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Sequence

REACH_SECONDS = 5.0
# pip alone knows where it would look: its files, its environment, its default.
_ASK_PIP = """
import json
from pip._internal.configuration import Configuration
from pip._internal.models.index import PyPI
found = Configuration(isolated=False)
found.load()
options = {}
for key, value in found.items():
    for name, inner in (value.items() if isinstance(value, dict) else [(key, value)]):
        if name.split(".")[0] in ("global", "download", ":env:"):
            options.setdefault(name.split(".")[-1], []).extend(inner.split())
index = options.get("index-url", [])[-1:] or [PyPI.simple_url]
local = options.get("find-links", []) + options.get("proxy", []) + options.get("no-index", [])
print(json.dumps(local or index + options.get("extra-index-url", [])))
"""


def unreachable_index() -> str | None:
    """The hosts of the package indexes where none of them takes a connection within five seconds, else None."""
    return silent_hosts(_indexes(), REACH_SECONDS)


@functools.cache
def _indexes() -> tuple[str, ...]:
    done = subprocess.run([sys.executable, "-c", _ASK_PIP], capture_output=True, text=True, check=False)
    return tuple(json.loads(done.stdout)) if done.returncode == 0 else ()


def silent_hosts(addresses: Sequence[str], seconds: float) -> str | None:
    """Names the hosts of ``addresses`` where none takes a connection; None where one does, or one needs none."""
    parts = [urllib.parse.urlsplit(address) for address in addresses]
    proxied = {name.lower() for name, value in os.environ.items() if value} & {"http_proxy", "https_proxy", "all_proxy"}
    if not parts or proxied or any(part.scheme not in ("http", "https") or not part.hostname for part in parts):
        return None
    answers: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def connect(host: str, port: int) -> None:
        # Name resolution takes no timeout, hence the thread.
        try:
            socket.create_connection((host, port), timeout=seconds).close()
        except OSError:
            answers.put(False)
        else:
            answers.put(True)

    for part in parts:
        port = part.port or (443 if part.scheme == "https" else 80)
        threading.Thread(target=connect, args=(part.hostname, port), daemon=True).start()
    try:
        if any(answers.get(timeout=seconds) for _ in parts):
            return None
    except queue.Empty:
        pass
    return " and ".join(sorted({part.hostname or "" for part in parts}))
