"""The repository speaks of the project alone: no machine that built it, no package index, no author's tools."""

from __future__ import annotations

import configparser
import os
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.house.tree import REPO, files

_SELF = Path(__file__).resolve()
_ELSEWHERE = ("/home/[a-z]", "/Us" + "ers/")
# Split, so that this file does not hold what it looks for.
_INDEXES = ("pypi" + ".org", "python" + "hosted", "arti" + "factory", "nexus" + "[.-]")
_TOOLS = ("cla" + "ude", "anth" + "ropic", "chat" + "gpt", "co" + "pilot", "sub" + "agent", "jail" + "break")


def _texts() -> list[tuple[str, str]]:
    found = []
    for path in files():
        try:
            found.append((str(path.relative_to(REPO)), path.read_text("utf-8")))
        except UnicodeDecodeError:
            continue
    return found


def _configured_indexes() -> list[str]:
    """Hosts of the package indexes that this machine is set to use."""
    urls = [os.environ.get(name, "") for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX_URL")]
    for path in (Path("/etc/pip.conf"), Path.home() / ".pip/pip.conf", Path.home() / ".config/pip/pip.conf"):
        config = configparser.RawConfigParser()
        config.read(path)
        urls += [value for part in config.sections() for key, value in config.items(part) if key.endswith("index-url")]
    hosts = {urlsplit(url).hostname or "" for url in " ".join(urls).split()}
    return [re.escape(host) for host in hosts if "." in host and not host.startswith("127.")]


def _local() -> list[str]:
    """Paths and names of the machine on which this runs, as patterns."""
    patterns = [rf"{re.escape(str(REPO))}(?![\w-])"] if len(REPO.parts) > 2 else []
    patterns.append(rf"{re.escape(str(Path.home()))}/\w")
    host = socket.gethostname()
    return patterns + ([rf"\b{re.escape(host)}\b"] if re.search(r"[a-z].*\d", host) else [])


@pytest.mark.parametrize(
    "patterns",
    [
        pytest.param(_local, id="this machine"),
        pytest.param(lambda: _ELSEWHERE, id="somebody's home"),
        pytest.param(lambda: (*_INDEXES, *_configured_indexes()), id="a package index"),
        pytest.param(lambda: [f"(?i:{word})" for word in _TOOLS], id="tools"),
    ],
)
def test_no_file_names(patterns: object) -> None:
    assert callable(patterns)
    pattern = re.compile("|".join(f"(?:{item})" for item in patterns()))
    said = [f"{name}: {hit.group()}" for name, text in _texts() if (hit := pattern.search(text))]
    assert not said


def test_this_file_is_looked_at_too() -> None:
    assert _SELF in files()
