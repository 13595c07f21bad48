"""Which build of llama.cpp this process runs: part of the name of whatever another build must not take up again."""

from __future__ import annotations

import functools
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edge_runtime.engine.llama import binding

_PACKAGE = "llama-cpp-python"


@functools.cache
def build() -> str:
    """The package's version, the instruction sets and kernels compiled in, and the size of each library.

    The sizes tell two builds of one version apart whose switches llama.cpp does not report.

    Raises:
        EngineError: llama.cpp does not load here.
    """
    c = binding()
    try:
        release = version(_PACKAGE)
    except PackageNotFoundError:
        release = "unknown"
    system = c.llama_print_system_info().decode("utf-8", "replace").strip()
    libraries = sorted((Path(c.__file__).parent / "lib").glob("*.so"))
    sizes = " ".join(f"{path.name}={path.stat().st_size}" for path in libraries)
    return f"{_PACKAGE} {release}; {system}; {sizes}"
