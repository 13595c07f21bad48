"""What a figure was measured on: processor, memory, kernel, Python and the llama.cpp build. Prints it as JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edge_runtime.paths import build_record

# The instruction sets that decide how fast quantised weights are multiplied.
FLAGS = {
    "x86-64": ("sse4_2", "avx", "avx2", "f16c", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8"),
    "arm64": ("asimddp", "i8mm", "sve"),
}


def describe() -> dict[str, Any]:
    """The machine, as the value of ``machine`` in every benchmark's result."""
    model, flags = _cpu()
    return {
        "cpu": model,
        "flags": flags,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load": round(os.getloadavg()[0], 2),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in ("llama-cpp-python", "onnxruntime", "apsw", "sqlite-vec")},
        "llama_build": _llama_build(),
    }


def _cpu() -> tuple[str, list[str]]:
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    has = set((fields.get("flags") or fields.get("features") or "").split())
    return fields.get("model name") or platform.processor() or "unknown", [
        name for names in FLAGS.values() for name in names if name in has
    ]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _llama_build() -> Any:
    try:
        return json.loads(build_record(sys.prefix).read_text("utf-8"))
    except (OSError, ValueError):
        return None


if __name__ == "__main__":
    print(json.dumps(describe(), indent=2))
