"""What the styles and the numbering of a DOCX say of a paragraph: is it a heading, and what number stands before it.

ECMA-376 part 1, sections 17.7 (styles) and 17.9 (numbering). Picture bullets and numbers in words are not drawn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

_CHAIN: Final = 20  # styles based on each other; a file may make a ring of them
_LEVELS: Final = 9
_NUMBER: Final = re.compile(r"\d{1,5}$")
_PART: Final = re.compile(r"%([1-9])")
# Built-in styles have English names whatever the language of Word; other writers translate the name too. Where a file
# has lost its styles, the identifier is all there is, and it leaves out what is not ASCII ("berschrift1").
_NAMES: Final = """
heading überschrift berschrift titre título titulo titolo kop rubrik overskrift otsikko nagłówek nagwek заголовок nadpis
címsor başlık 标题 標題 見出し 제목
"""
_HEADING: Final = re.compile(rf"(?:{'|'.join(_NAMES.split())})\s*([1-9])$", re.IGNORECASE)
_TITLE: Final = re.compile(r"(?:title|titel|titre|título|titulo|titolo|otsikko|название)$", re.IGNORECASE)
_CONTENTS: Final = re.compile(r"(?:toc\s*\d|toc heading|table of figures|contents \d)$", re.IGNORECASE)
_WORTH: Final = {"m": 1000, "cm": 900, "d": 500, "cd": 400, "c": 100, "xc": 90, "l": 50, "xl": 40, "x": 10, "ix": 9}
_ROMAN: Final = _WORTH | {"v": 5, "iv": 4, "i": 1}


@dataclass(slots=True)
class Style:
    name: str = ""
    parent: str = ""
    outline: int | None = None  # 0 to 8 are headings, 9 is text
    list_id: str | None = None
    list_level: int | None = None


class Styles:
    """Reads ``word/styles.xml``."""

    def __init__(self) -> None:
        self._styles: dict[str, Style] = {}
        self._open: Style | None = None
        self._default = ""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        value = attributes.get("w:val", "")
        match name:
            case "w:style":
                self._open = Style()
                if attributes.get("w:type", "paragraph") == "paragraph":
                    key = attributes.get("w:styleId", "")
                    self._styles[key] = self._open
                    if attributes.get("w:default") in {"1", "true", "on"}:
                        self._default = key
            case "w:name" if self._open:
                self._open.name = value
            case "w:basedOn" if self._open:
                self._open.parent = value
            case "w:outlineLvl" if self._open:
                self._open.outline = number(value)
            case "w:numId" if self._open:
                self._open.list_id = value
            case "w:ilvl" if self._open:
                self._open.list_level = number(value)

    def end(self, name: str) -> None:
        if name == "w:style":
            self._open = None

    def text(self, words: str) -> None:
        """There is none."""

    def level(self, key: str | None) -> int | None:
        """1 for the highest heading, 0 for the title of the document, None for text."""
        for style in self._chain(key):
            if style.outline is not None:
                return style.outline + 1 if style.outline < _LEVELS else None
            if (found := _level_of(style.name)) is not None:
                return found
        return _level_of(key or "") if key not in self._styles else None

    def lists(self, key: str | None) -> tuple[str | None, int]:
        """The list that paragraphs of this style belong to (None: none), and their level in it, from 0."""
        chain = list(self._chain(key))
        list_id = next((style.list_id for style in chain if style.list_id is not None), None)
        return list_id, next((style.list_level for style in chain if style.list_level is not None), 0)

    def is_contents(self, key: str | None) -> bool:
        """Whether this is a line of a table of contents: it leads elsewhere and says nothing itself."""
        return any(_CONTENTS.match(style.name) for style in self._chain(key))

    def _chain(self, key: str | None) -> Iterator[Style]:
        current = self._default if key is None else key
        for _ in range(_CHAIN):
            style = self._styles.get(current)
            if style is None:
                return
            yield style
            current = style.parent


def _level_of(name: str) -> int | None:
    found = _HEADING.match(name.strip())
    if found:
        return int(found.group(1))
    return 0 if _TITLE.match(name.strip()) else None


def number(value: str) -> int | None:
    """A small number that is not negative, or None: the file says something else."""
    return int(value) if _NUMBER.match(value) and value.isascii() else None


@dataclass(slots=True)
class _Level:
    start: int = 1
    kind: str = "decimal"
    label: str = ""


@dataclass(slots=True)
class _List:
    levels: dict[int, _Level] = field(default_factory=dict)
    counts: list[int | None] = field(default_factory=lambda: [None] * _LEVELS)


class Numbering:
    """Reads ``word/numbering.xml``, then counts: it is asked once for each paragraph, in their order."""

    def __init__(self) -> None:
        self._lists: dict[str, _List] = {}  # by abstract number
        self._abstract: dict[str, str] = {}
        self._restarts: dict[str, dict[int, int]] = {}
        self._list: _List | None = None
        self._level: _Level | None = None
        self._number: str | None = None
        self._override = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        value = attributes.get("w:val", "")
        match name:
            case "w:abstractNum":
                self._list = self._lists.setdefault(attributes.get("w:abstractNumId", ""), _List())
            case "w:num":
                self._list, self._level, self._number = None, None, attributes.get("w:numId", "")
            case "w:abstractNumId" if self._number is not None:
                self._abstract[self._number] = value
            case "w:lvlOverride":
                self._override = number(attributes.get("w:ilvl", "")) or 0
            case "w:startOverride" if self._number is not None:
                self._restarts.setdefault(self._number, {})[self._override] = number(value) or 0
            case "w:lvl" if self._list is not None:
                self._level = self._list.levels.setdefault(number(attributes.get("w:ilvl", "")) or 0, _Level())
            case "w:start" if self._level is not None:
                self._level.start = number(value) or 0
            case "w:numFmt" if self._level is not None:
                self._level.kind = value
            case "w:lvlText" if self._level is not None:
                self._level.label = value[:40]

    def end(self, name: str) -> None:
        if name == "w:lvl":
            self._level = None

    def text(self, words: str) -> None:
        """There is none."""

    def label(self, list_id: str, level: int) -> str:
        """What stands before the next paragraph of this list: ``4.2.``, ``b)``, ``-`` for a bullet, or nothing."""
        found = self._lists.get(self._abstract.get(list_id, ""))
        level = min(level, _LEVELS - 1)
        if found is None or level not in found.levels:
            return "-"
        restarts = self._restarts.get(list_id, {})
        current = found.counts[level]
        if level in restarts:
            current = restarts.pop(level) - 1
        elif current is None:
            current = found.levels[level].start - 1
        found.counts[level] = current + 1
        found.counts[level + 1 :] = [None] * (_LEVELS - 1 - level)
        shown = found.levels[level]
        if shown.kind == "bullet":
            return "-"
        return (
            "" if shown.kind == "none" else _PART.sub(lambda part: _drawn(found, int(part.group(1)) - 1), shown.label)
        )


def _drawn(found: _List, level: int) -> str:
    shape = found.levels.get(level, _Level())
    count = found.counts[level]
    value = shape.start if count is None else count
    match shape.kind:
        case "lowerLetter" | "upperLetter" if 1 <= value <= 26 * 5:
            letters = chr(ord("a") + (value - 1) % 26) * ((value - 1) // 26 + 1)
            return letters.upper() if shape.kind == "upperLetter" else letters
        case "lowerRoman" | "upperRoman" if 1 <= value < 5000:
            return _roman(value).upper() if shape.kind == "upperRoman" else _roman(value)
        case "decimalZero":
            return f"{value:02d}"
    return str(value)


def _roman(value: int) -> str:
    out = ""
    for letters, worth in _ROMAN.items():
        out += letters * (value // worth)
        value %= worth
    return out
