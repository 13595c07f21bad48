"""The build itself takes minutes and is exercised by ``make setup``; here stands everything around it.

The environment built into is a real one (a venv); its probe is the real module's place taken by a program that crashes
or answers, which is what a build for the wrong processor does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from edge_runtime.paths import build_record
from firmware_tools import cpu, llama_build
from firmware_tools.errors import BuildError, SetupError
from firmware_tools.llama_build import Builder, Record
from tests.firmware_tools.conftest import Told
from tests.firmware_tools.sources import make_wheel

_ANSWER = json.dumps({"system": "CPU : SSE3 = 1", "tokens": [1, 2], "text": " low"})
# Stands in the built environment as firmware_tools.llama_probe; what it does depends on the wheel installed there.
_PROBE = f"""
import importlib.util, os, signal, sys
spec = importlib.util.find_spec("llama_cpp")
if spec is None:
    sys.exit("llama-cpp-python is not installed")
text = open(os.path.join(os.path.dirname(spec.origin), "kind.txt")).read()
if len(sys.argv) > 1 and text == "crashes":
    os.kill(os.getpid(), signal.SIGILL)
if len(sys.argv) > 1 and text == "nan":
    sys.exit("the logits are not finite")
print('''{_ANSWER}''')
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(prefix)], check=True)
    site = next(prefix.glob("lib/python*/site-packages"))
    (site / "firmware_tools").mkdir()
    (site / "firmware_tools" / "__init__.py").write_text("")
    (site / "firmware_tools" / "llama_probe.py").write_text(_PROBE)
    return prefix


class Prebuilt(Builder):
    """A builder whose wheels lie in the cache already, the fast one of kind ``fast``."""

    def __init__(self, told: Told, prefix: Path, folder: Path, fast: str, slow: str = "works") -> None:
        super().__init__(told, prefix=prefix, python=str(prefix / "bin" / "python"), cache=folder / "cache")
        compiler = llama_build.need_compiler()
        found = self._found
        for choice, kind in ((cpu.portable(found), slow), (self._choice(compiler), fast)):
            key = llama_build._key(choice.switches, llama_build._version_of(compiler), found)
            content = {"llama_cpp/__init__.py": b"", "llama_cpp/kind.txt": kind.encode()}
            make_wheel(folder / "cache" / key, "llama-cpp-python", llama_build.VERSION, content)

    def _choice(self, compiler: str) -> cpu.Choice:
        return cpu.choose(self._found, cpu.compiler_knows(compiler))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    return path


def _record(prefix: Path) -> Record:
    return msgspec.json.decode(build_record(str(prefix)).read_bytes(), type=Record)


def test_a_build_that_decodes_is_installed_recorded_and_then_instant(
    environment: Path, tmp_path: Path, told: Told, model: Path
) -> None:
    builder = Prebuilt(told, environment, tmp_path, "works")

    record = builder.install(builder.compile(), model)

    assert record == _record(environment) == builder.current()
    assert (record.portable, record.text, record.build_seconds) == (False, " low", 0.0)
    assert record.switches == record.wanted


def test_a_build_that_dies_while_decoding_gives_way_to_the_portable_one(
    environment: Path, tmp_path: Path, told: Told, model: Path
) -> None:
    builder = Prebuilt(told, environment, tmp_path, "crashes")

    record = builder.install(builder.compile(), model)

    assert record.portable
    assert "died of signal 4" in (record.why_portable or "")
    assert any("building the portable one instead" in note for note in told.notes)
    # It stays: the next run neither builds the fast one again nor doubts this one.
    assert builder.current() == record


def test_a_build_that_computes_nonsense_gives_way_too_and_where_none_decodes_that_is_said(
    environment: Path, tmp_path: Path, told: Told, model: Path
) -> None:
    builder = Prebuilt(told, environment, tmp_path, "nan", slow="crashes")

    with pytest.raises(BuildError, match=r"does not decode: .*signal 4.*edge model verify"):
        builder.install(builder.compile(), model)
    assert any("logits are not finite" in note for note in told.notes)


def test_a_portable_build_that_was_asked_for_says_so(
    environment: Path, tmp_path: Path, told: Told, model: Path
) -> None:
    builder = Prebuilt(told, environment, tmp_path, "works")

    record = builder.install(builder.compile(portable=True), model, portable=True)

    assert (record.portable, record.why_portable) == (True, "asked for")
    assert record.wanted["GGML_NATIVE"] == "OFF"


def test_a_record_of_another_version_or_processor_is_not_believed(
    environment: Path, tmp_path: Path, told: Told, model: Path
) -> None:
    builder = Prebuilt(told, environment, tmp_path, "works")
    record = builder.install(builder.compile(), model)
    path = build_record(str(environment))

    for changed in ({"version": "0.0.1"}, {"wanted": {"GGML_NATIVE": "ON"}}):
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(record, **changed)))
        assert builder.current() is None
    path.write_bytes(b"{")
    assert builder.current() is None


def test_a_build_that_fails_names_the_reason_and_its_log(tmp_path: Path, told: Told) -> None:
    builder = Builder(told, python=sys.executable, cache=tmp_path)
    script = "print('  [1/2] g++ -Werror=x'); print('x.cpp:1: fatal error: omp.h: No such file'); raise SystemExit(1)"
    log = tmp_path / "build.log"

    assert builder._run([sys.executable, "-c", script], {}, log) == 1
    assert told.steps == [("llama.cpp", 1, 2)]
    assert "omp.h" in llama_build._reason(log)


def test_a_build_that_became_pointless_is_stopped_with_its_children(tmp_path: Path, told: Told) -> None:
    def pointless() -> None:
        raise SetupError("the model cannot be had")

    builder = Builder(told, cache=tmp_path, wanted=pointless)
    script = "import subprocess, sys; p = subprocess.Popen(['sleep', '1000']); print(p.pid, flush=True); p.wait()"

    with pytest.raises(SetupError, match="cannot be had"):
        builder._run([sys.executable, "-c", script], {"PATH": "/usr/bin:/bin"}, tmp_path / "log")
    pid = int((tmp_path / "log").read_text())
    state = Path(f"/proc/{pid}/stat")
    while state.exists() and state.read_text().split()[2] != "Z":
        time.sleep(0.01)


def test_without_a_compiler_the_package_to_install_is_named(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)

    with pytest.raises(SetupError, match="apt-get install build-essential"):
        Builder(told, cache=tmp_path).compile()


def test_the_build_that_is_installed_here_decodes_with_a_real_model(small_writer: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "firmware_tools.llama_probe", str(small_writer)], capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr[-500:]
    assert "suction pressure is low" in json.loads(done.stdout)["text"]


def test_a_file_that_is_no_model_ends_the_probe_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(b"not a model")

    done = subprocess.run(
        [sys.executable, "-m", "firmware_tools.llama_probe", str(tmp_path / "no.gguf")], capture_output=True, text=True
    )

    assert done.returncode == 1
    assert "edge model verify" in done.stderr
