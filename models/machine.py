"""A name for this machine's processor, so that figures measured elsewhere are not taken for its own."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

_TELLING = ("model name", "flags", "Features", "CPU implementer", "CPU part")


def fingerprint(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Architecture, cores that this process may use, and a digest of the processor's model and features."""
    told: dict[str, str] = {}
    try:
        for line in cpuinfo.read_text("utf-8", "replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in _TELLING:
                told.setdefault(key.strip(), " ".join(sorted(value.split())))
    except OSError:
        told["processor"] = platform.processor()
    digest = hashlib.sha256(repr(sorted(told.items())).encode()).hexdigest()[:12]
    return f"{platform.machine()}-{len(os.sched_getaffinity(0))}-{digest}"
