"""Which instruction-set switches llama.cpp may be built with: what the kernel lists, and the compiler knows.

The kernel leaves out of /proc/cpuinfo what it does not grant to user space, with one exception that matters: AMX tiles
are listed where a hypervisor or the permission of arch_prctl(2) then refuses them, so AMX is never chosen.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# CMake switch, the features in /proc/cpuinfo that it needs, and the compiler flags that it turns into.
_X86 = (
    ("GGML_SSE42", ("sse4_2", "ssse3", "popcnt"), ("-msse4.2",)),
    ("GGML_AVX", ("avx",), ("-mavx",)),
    ("GGML_F16C", ("f16c", "avx"), ("-mf16c",)),
    ("GGML_FMA", ("fma", "avx"), ("-mfma",)),
    ("GGML_BMI2", ("bmi2",), ("-mbmi2",)),
    ("GGML_AVX2", ("avx2", "fma", "f16c"), ("-mavx2",)),
    ("GGML_AVX_VNNI", ("avx_vnni", "avx2"), ("-mavxvnni",)),
    (
        "GGML_AVX512",
        ("avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw", "avx2"),
        ("-mavx512f", "-mavx512cd", "-mavx512vl", "-mavx512dq", "-mavx512bw"),
    ),
    ("GGML_AVX512_VBMI", ("avx512vbmi", "avx512f", "avx512bw"), ("-mavx512vbmi",)),
    ("GGML_AVX512_VNNI", ("avx512_vnni", "avx512f", "avx512vl"), ("-mavx512vnni",)),
    ("GGML_AVX512_BF16", ("avx512_bf16", "avx512f", "avx512vl"), ("-mavx512bf16",)),
)
# Feature in /proc/cpuinfo and the architecture extension of gcc and clang.
_ARM = (
    ("asimddp", "dotprod"),
    ("asimdhp", "fp16"),
    ("i8mm", "i8mm"),
    ("bf16", "bf16"),
    ("sve", "sve"),
    ("sve2", "sve2"),
)
_NEVER = {
    "amx_tile": "listed, yet refused by many hypervisors: the first decode would crash",
    "sme": "not verified yet",
}
_X86_NAMES = ("x86_64", "amd64")
_ARM_NAMES = ("aarch64", "arm64")


@dataclass(frozen=True, slots=True)
class Cpu:
    machine: str  # as uname -m says
    model: str
    features: frozenset[str]  # as /proc/cpuinfo spells them


@dataclass(frozen=True, slots=True)
class Choice:
    """Switches for CMake, and why features that the processor has are left unused."""

    switches: Mapping[str, str]
    unused: Mapping[str, str] = field(default_factory=dict)


def detect(cpuinfo: Path = Path("/proc/cpuinfo")) -> Cpu:
    """What this machine is; features common to all its cores."""
    model = ""
    features: frozenset[str] | None = None
    for line in cpuinfo.read_text("utf-8", "replace").splitlines() if cpuinfo.exists() else ():
        key, _, value = line.partition(":")
        match key.strip():
            case "flags" | "Features":
                listed = frozenset(value.split())
                features = listed if features is None else features & listed
            case "model name" | "Model":
                model = model or value.strip()
    return Cpu(platform.machine().lower(), model or platform.machine(), features or frozenset())


def choose(found: Cpu, compiles: Callable[[Iterable[str]], bool]) -> Choice:
    """The fastest build that the processor and the compiler should bear; ``compiles`` asks the compiler about flags."""
    unused = {feature: why for feature, why in _NEVER.items() if feature in found.features}
    if found.machine in _X86_NAMES:
        switches = {"GGML_NATIVE": "OFF"}
        for switch, needed, flags in _X86:
            has = found.features.issuperset(needed)
            known = has and compiles(flags)
            if has and not known:
                unused[needed[0]] = f"the compiler does not know {flags[0]}; a newer one would"
            switches[switch] = "ON" if known else "OFF"
        # The extensions stand on the foundation: without it they are off.
        if switches["GGML_AVX512"] == "OFF":
            switches.update({switch: "OFF" for switch, _, _ in _X86 if switch.startswith("GGML_AVX512_")})
        return Choice(switches, unused)
    if found.machine in _ARM_NAMES:
        # armv8.2-a promises LSE atomics and RDM; older cores run the plain architecture.
        base = "armv8.2-a" if found.features.issuperset({"atomics", "asimdrdm"}) else "armv8-a"
        arch = base
        for feature, extension in _ARM if base != "armv8-a" else ():
            if feature in found.features and compiles([f"-march={arch}+{extension}"]):
                arch += f"+{extension}"
            elif feature in found.features:
                unused[feature] = f"the compiler does not know +{extension}; a newer one would"
        return Choice({"GGML_NATIVE": "OFF", "GGML_CPU_ARM_ARCH": arch}, unused)
    return Choice({"GGML_NATIVE": "OFF"}, unused)


def portable(found: Cpu) -> Choice:
    """The build that any 64-bit machine of this architecture runs: SSE4.2 (x86-64-v2), or ARMv8.0."""
    if found.machine in _X86_NAMES:
        on = {switch: "ON" if switch == "GGML_SSE42" and "sse4_2" in found.features else "OFF" for switch, _, _ in _X86}
        return Choice({"GGML_NATIVE": "OFF", **on})
    if found.machine in _ARM_NAMES:
        return Choice({"GGML_NATIVE": "OFF", "GGML_CPU_ARM_ARCH": "armv8-a"})
    return Choice({"GGML_NATIVE": "OFF"})


def compiler_knows(compiler: str) -> Callable[[Iterable[str]], bool]:
    """Asks ``compiler`` whether it compiles an empty file with given flags."""

    def compiles(flags: Iterable[str]) -> bool:
        command = [compiler, *flags, "-x", "c", "-c", "/dev/null", "-o", "/dev/null"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    return compiles
