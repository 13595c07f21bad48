"""The CLI asks for no socket but Unix ones: seen by the interpreter's own audit hook (PEP 578).

The daemon and its children are judged by the kernel instead, in tests/system.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_WATCHED = """
import json, socket, sys
seen = []
def watch(event, values):
    if event == "socket.__new__":
        seen.append(int(values[1]))
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        seen.append(event)
sys.addaudithook(watch)
from edge_runtime.cli.main import run
run({arguments!r})
print(json.dumps([item for item in seen if item != socket.AF_UNIX]))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["status"], ["ask", "What does alarm E17 mean?"], ["docs"]])
def test_no_command_asks_for_a_network_socket(arguments: list[str], tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _WATCHED.format(arguments=arguments)],
        env={**os.environ, "EDGE_HOME": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(ended.stdout.splitlines()[-1]) == []
