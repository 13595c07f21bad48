"""Which switches a build gets, for any processor."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_tools import cpu
from firmware_tools.cpu import Cpu

_LISTED = (
    "sse4_2 ssse3 popcnt avx f16c fma bmi2 avx2 avx_vnni avx512f avx512cd avx512vl avx512dq avx512bw avx512vbmi "
    "avx512_vnni avx512_bf16 amx_tile amx_int8 amx_bf16"
)
_SAPPHIRE_RAPIDS = frozenset(_LISTED.split())
_X86_FEATURES = [*_SAPPHIRE_RAPIDS, "sse2", "lm"]
_ARM_FEATURES = ["asimd", "atomics", "asimdrdm", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2", "sme"]


def _all(_: Iterable[str]) -> bool:
    return True


def test_amx_is_never_chosen_and_the_reason_is_kept() -> None:
    choice = cpu.choose(Cpu("x86_64", "Xeon", _SAPPHIRE_RAPIDS), _all)

    assert not [switch for switch in choice.switches if "AMX" in switch]
    assert "amx_tile" in choice.unused
    assert {switch for switch, value in choice.switches.items() if value == "OFF"} == {"GGML_NATIVE"}


def test_a_small_box_without_avx_gets_what_it_has() -> None:
    choice = cpu.choose(Cpu("x86_64", "Celeron", frozenset({"sse4_2", "ssse3", "popcnt"})), _all)

    assert {switch for switch, value in choice.switches.items() if value == "ON"} == {"GGML_SSE42"}


def test_a_compiler_that_is_too_old_costs_its_extension_and_the_reason_is_kept() -> None:
    choice = cpu.choose(
        Cpu("x86_64", "Xeon", _SAPPHIRE_RAPIDS), lambda flags: not {"-mavx512bf16", "-mavxvnni"} & set(flags)
    )

    assert choice.switches["GGML_AVX512_BF16"] == choice.switches["GGML_AVX_VNNI"] == "OFF"
    assert choice.switches["GGML_AVX512"] == "ON"
    assert "-mavx512bf16" in choice.unused["avx512_bf16"]


@pytest.mark.parametrize(
    ("features", "arch"),
    [
        ("asimd fphp crc32", "armv8-a"),
        ("asimd atomics asimdrdm asimdhp asimddp", "armv8.2-a+dotprod+fp16"),
        ("asimd atomics asimdrdm asimdhp asimddp i8mm bf16 sve sve2", "armv8.2-a+dotprod+fp16+i8mm+bf16+sve+sve2"),
        ("asimd asimddp", "armv8-a"),
    ],
)
def test_arm_boxes_get_the_architecture_that_their_features_promise(features: str, arch: str) -> None:
    choice = cpu.choose(Cpu("aarch64", "Cortex", frozenset(features.split())), _all)

    assert choice.switches == {"GGML_NATIVE": "OFF", "GGML_CPU_ARM_ARCH": arch}


def test_an_unknown_architecture_gets_the_plain_build() -> None:
    assert cpu.choose(Cpu("riscv64", "x", frozenset({"v"})), _all).switches == {"GGML_NATIVE": "OFF"}


@given(st.sets(st.sampled_from(_X86_FEATURES)), st.booleans())
def test_whatever_an_x86_lists_no_switch_needs_more_than_that(features: set[str], knows: bool) -> None:
    found = Cpu("x86_64", "x", frozenset(features))
    switches = cpu.choose(found, lambda _: knows).switches

    on = {switch for switch, value in switches.items() if value == "ON"}
    assert knows or not on
    needs = {"GGML_AVX512": "avx512bw", "GGML_AVX2": "avx2", "GGML_FMA": "fma", "GGML_AVX512_VNNI": "avx512_vnni"}
    assert all(needs[switch] in features for switch in on & set(needs))
    assert "GGML_AVX512" in on or not {switch for switch in on if switch.startswith("GGML_AVX512_")}
    assert set(switches) == set(cpu.portable(found).switches)


@given(st.sets(st.sampled_from(_ARM_FEATURES)))
def test_whatever_an_arm_lists_the_portable_build_is_its_base(features: set[str]) -> None:
    found = Cpu("aarch64", "x", frozenset(features))

    assert cpu.choose(found, _all).switches["GGML_CPU_ARM_ARCH"].startswith("armv8")
    assert cpu.portable(found).switches["GGML_CPU_ARM_ARCH"] == "armv8-a"


def test_cores_that_differ_count_for_what_all_of_them_have(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nFeatures : asimd asimddp sve\n\nprocessor : 1\nFeatures : asimd asimddp\n")

    assert cpu.detect(cpuinfo).features == {"asimd", "asimddp"}
    assert cpu.detect(tmp_path / "none").features == frozenset()


def test_the_compiler_here_is_asked_and_answers() -> None:
    compiles = cpu.compiler_knows("cc")

    assert compiles(["-O2"])
    assert not compiles(["-mno-such-extension"])
