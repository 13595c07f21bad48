"""The content-addressed store of model files: atomic, safe to kill at any point, under a quota.

    blobs/sha256-HEX     the bytes, read-only, named by what they are
    installed/NAME.json  which blobs make up a model
    tuned/NAME.json      which file a writer runs from on this machine
    partial/             unfinished downloads, resumed by the next attempt
    catalog/NAME.toml    the owner's own catalogue entries
    lock                 flock'd by whoever changes what is installed

Downloads nothing: bytes come in through :class:`models.partial.Partial`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from models import catalog, records
from models.blobs import Blobs, digest, size_of
from models.catalog import Entry, File, Role, Source
from models.errors import DamagedFileError, NotInstalledError, StoreError
from models.partial import Partial, gathering, held_bytes
from models.records import Finding, Held, Installed, Manifest, Tuned, megabytes


class Store:
    """Models under ``root``. Reading needs no write permission, and creates nothing."""

    def __init__(self, root: Path, quota_bytes: int) -> None:
        self.root = root
        self.quota_bytes = quota_bytes
        self._blobs = Blobs(root / "blobs", root / "partial")

    def catalogue(self) -> Mapping[str, Entry]:
        """The shipped catalogue with the owner's entries on top.

        Raises:
            CatalogError: one of them is wrong.
        """
        return catalog.load(self.root / "catalog")

    def entry(self, name: str) -> Entry:
        """The catalogue entry called ``name``.

        Raises:
            UnknownModelError: there is none.
            CatalogError: it is wrong.
        """
        return catalog.find(name, self.root / "catalog")

    def names(self) -> tuple[str, ...]:
        """Names of what is installed, in order, whether whole or damaged."""
        return tuple(sorted(path.stem for path in (self.root / "installed").glob("*.json")))

    def get(self, name: str) -> Installed:
        """The installed model; its files are there and as long as they should be (:meth:`verify` reads them).

        Raises:
            NotInstalledError: it is not here.
            DamagedFileError: a file is missing or cut short, or the manifest cannot be read.
        """
        manifest = self._manifest(name)
        files = {role: self._blobs.path(held.sha256) for role, held in manifest.files.items()}
        for role, held in manifest.files.items():
            size = size_of(files[role])
            if size != held.size:
                found = "is missing" if size is None else f"has {size} bytes instead of {held.size}"
                raise DamagedFileError(f"{name}: the {role} file {found}; `edge model pull {name}` fetches it again")
        return Installed(name, manifest.kind, manifest.format, files, manifest.files, self.tuned(name))

    def writer_path(self, name: str) -> Path:
        """The file a writer runs from: the tuned variant where there is a whole one, else the weights.

        Raises:
            NotInstalledError, DamagedFileError: as :meth:`get`.
        """
        installed = self.get(name)
        return installed.files["weights"] if installed.tuned is None else self._blobs.path(installed.tuned.sha256)

    def tuned(self, name: str) -> Tuned | None:
        """What tuning chose for ``name``; None where it has not run, or for other weights, or its file is not whole."""
        try:
            record = records.read(self.root / "tuned" / f"{name}.json", Tuned)
            weights = self._manifest(name).files["weights"].sha256
        except (DamagedFileError, NotInstalledError):
            return None
        if record is None or record.source_sha256 != weights or size_of(self._blobs.path(record.sha256)) != record.size:
            return None
        return record

    def used_bytes(self) -> int:
        """Bytes of all blobs and of all unfinished downloads, at the size that they will have."""
        return self._blobs.used() + held_bytes(self.root / "partial")

    def partial(self, entry: Entry, file: File, source: Source) -> Partial:
        """Where ``file`` of ``entry`` is gathered from ``source``; what an earlier attempt left is resumed."""
        key = hashlib.sha256(f"{file.sha256 or file.name}\n{source}".encode()).hexdigest()[:12]
        folder = f"partial/{entry.name}/{file.role}-{key}"
        _make(self.root, folder)
        return Partial(self.root / folder, self._room_for)

    def gathering(self, name: str) -> AbstractContextManager[None]:
        """Held while the files of ``name`` are gathered and installed: a second process waits, then finds them there.

        Raises:
            StoreError: the disk refused.
        """
        return gathering(self.root / "partial" / name)

    def workspace(self, name: str) -> Path:
        """A directory on the store's file system for making variants of ``name``; :meth:`remove` clears it."""
        _make(self.root, f"partial/{name}/workspace")
        return self.root / "partial" / name / "workspace"

    def blob(self, sha256: str | None, size: int | None = None) -> Path | None:
        """The blob with this digest if it is here (and ``size`` bytes long), so that it need not be fetched."""
        return None if sha256 is None else self._blobs.find(sha256, size)

    def install(self, entry: Entry, files: Mapping[Role, tuple[Path, Held]]) -> Installed:
        """Take the gathered files (moved, or already blobs) in and write the manifest: all of it, or none.

        Raises:
            StoreError: the disk refused.
        """
        with self._locked():
            for path, held in files.values():
                self._blobs.take(path, held.sha256)
            held_files = {role: held for role, (_, held) in files.items()}
            manifest = Manifest(name=entry.name, kind=entry.kind, format=entry.format, files=held_files)
            records.write(self.root / "installed" / f"{entry.name}.json", manifest)
            shutil.rmtree(self.root / "partial" / entry.name, ignore_errors=True)
            self._sweep()
        return self.get(entry.name)

    def add_variant(
        self,
        name: str,
        path: Path,
        file_format: str,
        *,
        figures: Mapping[str, Any],
        machine: str,
        sha256: str | None = None,
    ) -> Tuned:
        """Move ``path``, a re-quantised form of the writer ``name``, into the store and run from it from now on.

        ``path`` may lie anywhere; on the store's own file system it is renamed, not copied. ``sha256`` saves
        hashing it again where the caller just did.

        Raises:
            NotInstalledError: the writer itself is not here.
            StoreError: it does not fit, or the disk refused.
        """
        source = self._manifest(name).files["weights"].sha256
        size = path.stat().st_size
        found = sha256 or digest(path)
        if self.blob(found, size) is None:
            self._room_for(size, size if path.is_relative_to(self.root) else 0, f"the {file_format} form of {name}")
        record = Tuned(
            name=name,
            format=file_format,
            sha256=found,
            size=size,
            source_sha256=source,
            machine=machine,
            figures=dict(figures),
        )
        with self._locked():
            self._blobs.take(path, found)
            records.write(self.root / "tuned" / f"{name}.json", record)
            self._sweep()
        return record

    def keep_source(self, name: str, *, figures: Mapping[str, Any], machine: str) -> Tuned:
        """Record that tuning ran and that the weights as shipped won."""
        manifest = self._manifest(name)
        weights = manifest.files["weights"]
        record = Tuned(
            name=name,
            format=manifest.format,
            sha256=weights.sha256,
            size=weights.size,
            source_sha256=weights.sha256,
            machine=machine,
            figures=dict(figures),
        )
        with self._locked():
            records.write(self.root / "tuned" / f"{name}.json", record)
            self._sweep()
        return record

    def verify(self, name: str, step: Callable[[str, int, int], None] | None = None) -> tuple[Finding, ...]:
        """Hash every file of ``name`` again. A damaged one is removed, so that a pull fetches it anew.

        ``step`` is told the role, the bytes read and the bytes in all.

        Raises:
            NotInstalledError: it is not here.
            DamagedFileError: its manifest cannot be read.
        """
        wanted = {str(role): (held.sha256, held.size) for role, held in self._manifest(name).files.items()}
        tuned = records.read(self.root / "tuned" / f"{name}.json", Tuned)
        if tuned is not None and tuned.sha256 not in {sha256 for sha256, _ in wanted.values()}:
            wanted[f"tuned {tuned.format}"] = (tuned.sha256, tuned.size)
        return tuple(
            _hashed(name, role, self._blobs.path(sha256), sha256, _told(step, role, size))
            for role, (sha256, size) in wanted.items()
        )

    def holds(self, name: str) -> bool:
        """Whether there is something of ``name`` to remove: whole, damaged, or half fetched."""
        # Only what a model can be called becomes part of a path.
        places = (self.root / "installed" / f"{name}.json", self.root / "partial" / name)
        return catalog.NAME.fullmatch(name) is not None and any(place.exists() for place in places)

    def remove(self, name: str) -> int:
        """Forget ``name``, its tuning and its unfinished downloads; returns the bytes freed.

        Raises:
            NotInstalledError: it is not here.
        """
        before = self.used_bytes()
        with self._locked():
            if not self.holds(name):
                raise NotInstalledError(f"{name} is not installed; `edge model list` shows what is")
            for folder in ("installed", "tuned"):
                (self.root / folder / f"{name}.json").unlink(missing_ok=True)
            shutil.rmtree(self.root / "partial" / name, ignore_errors=True)
            self._sweep()
        return before - self.used_bytes()

    def _manifest(self, name: str) -> Manifest:
        path = self.root / "installed" / f"{name}.json"
        manifest = records.read(path, Manifest) if catalog.NAME.fullmatch(name) else None
        if manifest is None:
            raise NotInstalledError(f"{name} is not installed; `edge model pull {name}` fetches it")
        return manifest

    def _sweep(self) -> None:
        """Free blobs that no record names. Damaged records stop it: nobody knows what they named."""
        named: set[str] = set()
        for path in (self.root / "installed").glob("*.json"):
            manifest = records.read(path, Manifest)
            named.update(held.sha256 for held in manifest.files.values()) if manifest else None
        for path in (self.root / "tuned").glob("*.json"):
            tuned = records.read(path, Tuned)
            named.update((tuned.sha256, tuned.source_sha256) if tuned else ())
        self._blobs.sweep(named)

    def _room_for(self, size: int, held: int, what: str) -> None:
        """Refuse ``size`` bytes, of which ``held`` are here already, where quota or disk have no room for the rest."""
        used = self.used_bytes() - held
        if used + size > self.quota_bytes:
            raise StoreError(
                f"{what} needs {megabytes(size)}, and the model store holds {megabytes(used)} of the "
                f"{megabytes(self.quota_bytes)} it may: `edge model remove NAME` frees some, "
                f"models.quota_bytes in edge.toml allows more"
            )
        free = shutil.disk_usage(self.root).free
        if size - held > free:
            raise StoreError(
                f"{what} needs {megabytes(size - held)}, and the disk at {self.root} has {megabytes(free)} free"
            )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        for folder in ("blobs", "installed", "tuned", "partial"):
            _make(self.root, folder)
        try:
            with (self.root / "lock").open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise StoreError(f"the model store at {self.root} cannot be written: {error.strerror or error}") from error


def _make(root: Path, folder: str) -> None:
    try:
        (root / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{root} cannot be written: {error.strerror}; whose is it?") from error


def _told(step: Callable[[str, int, int], None] | None, role: str, size: int) -> Callable[[int], None] | None:
    return None if step is None else lambda done: step(role, done, size)


def _hashed(name: str, role: str, path: Path, sha256: str, step: Callable[[int], None] | None) -> Finding:
    """Hash one file; a damaged one is removed."""
    again = "`edge model tune` makes it" if role.startswith("tuned") else f"`edge model pull {name}` fetches it"
    try:
        found = digest(path, step)
    except OSError as error:
        return Finding(role, path, f"cannot be read ({error.strerror}); {again} again")
    if found == sha256:
        return Finding(role, path, None)
    # Without write permission the finding still stands.
    with contextlib.suppress(OSError):
        path.unlink()
    return Finding(role, path, f"is damaged: its sha256 is {found} instead of {sha256}; {again} again")
