"""Reads CSV and TSV (RFC 4180 and what is really found): each row becomes a line that says its columns' names.

``station: North; pressure: 3.1`` stands alone wherever it is cut out. Rows are read one at a time. Guesses no types and
computes nothing: totals and look-ups across rows are a database's work.
"""

from __future__ import annotations

import csv
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final

from edge_runtime.errors import DocumentError, TooLargeError
from edge_runtime.knowledge.documents import ParsedDocument, Section
from edge_runtime.knowledge.plain import shortened

SUFFIXES: Final = frozenset({".csv", ".tsv", ".tab", ".psv"})
COLUMNS: Final = 16_384  # as many as a spreadsheet has; a wider file is a matrix
CELL_CHARS: Final = 1_000_000
LINE_CHARS: Final = 480  # a longer row is given as several lines, each with the row's first cell
_DELIMITERS: Final = (";", "\t", ",", "|")
_NONE: Final = "\x1f"  # the reader of csv wants one; no text has this
_SAMPLE_CHARS: Final = 2**16
_SAMPLE_ROWS: Final = 200
_LONGEST_ROW: Final = 500  # lines: a row that spans more was opened by a quote that nobody closed
_GROUP_ROWS: Final = (8, 24)  # at least and at most in a section
_SPACE: Final = re.compile(r"\s+")
_VALUE_CHARS: Final = 40
_NUMBER: Final = re.compile(r"[-+]?[\d.,\s]*\d[\d.,]*(?:e[-+]?\d{1,3})?\s*%?$", re.IGNORECASE)
_TIME: Final = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{1,2}:\d\d")
_ESCAPED_QUOTE: Final = re.compile(r'\\"(?![,;\t|\n]|\Z)')
_OPEN_QUOTE: Final = "a quote is opened and never closed, so each line was read as a row of its own"
_LEADING: Final = re.compile(r"sep=(.)[ \t]*\n")  # the line by which Excel is told
_YEAR: Final = re.compile(r"(?:19|20)\d\d$")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the cells of a file are parted and quoted."""

    delimiter: str
    quoting: bool = True
    escaped: bool = False  # quotes in cells are escaped by a backslash, not doubled

    def rows(self, text: str) -> Iterator[list[str]]:
        """Raises csv.Error: a cell is longer than ``CELL_CHARS``."""
        csv.field_size_limit(CELL_CHARS)
        lines = (line + "\n" for line in _lines(text))
        reader = csv.reader(
            lines,
            delimiter=self.delimiter,
            quoting=csv.QUOTE_MINIMAL if self.quoting else csv.QUOTE_NONE,
            doublequote=not self.escaped,
            escapechar="\\" if self.escaped else None,
            skipinitialspace=True,
        )
        before = 0
        for row in reader:
            if self.quoting and reader.line_num - before > _LONGEST_ROW:
                raise _OpenQuoteError
            before = reader.line_num
            yield row


class _OpenQuoteError(csv.Error):
    pass


def _lines(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        yield text[at:end]
        at = end + 1


def read_csv(name: str, text: str, *, text_chars: int) -> ParsedDocument:
    """Raises DocumentError (no rows, too many columns, an endless cell) or TooLargeError."""
    head = _LEADING.match(text)
    declared = head.group(1) if head else None
    body = text[head.end() :] if head else text
    if not body.strip(" \t\n\"'" + "".join(_DELIMITERS)):
        raise DocumentError(f"{name} is empty: nothing was added")
    dialect = Dialect(declared, escaped=_escaped(body)) if declared else detect(body, PurePath(name).suffix.lower())
    warnings = []
    try:
        table = _read(name, body, dialect, text_chars)
    except csv.Error as error:
        if isinstance(error, _OpenQuoteError) or '"' in body:
            dialect = Dialect(declared, quoting=False) if declared else detect(body, quoting=False)
            table = _unquoted(name, body, dialect, text_chars)
        else:
            raise _endless(name) from error
    if not table.parts:
        raise DocumentError(f"{name} is empty: nothing was added")
    if not dialect.quoting:
        warnings.append(f"{name}: {_OPEN_QUOTE}")
    if table.ragged:
        warnings.append(
            f"{name}: {table.ragged} of {table.rows} rows have more cells than the header: those are named by number"
        )
    whole = "".join(table.parts)
    return ParsedDocument(format="csv", title=name, text=whole, sections=table.sections(len(whole)), warnings=warnings)


def _unquoted(name: str, body: str, dialect: Dialect, text_chars: int) -> _Lines:
    try:
        return _read(name, body, dialect, text_chars)
    except csv.Error as error:
        raise _endless(name) from error


def _endless(name: str) -> DocumentError:
    return DocumentError(
        f"{name} has a cell of more than {CELL_CHARS} characters: it is no table; add it as a text file"
    )


def detect(text: str, suffix: str = "", *, quoting: bool = True) -> Dialect:
    """The dialect of ``text``: the delimiter that parts the most rows into the same number of cells, at least two."""
    sample = text[:_SAMPLE_CHARS]
    if len(text) > _SAMPLE_CHARS and "\n" in sample:
        sample = sample[: sample.rindex("\n")]
    escaped = quoting and _escaped(sample)
    best, best_score = Dialect(_NONE, quoting, escaped), (0.0, 0)
    order = ("\t", *_DELIMITERS) if suffix in {".tsv", ".tab"} else _DELIMITERS
    for delimiter in order:
        found = Dialect(delimiter, quoting, escaped)
        score = _score(found, sample)
        if score > best_score:
            best, best_score = found, score
    if best.delimiter == _NONE and quoting and '"' in sample:
        unquoted = detect(text, suffix, quoting=False)
        return best if unquoted.delimiter == _NONE else unquoted
    return best


def _escaped(sample: str) -> bool:
    """Whether a backslash stands before quotes inside a cell. Before the closing one it is the end of a path."""
    return '""' not in sample and _ESCAPED_QUOTE.search(sample) is not None


def _score(dialect: Dialect, sample: str) -> tuple[float, int]:
    """Share of rows that have the commonest number of cells, and that number; nothing where it is one."""
    widths: Counter[int] = Counter()
    first = 0
    try:
        for row in dialect.rows(sample):
            if any(cell.strip() for cell in row):
                widths[len(row)] += 1
                first = first or len(row)
            if widths.total() >= _SAMPLE_ROWS:
                break
    except csv.Error:
        return 0.0, 0
    if not widths:
        return 0.0, 0
    width, count = max(widths.items(), key=lambda item: (item[1], item[0]))
    # A header that this does not part is told against it: decimal commas part numbers, and no names.
    if width < 2 or (width == 2 and first < 2):
        return 0.0, 0
    return round(count / widths.total() - 0.3 * (first < 2), 2), width


@dataclass(slots=True)
class _Lines:
    """The text as it is made, and where its groups of rows begin."""

    heading: tuple[str, ...] = ()
    parts: list[str] = field(default_factory=list)
    length: int = 0
    rows: int = 0
    ragged: int = 0
    starts: list[tuple[int, bool]] = field(default_factory=list)  # and whether what begins there are rows

    def put(self, line: str) -> None:
        self.parts.append(line + "\n")
        self.length += len(line) + 1

    def sections(self, end: int) -> list[Section]:
        ends = [start for start, _ in self.starts[1:]] + [end]
        return [
            Section(start, last, self.heading if of_rows else (), None, "rows")
            for (start, of_rows), last in zip(self.starts, ends, strict=True)
        ]


def _read(name: str, body: str, dialect: Dialect, text_chars: int) -> _Lines:
    out = _Lines()
    rows = (_clean(row) for row in dialect.rows(body))
    filled = (row for row in rows if any(row))
    width = _width(dialect, body)
    columns: list[str] | None = None
    since = 0
    for row in filled:
        if len(row) > COLUMNS:
            raise DocumentError(
                f"{name} has {len(row)} columns and the limit is {COLUMNS}: it is no table that can be asked; "
                "turn its rows into columns, or leave out what no question needs"
            )
        if columns is None:
            if width > 2 and sum(map(bool, row)) * 2 < width and not out.rows:
                _begin(out, of_rows=False)
                out.put(" ".join(cell for cell in row if cell))  # a title above the table
                continue
            columns = header(row) or []
            out.heading = (shortened(", ".join(columns)),) if columns else ()
            if columns:
                continue
        out.rows += 1
        out.ragged += bool(columns) and len(row) > len(columns)
        if since == 0 or since >= _GROUP_ROWS[1] or (since >= _GROUP_ROWS[0] and _divides(row)):
            _begin(out, of_rows=True)
            since = 0
        since += 1
        for line in _told(row, columns):
            out.put(line)
        if out.length > text_chars:
            raise TooLargeError(
                f"{name} holds more than {text_chars} characters, its columns' names told with each row: split it, or "
                "raise knowledge.text_chars in edge.toml"
            )
    if columns and not out.rows:
        _begin(out, of_rows=False)
        out.put(f"columns: {', '.join(columns)}")
    return out


def _begin(out: _Lines, *, of_rows: bool) -> None:
    if of_rows or not out.starts:
        out.starts.append((out.length, of_rows))


def _divides(row: list[str]) -> bool:
    """Whether a new section begins at this row. By the row's own words, so that a row put in before moves no other."""
    return zlib.crc32("\x1f".join(row).encode("utf-8", "surrogatepass")) % 8 == 0


