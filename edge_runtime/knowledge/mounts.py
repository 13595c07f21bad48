"""Indexes that were exported elsewhere and answer beside the box's own: read-only files, and a record beside each.

``mounts/NAME.json`` says which file is mounted and who may read it; the owner may raise how sensitive a collection is,
and never lower it. A damaged or missing file is told as the trouble of its mount and stops nothing else. Every method
blocks.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import msgspec

from edge_runtime.errors import EdgeError, EngineError, NotFoundError, RefusedError, RequestError, StorageError
from edge_runtime.knowledge import collections
from edge_runtime.knowledge.frozen import open_frozen
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.inspection import Header, inspect
from edge_runtime.knowledge_protocol import Document, Mount
from edge_runtime.protocol import COLLECTION, DEFAULT_COLLECTION, CollectionName, Sensitivity

_ORDER: tuple[Sensitivity, ...] = ("public", "internal", "confidential", "secret")
_NAME = re.compile(COLLECTION.pattern or "")
_CHECKING = "it is being checked; try again in some seconds"


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the owner said of a mounted file."""

    name: CollectionName
    file: str  # in the same folder
    sha256: str
    size: int  # bytes
    header: Header
    uids: list[int] = []
    gids: list[int] = []
    sensitivity: dict[str, Sensitivity] = {}  # of collections, by the name in the file, where it was raised


@dataclass(frozen=True, slots=True)
class Mounted:
    """One mount; ``index`` is None while there is ``trouble``."""

    name: str
    record: Record | None  # None: the record cannot be read
    index: Index | None = None
    stamp: tuple[int, ...] = ()  # of the file that was checked
    trouble: str = ""

    def asked(self, collection: str) -> str:
        """The name under which a collection of the file is asked for."""
        alone = self.record is not None and len(self.record.header.collections) == 1
        return self.name if alone else f"{self.name}-{collection}"


@dataclass(frozen=True, slots=True)
class MountedCollection:
    """A collection of a mounted file: who may read it and how sensitive it is, under the ``asked`` name."""

    mounted: Mounted
    inside: str
    access: collections.Collection

    @property
    def index(self) -> Index:
        """
        Raises:
            EngineError: the file is still being checked.
            StorageError: the mount is in trouble; the message says what to do.
        """
        if self.mounted.index is None:
            kind = EngineError if self.mounted.trouble == _CHECKING else StorageError
            raise kind(f"the mounted index {self.mounted.name}: {self.mounted.trouble}")
        return self.mounted.index


