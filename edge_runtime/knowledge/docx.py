"""Reads Word documents (ECMA-376 part 1, WordprocessingML): headings, paragraphs, lists, tables, notes, text boxes.

What the reader of the finished document does not see is left out: deletions that are tracked, hidden text, comments,
field codes. Headers, footers and tables of contents are left out too: they repeat or lead elsewhere. Pictures are not
read. Built on zipfile and expat and not on a tree of the whole file: limits hold while it is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from edge_runtime.errors import DocumentError, TooLargeError
from edge_runtime.knowledge.documents import ParsedDocument
from edge_runtime.knowledge.docx_styles import Numbering, Styles, number
from edge_runtime.knowledge.ooxml import Package
from edge_runtime.knowledge.plain import HEADING_CHARS, sections, shortened

# Whole elements that are not part of what is read; the "Change" ones hold what a tracked change replaced.
_UNREAD: Final = """
w:del w:moveFrom mc:Fallback w:rPrChange w:pPrChange w:tblPrChange w:trPrChange w:tcPrChange w:sectPrChange w:sdtPr
w:instrText w:fldData w:rt w:sectPr
"""
_DROPPED: Final = frozenset(_UNREAD.split())
_DELETED: Final = frozenset({"w:del", "w:moveFrom"})
_FALSE: Final = frozenset({"0", "false", "off"})
_MARKS: Final = {"w:tab": "\t", "w:br": "\n", "w:cr": "\n", "w:noBreakHyphen": "-"}
_SPACE: Final = re.compile(r"\s+")


@dataclass(slots=True)
class _Block:
    """A paragraph or a table of the text."""

    text: str
    level: int | None = None  # of a heading
    item: bool = False  # of a list
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Flow:
    """Blocks one after the other: the body, a cell, a text box, a note."""

    blocks: list[_Block] = field(default_factory=list)
    note: str = ""  # which note this is


@dataclass(slots=True)
class _Paragraph:
    parts: list[str] = field(default_factory=list)
    style: str | None = None
    outline: int | None = None
    list_id: str | None = None
    list_level: int | None = None
    hidden: bool = False  # the run that is open
    joined: bool = False  # its end was deleted: the next paragraph goes on in it
    notes: list[str] = field(default_factory=list)
    boxes: list[_Block] = field(default_factory=list)


@dataclass(slots=True)
class _Row:
    cells: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    deleted: bool = False


@dataclass(slots=True)
class _Table:
    rows: list[_Row] = field(default_factory=list)


class _Story:
    """Reads a part of WordprocessingML. What opens goes on one stack, and XML's nesting takes it off again."""

    def __init__(self, styles: Styles, numbering: Numbering, notes: dict[str, str], most: int) -> None:
        self._styles = styles
        self._numbering = numbering
        self._notes = notes
        self._cited = 0
        self._left = most
        self._dropping = 0
        self._reading = False  # inside w:t
        self._marking = False  # inside w:pPr
        self._tail: _Paragraph | None = None  # ended by a mark that was deleted
        self._open: list[_Flow | _Paragraph | _Row | _Table] = []
        self.body = _Flow()
        self._open.append(self.body)
        self.found: dict[str, str] = {}  # notes
        self.root = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.root = self.root or name
        if self._dropping:
            self._dropping += 1
            return
        top = self._open[-1]
        if name in _DROPPED:
            self._dropping = 1
            if name in _DELETED:
                self._delete(top)
            return
        match name:
            case "w:p":
                self._open.append(self._tail or _Paragraph())
                self._tail = None
            case "w:tbl":
                self._flush()
                self._open.append(_Table())
            case "w:tr":
                self._open.append(_Row())
            case "w:tc" | "w:txbxContent":
                self._open.append(_Flow())
            case "w:footnote" | "w:endnote":
                kind = attributes.get("w:type", "normal")
                self._open.append(_Flow(note=f"{name}{attributes.get('w:id', '')}" if kind == "normal" else ""))
            case "w:t":
                self._reading = True
            case _ if isinstance(top, _Paragraph):
                self._in_paragraph(top, name, attributes)

    def _delete(self, top: _Flow | _Paragraph | _Row | _Table) -> None:
        """A deletion among the properties of a row is the row's, among those of a paragraph that of its end."""
        if isinstance(top, _Row):
            top.deleted = True
        elif isinstance(top, _Paragraph) and self._marking:
            top.joined = True

    def _in_paragraph(self, paragraph: _Paragraph, name: str, attributes: dict[str, str]) -> None:
        value = attributes.get("w:val", "")
        match name:
            case "w:pPr":
                self._marking = True
            case "w:pStyle":
                paragraph.style = value
            case "w:outlineLvl":
                paragraph.outline = number(value)
            case "w:numId":
                paragraph.list_id = value
            case "w:ilvl":
                paragraph.list_level = number(value)
            case "w:r":
                paragraph.hidden = False
            case "w:vanish" if not self._marking:
                paragraph.hidden = value not in _FALSE
            case "w:footnoteReference" | "w:endnoteReference" if not paragraph.hidden:
                self._cite(paragraph, f"{name.removesuffix('Reference')}{attributes.get('w:id', '')}")
            case _ if name in _MARKS and not self._marking:
                self._add(paragraph, _MARKS[name])

    def end(self, name: str) -> None:
        if self._dropping:
            self._dropping -= 1
            return
        match name:
            case "w:tc" | "w:txbxContent" | "w:footnote" | "w:endnote":
                self._flush()
                self._close(self._open.pop())
            case "w:p" | "w:tbl" | "w:tr":
                self._close(self._open.pop())
            case "w:body":
                self._flush()
            case "w:t":
                self._reading = False
            case "w:pPr":
                self._marking = False

    def text(self, words: str) -> None:
        top = self._open[-1]
        if self._reading and not self._dropping and isinstance(top, _Paragraph):
            self._add(top, words.replace("\n", " "))

    def _add(self, paragraph: _Paragraph, words: str) -> None:
        if paragraph.hidden:
            return
        self._left -= len(words)
        if self._left < 0:
            raise TooLargeError("")
        paragraph.parts.append(words)

    def _cite(self, paragraph: _Paragraph, key: str) -> None:
        if key in self._notes:
            self._cited += 1
            self._add(paragraph, f"[{self._cited}]")
            # A note is given once: a file may point to a long one a million times.
            paragraph.notes.append(f"[{self._cited}] {self._notes.pop(key)}")

    def _close(self, closed: _Flow | _Paragraph | _Row | _Table) -> None:
        top = self._open[-1]
        match closed:
            case _Paragraph():
                if closed.joined:
                    closed.joined = False
                    self._tail = closed
                else:
                    self._end_paragraph(closed, self._nearest_flow())
            case _Row() if isinstance(top, _Table):
                top.rows.append(closed)
            case _Table():
                self._end_table(closed, self._nearest_flow())
            case _Flow() if closed.note:
                self.found[closed.note] = _plain(closed.blocks)
            case _Flow() if isinstance(top, _Row):
                top.cells.append(_plain(closed.blocks))
                top.notes += [note for block in closed.blocks for note in block.notes]
            case _Flow() if isinstance(top, _Paragraph):
                top.boxes += closed.blocks

    def _flush(self) -> None:
        """No paragraph follows in which one whose end was deleted could go on."""
        if self._tail is not None:
            paragraph, self._tail = self._tail, None
            self._end_paragraph(paragraph, self._nearest_flow())

    def _nearest_flow(self) -> _Flow:
        return next((one for one in reversed(self._open) if isinstance(one, _Flow)), self.body)

    def _end_paragraph(self, paragraph: _Paragraph, flow: _Flow) -> None:
        text = "\n".join(line.strip() for line in "".join(paragraph.parts).replace("\xa0", " ").split("\n")).strip()
        text = text.replace("\xad", "")
        if text and not self._styles.is_contents(paragraph.style):
            level = self._level(paragraph) if flow is self.body else None
            label, depth = self._label(paragraph)
            item = bool(label) and level is None
            if label and (item or label != "-"):
                text = f"{'  ' * depth if item else ''}{label} {text}"
            flow.blocks.append(_Block(text, level, item, paragraph.notes))
        flow.blocks += paragraph.boxes

    def _level(self, paragraph: _Paragraph) -> int | None:
        if paragraph.outline is not None:
            return paragraph.outline + 1 if paragraph.outline < 9 else None
        return self._styles.level(paragraph.style)

    def _label(self, paragraph: _Paragraph) -> tuple[str, int]:
        """The bullet or number that Word draws before this paragraph, and its depth in the list."""
        list_id, depth = self._styles.lists(paragraph.style)
        if paragraph.list_id is not None:
            list_id = paragraph.list_id
        if not list_id or list_id == "0":  # 0 takes a paragraph out of the list of its style
            return "", 0
        depth = min(depth if paragraph.list_level is None else paragraph.list_level, 8)
        return self._numbering.label(list_id, depth), depth

    def _end_table(self, table: _Table, flow: _Flow) -> None:
        kept = [row for row in table.rows if not row.deleted and any(row.cells)]
        if kept:
            text = "\n".join(" | ".join(row.cells) for row in kept)
            flow.blocks.append(_Block(text, notes=[note for row in kept for note in row.notes]))