def _clean(row: list[str]) -> list[str]:
    cells = [_SPACE.sub(" ", cell).strip() for cell in row]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _width(dialect: Dialect, body: str) -> int:
    """The commonest number of cells near the top."""
    widths: Counter[int] = Counter()
    for row in dialect.rows(body[:_SAMPLE_CHARS]):
        widths[len(row)] += 1
        if widths.total() >= _SAMPLE_ROWS:
            break
    return max(widths, key=lambda width: (widths[width], width), default=1)


def header(row: list[str]) -> list[str] | None:
    """The columns' names where ``row`` is a header: no cell of it is a value, but years may be. None: it is a row."""
    values = [cell for cell in row if len(cell) <= _VALUE_CHARS and (_NUMBER.match(cell) or _TIME.match(cell))]
    if any(not _YEAR.match(cell) for cell in values) or len(values) == len(row):
        return None
    names: list[str] = []
    taken: Counter[str] = Counter()
    for place, cell in enumerate(row, 1):
        words = shortened(cell.lstrip("#").strip()) or f"column {place}"
        taken[words] += 1
        names.append(words if taken[words] == 1 else f"{words} ({taken[words]})")
    return names


def _told(row: list[str], columns: list[str] | None) -> Iterator[str]:
    """The row as ``column: value; ...``; a long one in several lines, each opened by its first cell."""
    names = columns or []
    pairs = [
        f"{names[place] if place < len(names) else f'column {place + 1}'}: {cell}"
        for place, cell in enumerate(row)
        if cell
    ]
    line, opening = "", shortened(pairs[0])
    for pair in pairs:
        if line and line != opening and len(line) + len(pair) + 2 > LINE_CHARS:
            yield line
            line = opening
        line = f"{line}; {pair}" if line else pair
    yield line