class Mounts:
    """The mounts of one folder. Safe to use from many threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._mounted: dict[str, Mounted] = {}
        self._embedder = ""

    def load(self, *, embedder: str, taken: Callable[[], Collection[str]]) -> None:
        """Check every file that was mounted before, whole, and open it; ``taken`` are the box's own collections."""
        self._embedder = embedder
        for path in sorted(self._folder.glob("*.json")):
            self._put(_recall(path))
        for mounted in self._all():
            if mounted.record is not None:
                self._put(self._open(mounted.record, taken()))

    def mount(
        self,
        name: str,
        file: str,
        *,
        sha256: str | None,
        uids: Sequence[int],
        gids: Sequence[int],
        taken: Collection[str],
    ) -> Mount:
        """Check a file of the folder and have it answer from now on.

        Raises:
            RefusedError: a collection or a mount has the name, or its vectors are of another embedder.
            StorageError: what is wrong with the file, as :func:`inspect` says it.
        """
        with self._reserved(name):
            stamp = _stamp(self._folder / file)
            found = inspect(self._folder / file, sha256=sha256)
            record = Record(
                name=name,
                file=file,
                sha256=found.sha256,
                size=found.size,
                header=found.header,
                uids=sorted(set(uids)),
                gids=sorted(set(gids)),
            )
            self._refuse_foreign(record)
            self._refuse_taken(record, taken)
            mounted = self._attach(record, stamp)
            self._store(record)
            self._put(mounted)
        return told(mounted)

    @contextmanager
    def _reserved(self, name: str) -> Iterator[None]:
        """The name is nobody else's while the block lasts, nor after it where that ends well."""
        with self._lock:
            if name in self._mounted:
                raise RefusedError(f"an index is mounted as {name} already; choose another name, or unmount that one")
            self._mounted[name] = Mounted(name, None, trouble=_CHECKING)
        try:
            yield
        except BaseException:
            with self._lock:
                del self._mounted[name]
            raise

    def unmount(self, name: str) -> Mount:
        """Forget a mount and remove its file; who reads in it now reads on to the end.

        Raises:
            NotFoundError: nothing is mounted under that name.
        """
        with self._lock:
            mounted = self._mounted.get(name)
            if mounted is None or (mounted.record is None and mounted.trouble == _CHECKING):
                raise NotFoundError(f"no index is mounted as {name}; edge index mounts lists them")
            (self._folder / f"{name}.json").unlink(missing_ok=True)
            del self._mounted[name]
        if mounted.record is not None:
            (self._folder / mounted.record.file).unlink(missing_ok=True)
        return told(mounted)

    def change(
        self,
        name: str,
        *,
        sensitivity: Sensitivity | None,
        uids: Sequence[int] | None,
        gids: Sequence[int] | None,
    ) -> collections.Collection:
        """What is given, of the collection asked for as ``name``; readers are those of the whole mount.

        Raises:
            RefusedError: it would be less sensitive than the file says.
        """
        found = self.find(name)
        if found is None or found.mounted.record is None:
            raise NotFoundError(f"no collection {name} is mounted; edge index mounts lists them")
        record = found.mounted.record
        if sensitivity is not None:
            least = next(one.sensitivity for one in record.header.collections if one.name == found.inside)
            if _ORDER.index(sensitivity) < _ORDER.index(least):
                raise RefusedError(
                    f"{name} came with a mounted index that calls it {least}; it can be made more sensitive, not less",
                    param="sensitivity",
                )
            record = msgspec.structs.replace(record, sensitivity={**record.sensitivity, found.inside: sensitivity})
        if uids is not None:
            record = msgspec.structs.replace(record, uids=sorted(set(uids)))
        if gids is not None:
            record = msgspec.structs.replace(record, gids=sorted(set(gids)))
        self._store(record)
        changed = replace(found.mounted, record=record)
        self._put(changed)
        return _access(changed, found.inside)

    def find(self, name: str) -> MountedCollection | None:
        """The mounted collection that is asked for as ``name``."""
        return next((one for one in self.every() if one.access.name == name), None)

    def every(self) -> list[MountedCollection]:
        """Every collection of every mount, those in trouble too."""
        return [
            MountedCollection(mounted, held.name, _access(mounted, held.name))
            for mounted in self._watched()
            if mounted.record is not None
            for held in mounted.record.header.collections
        ]

    def document(self, identity: str) -> Iterator[tuple[MountedCollection, Document]]:
        """Every mounted document with this id: one file may be mounted twice, for other readers."""
        for one in self.every():
            try:
                found = one.index.document(identity)
            except EdgeError:
                continue
            if found.collection == one.inside:
                yield one, present(one, found)

    def listing(self) -> list[Mount]:
        return [told(mounted) for mounted in self._watched()]

    # ---- one mount ---------------------------------------------------------------------------------------------------

    def _all(self) -> list[Mounted]:
        with self._lock:
            return [self._mounted[name] for name in sorted(self._mounted)]

    def _watched(self) -> list[Mounted]:
        """All of them, after a look whether each file is still the one that was checked."""
        for mounted in self._all():
            if mounted.index is None or mounted.record is None:
                continue
            if _stamp(self._folder / mounted.record.file) != mounted.stamp:
                trouble = (
                    f"its file {mounted.record.file} is gone or was changed; unmount it, and mount the file that was "
                    "exported again"
                )
                self._put(replace(mounted, index=None, trouble=trouble))
        return [one for one in self._all() if one.record is not None or one.trouble != _CHECKING]

    def _put(self, mounted: Mounted) -> None:
        with self._lock:
            self._mounted[mounted.name] = mounted

    def _open(self, record: Record, taken: Collection[str]) -> Mounted:
        """A mount of an earlier time, open, or with its trouble."""
        path = self._folder / record.file
        try:
            self._refuse_taken(record, taken)
            stamp = _stamp(path)
            inspect(path, sha256=record.sha256)
            return self._attach(record, stamp)
        except EdgeError as error:
            return Mounted(record.name, record, trouble=f"{error.message}, after: edge index unmount {record.name}")

    def _attach(self, record: Record, stamp: tuple[int, ...]) -> Mounted:
        """The mount of a file that was inspected when it had this ``stamp``. Raises StorageError."""
        path = self._folder / record.file
        index = open_frozen(path, embedder=record.header.embedder, width=record.header.width)
        if _stamp(path) != stamp:
            raise StorageError(f"{record.file} was changed while it was checked; mount it again")
        trouble = ""
        if record.header.embedder != self._embedder:
            trouble = (
                f"its vectors are of {record.header.embedder}, and the embedder is now {self._embedder}: only its "
                "words are searched; mount an export that was made with this one"
            )
        return Mounted(record.name, record, index, stamp, trouble)

    def _refuse_foreign(self, record: Record) -> None:
        """Raises RefusedError: nothing on this box embeds questions as its vectors were."""
        if record.header.embedder != self._embedder:
            raise RefusedError(
                f"{record.file} holds vectors of {record.header.embedder}, and the embedder of this box is "
                f"{self._embedder}; choose that one in edge.toml, or export the index on a box with this one"
            )

    def _refuse_taken(self, record: Record, taken: Collection[str]) -> None:
        """Raises RefusedError: one of its collections would be asked for by a name that is another's, or none."""
        others = {one.access.name for one in self.every() if one.mounted.name != record.name}
        for held in record.header.collections:
            name = Mounted(record.name, record).asked(held.name)
            if name in others or name in taken or name == DEFAULT_COLLECTION:
                raise RefusedError(f"there is a collection {name} already; mount the index under another name")
            if not _NAME.fullmatch(name):
                raise RequestError(f"its collection would be called {name}; choose a shorter name", param="name")

    def _store(self, record: Record) -> None:
        """Raises StorageError: the disk is full; the former record is as it was."""
        path = self._folder / f"{record.name}.json"
        partial = path.with_name(f".{path.name}.partial")
        try:
            with partial.open("wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(record), indent=2))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise StorageError(f"{path} cannot be written ({error.strerror}); free some space and try again") from error


def told(mounted: Mounted) -> Mount:
    """A mount as the wire knows it."""
    record = mounted.record
    if record is None:
        return Mount(
            name=mounted.name, collections=[], sha256="", size=0, documents=0, embedder="", trouble=mounted.trouble
        )
    return Mount(
        name=mounted.name,
        collections=[mounted.asked(held.name) for held in record.header.collections],
        sha256=record.sha256,
        size=record.size,
        documents=record.header.documents,
        embedder=record.header.embedder,
        trouble=mounted.trouble,
    )


def present(one: MountedCollection, document: Document) -> Document:
    """A document of a mounted file as it is asked for; it counts as added on the day when the file was made."""
    record = one.mounted.record
    made = 0.0 if record is None else datetime.fromisoformat(f"{record.header.created}T00:00:00+00:00").timestamp()
    return msgspec.structs.replace(document, collection=one.access.name, added=made)


def _access(mounted: Mounted, inside: str) -> collections.Collection:
    record = mounted.record
    if record is None:
        raise NotFoundError(f"the mounted index {mounted.name} cannot be read; unmount it, and mount it again")
    least = next(one.sensitivity for one in record.header.collections if one.name == inside)
    raised = record.sensitivity.get(inside, least)
    return collections.Collection(
        mounted.asked(inside),
        max(least, raised, key=_ORDER.index),
        frozenset(record.uids),
        frozenset(record.gids),
    )


def _recall(path: Path) -> Mounted:
    """A record as a mount that is still to be opened."""
    try:
        record = msgspec.json.decode(path.read_bytes(), type=Record)
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError) as error:
        trouble = f"its record {path.name} cannot be read ({error}); unmount it, and mount the file again"
        return Mounted(path.stem, None, trouble=trouble)
    if record.name != path.stem or Path(record.file).name != record.file:
        trouble = f"its record {path.name} is of another mount; unmount it, and mount the file again"
        return Mounted(path.stem, None, trouble=trouble)
    return Mounted(record.name, record, trouble=_CHECKING)


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file does; empty where there is none."""
    try:
        found = path.lstat()
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