class _CoreTitle:
    """Reads ``docProps/core.xml``."""

    def __init__(self) -> None:
        self._inside = False
        self.title = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        del attributes
        self._inside = name == "dc:title"

    def end(self, name: str) -> None:
        del name
        self._inside = False

    def text(self, words: str) -> None:
        if self._inside and len(self.title) < HEADING_CHARS:
            self.title += words


def _plain(blocks: Iterable[_Block]) -> str:
    """Blocks as one line: a cell of a table, or a note."""
    return _SPACE.sub(" ", " ".join(block.text.strip() for block in blocks)).strip()


def read_docx(name: str, content: bytes, *, text_chars: int) -> ParsedDocument:
    """Raises DocumentError (damaged, encrypted, another kind of file, a bomb, no text) or TooLargeError."""
    package = Package(name, content)
    part = package.main()
    parts = dict(reversed(package.related(part)))  # the first of a kind counts
    styles, numbering, core = Styles(), Numbering(), _CoreTitle()
    package.read(parts.get("styles", ""), styles)
    package.read(parts.get("numbering", ""), numbering)
    package.read(dict(package.related("")).get("core-properties", ""), core)
    notes: dict[str, str] = {}
    try:
        for kind in ("footnotes", "endnotes"):
            story = _Story(styles, Numbering(), {}, text_chars)
            package.read(parts.get(kind, ""), story)
            notes |= story.found
        story = _Story(styles, numbering, notes, text_chars)
        package.read(part, story)
        if story.root != "w:document":
            raise DocumentError(f"{name} is not a Word document: save it as DOCX or PDF and add that")
        text, headings = _joined(story.body.blocks, text_chars)
    except TooLargeError as error:
        raise TooLargeError(
            f"{name} holds more than {text_chars} characters: split it, or raise knowledge.text_chars in edge.toml"
        ) from error
    if not text:
        raise DocumentError(f"{name} holds no text: a document of pictures must go through OCR first")
    title = _SPACE.sub(" ", core.title).strip() or next((words for _, level, words in headings if level <= 1), name)
    return ParsedDocument(format="docx", title=shortened(title), text=text, sections=sections(text, headings))


def _joined(blocks: list[_Block], most: int) -> tuple[str, list[tuple[int, int, str]]]:
    """The text, and its headings: position, level, words."""
    parts: list[str] = []
    headings: list[tuple[int, int, str]] = []
    at = 0
    before: _Block | None = None
    for block in blocks:
        gap = "" if before is None else "\n" if before.item and block.item else "\n\n"
        if block.level is not None:
            headings.append((at + len(gap), block.level, _SPACE.sub(" ", block.text)))
        words = "\n".join([gap + block.text, *block.notes])
        parts.append(words)
        at += len(words)
        if at > most:
            raise TooLargeError("")
        before = block
    return "".join(parts), headings
