"""``edge add --watch``: follows folders, and has the index follow them.

What the system tells of changes only says when to look; a look compares every file with what it was. So a rename, a
queue that ran over, or a link is no special case, and where the system tells nothing, looking now and then does too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import watchfiles

from edge_runtime.cli.adding import Tally, Terms, add_files
from edge_runtime.cli.output import clean_line, dumps, put, say
from edge_runtime.cli.walking import FoundFile, Total, find
from edge_runtime.client import SyncClient
from edge_runtime.errors import BusyError, EdgeError, EngineError, NotFoundError, StorageError, UnreachableError
from edge_runtime.knowledge_protocol import Document

SETTLED_SECONDS = 1.0  # a file that was not written to for so long is whole; one that is gone so long is removed
POLL_SECONDS = 2.0
RETRY_SECONDS = 2.0
RARE_SECONDS = 60.0  # a look without any news: the system may have lost some
_SHARE = 10  # looking takes at most one part in so many of the time
_TICK_MS = 250
_GROUP_MS = 1000
# Of network drives the system tells only what this machine itself changes (proc(5), mountinfo).
_FAR = ("nfs", "cifs", "smb", "9p", "ceph", "fuse", "afs", "glusterfs", "lustre", "vboxsf")


def follow(box: SyncClient, folders: Sequence[Path], terms: Terms, *, poll: bool, as_json: bool) -> None:
    """Add what is in ``folders``, then do to the index what is done to them, until interrupted.

    Raises:
        click.UsageError: one is no folder.
        EdgeError: the daemon refuses it; one that is away, or has no room, is waited for.
    """
    for folder in folders:
        if not folder.is_dir():
            raise click.UsageError(f"{folder} is no folder; --watch follows folders")
    whole = [Path.cwd() / folder for folder in folders]
    far = next((folder for folder in whole if kind_of_mount(folder).startswith(_FAR)), None)
    if far is not None and not poll:
        say(f"{clean_line(str(far))} is on a network drive: it is looked at every {POLL_SECONDS:g} s")
    following = _Following(box, whole, terms, as_json)
    while True:
        following.begin()
        for news in _ticks(whole, poll=poll or far is not None):
            if not following.stand():
                break
            following.go_on(news=news)


def kind_of_mount(path: Path) -> str:
    """The type of the file system that holds ``path``; empty where the system does not tell."""
    kind, longest = "", -1
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    real = path.resolve()
    for line in lines:
        before, _, after = line.partition(" - ")
        place = before.split(" ")[4].replace("\\040", " ")
        if len(place) >= longest and real.is_relative_to(place):
            kind, longest = after.split(" ", 1)[0], len(place)
    return kind


def _ticks(folders: Sequence[Path], *, poll: bool) -> Iterator[bool]:
    """Again and again, whether there may be news."""
    if not poll:
        try:
            for changes in watchfiles.watch(
                *folders,
                watch_filter=None,
                debounce=_GROUP_MS,
                rust_timeout=_TICK_MS,
                yield_on_timeout=True,
                ignore_permission_denied=True,
            ):
                yield bool(changes)
        except (OSError, RuntimeError) as error:
            say(f"the system does not tell of changes ({error}): the folders are looked at every {POLL_SECONDS:g} s")
    while True:
        time.sleep(POLL_SECONDS)
        yield True


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file as it was when it was sent; ``document`` is what it became, None where the daemon could not read it."""

    stamp: int
    name: str
    document: str | None


