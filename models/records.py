"""What the store writes beside the bytes: manifests of installed models and what was tuned, as JSON."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from models.catalog import Kind, Role
from models.errors import DamagedFileError

DigestOrigin = Literal["catalogue", "first fetch"]


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One installed file: which blob, and why its digest is believed."""

    sha256: str
    size: int  # bytes
    name: str
    source: str  # where the bytes came from
    digest_origin: DigestOrigin


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One installed model."""

    name: str
    kind: Kind
    format: str
    files: dict[Role, Held]


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """Which file a writer runs from on this machine, and what was measured to choose it."""

    name: str
    format: str
    sha256: str  # of the chosen file; the source's own digest where nothing beat it
    size: int  # bytes
    source_sha256: str
    machine: str  # models.machine.fingerprint() of the machine that measured
    figures: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Installed:
    """A model whose files are here."""

    name: str
    kind: Kind
    format: str
    files: Mapping[Role, Path]
    held: Mapping[Role, Held]
    tuned: Tuned | None

    @property
    def size(self) -> int:
        """Bytes, a tuned variant included."""
        own = {held.sha256: held.size for held in self.held.values()}
        if self.tuned is not None:
            own[self.tuned.sha256] = self.tuned.size
        return sum(own.values())

    @property
    def recorded(self) -> tuple[Role, ...]:
        """Files whose digest was recorded at their first fetch, because no public record of it was known."""
        return tuple(role for role, held in self.held.items() if held.digest_origin == "first fetch")


@dataclass(frozen=True, slots=True)
class Finding:
    """What re-hashing one file showed; ``problem`` is None where it is whole."""

    role: str
    path: Path
    problem: str | None


_R = TypeVar("_R", Manifest, Tuned)


def read(path: Path, kind: type[_R]) -> _R | None:
    """The record at ``path``, or None where there is none.

    Raises:
        DamagedFileError: it is there and cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise DamagedFileError(
            f"{path} cannot be read ({error}); `edge model pull {path.stem}` writes it anew"
        ) from error


def write(path: Path, record: msgspec.Struct) -> None:
    """Replace ``path`` by ``record``: whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make renames in ``path`` survive a power cut (fsync(2) of the directory)."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def megabytes(count: int) -> str:
    """A count of bytes as a person reads it."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
