"""Builds llama.cpp for this machine's processor, proves in a child process that it decodes, records what was built.

A wheel is kept in the user's cache by what it was made from, so that a second environment takes it. Where the fast
build dies while decoding, the portable one takes its place.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from edge_runtime.paths import build_record
from firmware_tools import cpu
from firmware_tools.cpu import Choice, Cpu
from firmware_tools.errors import BuildError, SetupError
from firmware_tools.progress import Display

VERSION = "0.3.36"
_SDIST_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"  # of the publisher's archive
_COMPANIONS = ("diskcache==5.6.3", "typing_extensions==4.16.0")
_BUILD_TOOLS = ("scikit-build-core==1.1.2", "cmake==4.4.4", "ninja==1.13.2", "packaging==26.3", "pathspec==1.1.1")
_OPTIONS = {
    "LLAVA_BUILD": "OFF",
    "LLAMA_CURL": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_ALL_WARNINGS": "OFF",
    # Otherwise every library is packed twice: beside the bindings, and into the environment's own lib.
    "CMAKE_INSTALL_LIBDIR": "llama_cpp/lib",
    "CMAKE_INSTALL_INCLUDEDIR": "llama_cpp/include",
}
_COMPILE_MEMORY = 800_000_000  # bytes that one compiler may take
_PROBE_SECONDS = 300
_STEP = re.compile(r"\s*\[(\d+)/(\d+)\]")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What :func:`edge_runtime.paths.build_record` holds; `edge doctor` reads it."""

    version: str
    wanted: dict[str, str]  # switches of the fastest build that should run here
    switches: dict[str, str]  # those of the build that is installed
    portable: bool  # True: the fast one died, or was not asked for
    why_portable: str | None
    processor: str
    features: list[str]
    unused: dict[str, str]  # feature of the processor: why the build leaves it unused
    compiler: str
    model_sha256: str
    tokens: list[int]
    text: str
    system: str  # llama_print_system_info()
    build_seconds: float  # 0 where the wheel came from the cache