@dataclass(slots=True)
class _Following:
    box: SyncClient
    folders: list[Path]
    terms: Terms
    as_json: bool
    known: dict[Path, _Seen] = field(default_factory=dict)
    _new: dict[Path, tuple[int, float]] = field(default_factory=dict)  # its stamp, and since when it has that
    _gone: dict[Path, float] = field(default_factory=dict)  # since when
    _refused: dict[Path, str] = field(default_factory=dict)
    _places: list[tuple[int, int] | None] = field(default_factory=list)  # device and inode of each folder
    _open: bool = True  # there may be something to do
    _next: float = 0.0  # when to look next (monotonic seconds)
    _rare: float = 0.0
    _waiting: bool = False

    def begin(self) -> None:
        """Add all that is there; wait for folders that are away."""
        places = [_place(folder) for folder in self.folders]
        while None in places:
            time.sleep(POLL_SECONDS)
            places = [_place(folder) for folder in self.folders]
        if places != self._places:
            # Other folders of the same names: what came from the former ones is theirs.
            self.known.clear()
        self._places = [*places]
        self._new.clear()
        self._gone.clear()
        tally = self._tally()
        total = Total.of(self.folders)
        try:
            self._add(find(self.folders, self._refuse), tally, total)
        except (BusyError, EngineError, StorageError, UnreachableError) as error:
            self._wait(error)
        finally:
            total.stop()
        self._open, self._next = True, 0.0
        counts = {"added": tally.documents, "unchanged": tally.same, "skipped": tally.failures}
        self._tell("watching", f"{tally}; watching", folders=[str(folder) for folder in self.folders], **counts)

    def stand(self) -> bool:
        """Whether the folders are those that they were; nothing is removed with one that is away as a whole."""
        places = [_place(folder) for folder in self.folders]
        if places == self._places:
            return True
        away = next(folder for folder, now, then in zip(self.folders, places, self._places, strict=True) if now != then)
        self._tell("away", f"{clean_line(str(away))} is away; nothing is removed; waiting for it", folder=str(away))
        return False

    def go_on(self, *, news: bool) -> None:
        """Look, where it is time to and there may be something."""
        now = time.monotonic()
        self._open = self._open or news or now >= self._rare
        if not self._open or now < self._next:
            return
        try:
            self._open = self._look(now)
            if self._waiting:
                self._waiting = False
                self._tell("going on", "the daemon is back")
        except (BusyError, EngineError, StorageError, UnreachableError) as error:
            self._wait(error)
            return
        ended = time.monotonic()
        self._next = ended + (ended - now) * _SHARE
        self._rare = ended + RARE_SECONDS

    def _wait(self, error: EdgeError) -> None:
        if not self._waiting:
            self._tell("waiting", f"{clean_line(error.message)}; trying again until it works", reason=error.message)
        self._waiting, self._open = True, True
        self._next = time.monotonic() + RETRY_SECONDS

    def _look(self, now: float) -> bool:
        """Add what is new and settled, remove what is gone; whether something has still to settle."""
        refused: dict[Path, str] = {}
        ready: list[FoundFile] = []
        new: dict[Path, tuple[int, float]] = {}
        unseen = set(self.known)
        for file in find(self.folders, refused.__setitem__):
            unseen.discard(file.path)
            seen = self.known.get(file.path)
            if seen is not None and seen.stamp == file.stamp:
                continue
            stamp, since = self._new.get(file.path, (file.stamp, now))
            new[file.path] = (file.stamp, since if stamp == file.stamp else now)
            if now - new[file.path][1] >= SETTLED_SECONDS:
                ready.append(file)
        self._new = new
        for path, reason in refused.items():
            if self._refused.get(path) != reason:
                self._refuse(path, reason)
        self._refused = refused
        if ready:
            self._add(iter(ready), self._tally(), None)
        self._remove(self._missing(unseen, refused, now))
        return bool(self._new or self._gone)

    def _missing(self, unseen: set[Path], refused: dict[Path, str], now: float) -> list[Path]:
        """What is gone for good: not what lies in a folder that cannot be read just now."""
        hidden = {path for path in unseen if any(one == path or one in path.parents for one in refused)}
        self._gone = {path: self._gone.get(path, now) for path in unseen - hidden}
        return [path for path, since in self._gone.items() if now - since >= SETTLED_SECONDS]

    def _add(self, files: Iterator[FoundFile], tally: Tally, total: Total | None) -> None:
        sent: dict[Path, FoundFile] = {}

        def passing() -> Iterator[FoundFile]:
            for file in files:
                sent[file.path] = file
                yield file

        def settle(file: FoundFile, document: Document) -> None:
            sent.pop(file.path, None)
            self._new.pop(file.path, None)
            older = self.known.get(file.path)
            self.known[file.path] = _Seen(file.stamp, document.name, document.id)
            if total is None and (older is None or older.document != document.id):
                words = f"added {clean_line(document.name)}: {document.chunks} passages"
                self._tell("added", words, name=document.name, document=document.id, passages=document.chunks)

        tally.settled = settle
        add_files(self.box, passing(), tally, self.terms, total=total)
        for path, file in sent.items():
            if path not in tally.later:
                # Not sent again until it changes.
                self.known[path] = _Seen(file.stamp, file.name, None)
                self._new.pop(path, None)

    def _remove(self, paths: Sequence[Path]) -> None:
        for path in paths:
            seen = self.known[path]
            if seen.document is not None:
                try:
                    self.box.remove_document(seen.document)
                except NotFoundError:
                    pass  # somebody has removed or replaced it
                else:
                    self._tell("removed", f"removed {clean_line(seen.name)}", name=seen.name, document=seen.document)
            del self.known[path]
            del self._gone[path]

    def _tally(self) -> Tally:
        return Tally(tell=lambda _: None, refused=self._refuse)

    def _refuse(self, path: Path, reason: str) -> None:
        self._tell("skipped", f"skipped: {clean_line(str(path))}: {clean_line(reason)}", path=str(path), reason=reason)

    def _tell(self, event: str, words: str, **fields: str | int | list[str]) -> None:
        if self.as_json:
            put(dumps({"event": event, **fields}, indent=None))
        else:
            say(words)


def _place(folder: Path) -> tuple[int, int] | None:
    try:
        info = folder.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino
