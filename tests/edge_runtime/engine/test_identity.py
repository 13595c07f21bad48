"""The name of the build."""

from __future__ import annotations

from edge_runtime.engine.identity import build


def test_it_names_the_version_the_instruction_sets_and_the_libraries_and_stays_the_same() -> None:
    assert build().startswith("llama-cpp-python ")
    assert "CPU" in build()
    assert "libllama.so=" in build()
    assert build() == build()