class Builder:
    """Builds into the environment ``prefix`` whose interpreter is ``python``; wheels are kept under ``cache``."""

    def __init__(
        self,
        display: Display,
        *,
        prefix: Path = Path(sys.prefix),
        python: str = sys.executable,
        cache: Path | None = None,
        wanted: Callable[[], None] = lambda: None,
    ) -> None:
        self._display = display
        self._prefix = prefix
        self._python = python
        self._cache = cache or wheel_cache()
        self._wanted = wanted  # raises where the build has become pointless
        self._found = cpu.detect()
        self._answer: dict[str, Any] = {}

    def current(self) -> Record | None:
        """The record of a build that is what this processor wants and still loads, else None."""
        try:
            record = msgspec.json.decode(build_record(str(self._prefix)).read_bytes(), type=Record)
        except (OSError, msgspec.MsgspecError):
            return None
        # With the compiler gone nothing better can be built.
        compiler = _compiler()
        choice = cpu.choose(self._found, cpu.compiler_knows(compiler)) if compiler else None
        if record.version != VERSION or (choice is not None and record.wanted != choice.switches):
            return None
        return record if self._probe(None) is None else None

    def compile(self, *, portable: bool = False) -> tuple[Choice, Path, float]:
        """A wheel with the switches for this processor, from the cache or compiled: choice, wheel, seconds it took.

        Raises:
            SetupError: no compiler.
            BuildError: pip or the compiler failed; the message names the log.
        """
        compiler = need_compiler()
        choice = cpu.portable(self._found) if portable else cpu.choose(self._found, cpu.compiler_knows(compiler))
        folder = self._cache / _key(choice.switches, _version_of(compiler), self._found)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            ready = list(folder.glob("llama_cpp_python-*.whl"))
            if ready:
                return choice, ready[0], 0.0
            begin = time.monotonic()
            for left in folder.glob("tmp*"):
                shutil.rmtree(left, ignore_errors=True)  # of a build that was killed
            self._display.note(f"building llama.cpp for {self._found.model}; some minutes, once")
            wheel = self._compile_into(folder, choice.switches)
            return choice, wheel, time.monotonic() - begin

    def install(self, compiled: tuple[Choice, Path, float], model: Path, *, portable: bool = False) -> Record:
        """Install the wheel and decode with ``model``; where that dies, build and install the portable one.

        Raises:
            BuildError: not even the portable build decodes.
        """
        choice, wheel, seconds = compiled
        self._pip_install(wheel)
        trouble = self._probe(model)
        why = "asked for" if portable else None
        installed = choice
        if trouble is not None and not portable:
            why = f"the build for this processor failed: {trouble}"
            self._display.note(f"{why}; building the portable one instead")
            installed, wheel, seconds = self.compile(portable=True)
            self._pip_install(wheel)
            trouble = self._probe(model)
        if trouble is not None:
            raise BuildError(
                f"llama.cpp was built and does not decode: {trouble}. `edge model verify` says whether the model "
                "file is whole; if it is, please report this processor"
            )
        return self._write_record(choice, installed, why, model, seconds)

    def _write_record(self, choice: Choice, installed: Choice, why: str | None, model: Path, seconds: float) -> Record:
        answer = self._answer
        wanted = cpu.choose(self._found, cpu.compiler_knows(need_compiler())) if why == "asked for" else choice
        record = Record(
            version=VERSION,
            wanted=dict(wanted.switches),
            switches=dict(installed.switches),
            portable=why is not None,
            why_portable=why,
            processor=self._found.model,
            features=sorted(self._found.features),
            unused=dict(wanted.unused),
            compiler=_version_of(need_compiler()),
            model_sha256=_digest(model),
            tokens=answer["tokens"],
            text=answer["text"],
            system=answer["system"],
            build_seconds=round(seconds, 1),
        )
        path = build_record(str(self._prefix))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
        temporary.replace(path)
        self._display.note(f"llama.cpp decodes: {record.text.strip()!r}; {record.system.strip(' |')}")
        return record

    # ---- pip and the child -----------------------------------------------------------------------------------------

    def _compile_into(self, folder: Path, switches: Mapping[str, str]) -> Path:
        log = folder / "build.log"
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            defines = {**_OPTIONS, **switches, "CMAKE_PROJECT_INCLUDE": str(Path(__file__).with_name("llama.cmake"))}
            settings = ["build.targets=llama", *(f"cmake.define.{name}={value}" for name, value in defines.items())]
            # pip applies settings from its command line only to what is named there, and hashes only to what is here.
            requirement = Path(scratch, "requirement.txt")
            line = [f"llama-cpp-python=={VERSION}", f"--hash=sha256:{_SDIST_SHA256}"]
            line += [f'--config-settings="{setting}"' for setting in settings]
            requirement.write_text(" ".join(line) + "\n", "utf-8")
            constraint = Path(scratch, "constraint.txt")
            constraint.write_text("\n".join(_BUILD_TOOLS) + "\n", "utf-8")
            command = [self._python, "-m", "pip", "wheel", "-v", "--no-deps", "--no-cache-dir", "--no-input"]
            command += ["--no-binary", "llama-cpp-python", "--require-hashes", "-r", str(requirement)]
            command += ["--disable-pip-version-check", "--wheel-dir", str(Path(scratch, "out"))]
            environment = {**os.environ, "CMAKE_BUILD_PARALLEL_LEVEL": str(_jobs()), "TMPDIR": scratch}
            environment |= {"PIP_BUILD_CONSTRAINT": str(constraint)}
            code = self._run(command, environment, log)
            wheels = list(Path(scratch, "out").glob("*.whl"))
            if code != 0 or len(wheels) != 1:
                raise BuildError(f"llama.cpp could not be built: {_reason(log)}; the whole story is in {log}")
            return Path(shutil.move(wheels[0], folder / wheels[0].name))

    def _run(self, command: list[str], environment: Mapping[str, str], log: Path) -> int:
        """Run a build, show its steps, keep what it says in ``log``."""
        with (
            log.open("w", encoding="utf-8") as story,
            subprocess.Popen(
                command,
                env=environment,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as build,
        ):
            try:
                for line in build.stdout or ():
                    story.write(line)
                    self._wanted()
                    if step := _STEP.match(line):
                        self._display.step("llama.cpp", int(step[1]), int(step[2]), "steps")
            except BaseException:
                # The compilers are grandchildren: the session is theirs alone.
                with suppress(ProcessLookupError):
                    os.killpg(build.pid, 15)
                raise
        return build.returncode

    def _pip_install(self, wheel: Path) -> None:
        command = [
            self._python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--disable-pip-version-check",
            "--no-input",
        ]
        force = ["--force-reinstall", "--no-index", str(wheel)]
        for arguments in (force, list(_COMPANIONS)):
            done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise BuildError(f"pip cannot install {arguments[-1]}: {done.stderr.strip()[-400:]}")

    def _probe(self, model: Path | None) -> str | None:
        """Decode in a child; None where it went well, else what went wrong. Its answer is kept for the record."""
        arguments = [] if model is None else [str(model)]
        command = [self._python, "-P", "-m", "firmware_tools.llama_probe", *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            return f"the decoding child had not finished after {_PROBE_SECONDS} seconds"
        if done.returncode < 0:
            return f"the decoding child died of signal {-done.returncode}"
        if done.returncode != 0:
            return (done.stderr.strip().splitlines() or [f"the decoding child exited {done.returncode}"])[-1]
        self._answer = json.loads(done.stdout.strip().splitlines()[-1])
        return None


def wheel_cache() -> Path:
    """``$XDG_CACHE_HOME/edge-runtime/wheels``; deleting it costs only a rebuild."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "edge-runtime" / "wheels"


def need_compiler() -> str:
    """The C compiler that the build will use.

    Raises:
        SetupError: there is none, or none for C++.
    """
    compiler = _compiler()
    if compiler is None or not any(
        shutil.which(name) for name in (os.environ.get("CXX", "c++"), "c++", "g++", "clang++")
    ):
        raise SetupError(
            "llama.cpp needs a C and a C++ compiler: `apt-get install build-essential` (as root) brings them"
        )
    return compiler


def _compiler() -> str | None:
    return next(filter(None, map(shutil.which, (os.environ.get("CC", "cc"), "cc", "gcc", "clang"))), None)


def _version_of(compiler: str) -> str:
    said = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    return (said.splitlines() or [compiler])[0]


def _key(switches: Mapping[str, str], compiler: str, found: Cpu) -> str:
    parts = [VERSION, _SDIST_SHA256, found.machine, compiler, *platform.libc_ver()]
    parts += [f"{name}={value}" for name, value in sorted({**_OPTIONS, **switches}.items())]
    return f"{VERSION}-{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:16]}"


def _jobs() -> int:
    """As many compilers as there are cores, and memory for."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                fitting = int(line.split()[1]) * 1024 // _COMPILE_MEMORY
                return max(1, min(len(os.sched_getaffinity(0)), fitting))
    return 1


def _reason(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").splitlines()
    said = [line.strip() for line in lines if line.strip() and not _STEP.match(line)]
    telling = [line for line in said if re.search(r"(?i)(fatal error|error:|CMake Error|No space left)", line)]
    return (telling or said[-1:] or ["pip said nothing"])[0][:300]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
