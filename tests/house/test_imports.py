"""What is loaded when: nothing native before the seal, nothing heavy in the CLI, no network client on the box.

The import contracts in pyproject.toml read the source; these look at running interpreters.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# Importing these starts threads, which the Landlock domain of the thread that seals does not reach.
NATIVE = {
    "numpy",
    "aiohttp",
    "apsw",
    "onnxruntime",
    "llama_cpp",
    "tokenizers",
    "sqlite_vec",
    "selectolax",
    "llguidance",
}
HEAVY = NATIVE | {"rich", "prompt_toolkit", "pypdf", "jinja2", "cryptography"}
NETWORK_CLIENTS = {"httpx", "httpx2", "requests", "urllib3", "huggingface_hub", "openai", "paho", "torch"}

_IMPORT_ALL = """
import importlib, pkgutil
for top in {tops!r}:
    package = importlib.import_module(top)
    for module in pkgutil.walk_packages(package.__path__, top + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""


def _loaded(source: str) -> set[str]:
    """Top-level modules in a fresh interpreter after ``source``."""
    ended = subprocess.run(
        [sys.executable, "-P", "-c", f"{source}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"],
        check=True,
        capture_output=True,
        text=True,
    )
    return {name.split(".")[0] for name in json.loads(ended.stdout.splitlines()[-1])}


def test_nothing_native_is_loaded_before_the_daemon_seals_itself() -> None:
    assert not _loaded("import edge_runtime.daemon.main") & NATIVE


@pytest.mark.parametrize("child", ["engine", "embedding"])
def test_nothing_native_is_loaded_before_a_child_seals_itself(child: str) -> None:
    assert not _loaded(f"import edge_runtime.{child}.__main__") & NATIVE


def test_the_cli_starts_without_anything_heavy() -> None:
    assert not _loaded("import edge_runtime.cli.main") & HEAVY


def test_the_client_starts_without_anything_heavy() -> None:
    assert not _loaded("import edge_runtime.client") & HEAVY


def test_nothing_on_the_box_loads_a_network_client() -> None:
    assert not _loaded(_IMPORT_ALL.format(tops=("edge_runtime", "models"))) & NETWORK_CLIENTS
