"""Opens an Office Open XML package (ECMA-376 part 2) in memory and streams its parts through expat, within limits.

The ZIP is never unpacked to disk and no tree is built. A document type declaration, where entity bombs and outside
files come from, ends the reading: the standard allows none (part 2, section 6.2.5).
"""

from __future__ import annotations

import io
import posixpath
import zipfile
import zlib
from collections.abc import Iterator
from typing import Final, Protocol
from xml.parsers import expat

from edge_runtime.errors import DocumentError

_PARTS: Final = 20_000  # in a package: pictures are parts too
_UNPACKED_BYTES: Final = 256 * 2**20  # of all parts that are read
_RATIO: Final = 300  # of unpacked to packed, once a part is longer than this:
_RATIO_FROM: Final = 8 * 2**20
_DEPTH: Final = 1000  # of elements in each other; a table in a table adds eight
_BLOCK_BYTES: Final = 2**16
_WORD: Final = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_STRICT_WORD: Final = "http://purl.oclc.org/ooxml/wordprocessingml/main"
_PREFIXES: Final = {
    _WORD: "w",
    _STRICT_WORD: "w",
    "http://schemas.openxmlformats.org/markup-compatibility/2006": "mc",
    "http://schemas.openxmlformats.org/package/2006/relationships": "rel",
    "http://purl.org/dc/elements/1.1/": "dc",
}
_OTHERS: Final = (
    ("xl/", "is an Excel workbook: save each sheet as CSV and add that"),
    ("ppt/", "is a PowerPoint presentation: save it as PDF and add that"),
    ("mimetype", "is an OpenDocument or EPUB file: save it as DOCX, PDF or HTML and add that"),
)


class Reader(Protocol):
    """Takes the events of one part. Names are ``w:p`` for those of WordprocessingML, ``?:x`` for an unknown one."""

    def start(self, name: str, attributes: dict[str, str]) -> None: ...

    def end(self, name: str) -> None: ...

    def text(self, words: str) -> None: ...


class Package:
    """Raises DocumentError (here and in every method): damaged, encrypted, or it unpacks to far more than it should."""

    def __init__(self, name: str, content: bytes) -> None:
        self._name = name
        self._left = _UNPACKED_BYTES
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(content))
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise DocumentError(f"{name} is damaged or cut short: copy it again from its source ({error})") from error
        parts = self._zip.infolist()
        if len(parts) > _PARTS:
            raise DocumentError(f"{name} holds {len(parts)} parts (a zip bomb?): it was not read")
        self._parts = {info.filename.replace("\\", "/").lstrip("/").lower(): info for info in parts}

    def main(self) -> str:
        """The name of the part that holds the text. Raises DocumentError: this is no Word document."""
        related = self.related("")
        part = next((target for kind, target in related if kind == "officeDocument"), "word/document.xml")
        if part in self._parts and part.startswith("word/"):
            return part
        for start, said in _OTHERS:
            if any(name.startswith(start) for name in self._parts):
                raise DocumentError(f"{self._name} {said}")
        if part in self._parts:
            return part
        raise DocumentError(f"{self._name} is a ZIP archive: unpack it and add what is in it")

    def related(self, part: str) -> list[tuple[str, str]]:
        """What ``part`` ("" for the package) points to in the package: (last word of the kind, name of the part)."""
        folder, file = posixpath.split(part)
        listing = posixpath.join(folder, "_rels", f"{file}.rels").lower()
        found = _Relations()
        if listing in self._parts:
            self.read(listing, found)
        return [
            (kind.rsplit("/", 1)[-1], posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/").lower())
            for kind, target in found.targets
        ]

    def read(self, part: str, reader: Reader) -> None:
        """Stream ``part`` into ``reader``; a part that is missing has no events."""
        info = self._parts.get(part.lower())
        if info is None:
            return
        parser = self._parser(reader)
        try:
            for block in self._blocks(info):
                parser.Parse(block, False)
            parser.Parse(b"", True)
        except (expat.ExpatError, ValueError, LookupError) as error:
            raise DocumentError(
                f"{self._name} is damaged: open it, save it under a new name and add that ({part}: {error})"
            ) from error

    def _parser(self, reader: Reader) -> expat.XMLParserType:
        parser = expat.ParserCreate(namespace_separator="}")
        parser.buffer_text = True
        parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        depth = 0

        def start(name: str, attributes: dict[str, str]) -> None:
            nonlocal depth
            depth += 1
            if depth > _DEPTH:
                raise DocumentError(f"{self._name} nests its elements more than {_DEPTH} deep: it was not read")
            reader.start(_short(name), {_short(key): value for key, value in attributes.items()})

        def end(name: str) -> None:
            nonlocal depth
            depth -= 1
            reader.end(_short(name))

        def declared(*_: object) -> None:
            raise DocumentError(f"{self._name} declares entities, which no Office document may: it was not read")

        parser.StartElementHandler = start
        parser.EndElementHandler = end
        parser.CharacterDataHandler = reader.text
        parser.StartDoctypeDeclHandler = declared
        return parser

    def _blocks(self, info: zipfile.ZipInfo) -> Iterator[bytes]:
        """The unpacked bytes of one part, given up as soon as they are too many."""
        if info.flag_bits & 1:
            raise DocumentError(f"{self._name} is encrypted: remove the password and add it again")
        if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise DocumentError(f"{self._name} is packed in a way that no Office document may be: save it again")
        read = 0
        try:
            with self._zip.open(info) as file:
                while block := file.read(_BLOCK_BYTES):
                    read += len(block)
                    self._left -= len(block)
                    if self._left < 0 or (read > _RATIO_FROM and read > _RATIO * info.compress_size):
                        raise DocumentError(
                            f"{self._name} unpacks to far more than its size allows (a zip bomb?): it was not read"
                        )
                    yield block
        except (zipfile.BadZipFile, ValueError, EOFError, OSError, NotImplementedError, zlib.error) as error:
            raise DocumentError(f"{self._name} is damaged: copy it again from its source ({error})") from error


class _Relations:
    def __init__(self) -> None:
        self.targets: list[tuple[str, str]] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "rel:Relationship" and attributes.get("TargetMode") != "External":
            self.targets.append((attributes.get("Type", ""), attributes.get("Target", "")))

    def end(self, name: str) -> None:
        """Nothing ends."""

    def text(self, words: str) -> None:
        """There is none."""


def _short(name: str) -> str:
    namespace, mark, local = name.rpartition("}")
    return f"{_PREFIXES.get(namespace, '?')}:{local}" if mark else local
