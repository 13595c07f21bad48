"""Man pages of this machine as plain text: a small reader of the roff macros that pages use (man(7), mdoc(7)).

It keeps words, headings and paragraphs; it does not lay out, and tables and equations come out as their cells alone.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path("/usr/share/man")
SECTIONS = ("1", "4", "5", "6", "7", "8", "2", "3")

_SPECIAL = {
    "aq": "'",
    "dq": '"',
    "lq": '"',
    "rq": '"',
    "oq": "'",
    "cq": "'",
    "em": "-",
    "en": "-",
    "bu": "*",
    "co": "©",
}
_SPECIAL |= {"mu": "x", "ha": "^", "ti": "~", "rs": "\\", "ga": "`", "mi": "-", "pl": "+", "eq": "=", "at": "@"}
_SPECIAL |= {"lt": "<", "gt": ">", "<=": "<=", ">=": ">=", "->": "->", "de": "°", "+-": "±", "sh": "#", "Do": "$"}
_STRINGS = {"lq": '"', "rq": '"', 'L"': '"', 'R"': '"', "Aq": "'", "aq": "'", "Tm": "(TM)", "R": "(R)"}
_ESCAPE = re.compile(
    r"""\\(?:
        (?P<comment>["\#]).*
      | [fmMFgkYV](?:\[[^\]]*\]|\(..|.)
      | s(?:[+-]?\([+-]?\d\d|[+-]?\[[^\]]*\]|[+-]?\d|[+-]?'[^']*')
      | [hvwlLbBAXxRDNoZHSC]'[^']*'
      | n[+-]?(?:\[[^\]]*\]|\(..|.)
      | \*(?:\[(?P<long_string>[^\]]*)\]|\((?P<pair_string>..)|(?P<string>.))
      | \[(?P<long_name>[^\]]*)\]
      | \((?P<name>..)
      | (?P<one>.)
    )""",
    re.VERBOSE,
)
_SINGLE = {"-": "-", "e": "\\", "\\": "\\", " ": " ", "~": " ", "0": " ", "'": "'", "`": "`", ".": ".", "t": " "}
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|(\S+)')
_PARAGRAPHS = {"PP", "P", "LP", "Pp", "sp", "HP", "TP", "TQ", "IP", "It", "Bl", "El", "Sp", "Bd", "Ed", "RS", "RE"}
_SPACED = {"B", "I", "SM", "SB", "R", "CW"}
_JOINED = {"BR", "BI", "IB", "IR", "RB", "RI"}
_SKIPPED = {"de", "de1", "am", "ig"}
# Macros of mdoc(7) that may stand among the arguments of another.
_MDOC = """
Ad An Ac Ao Ap Aq Ar Bc Bo Bq Brc Bro Brq Cd Cm Dc Do Dq Dv Ec Em En Eo Er Ev Fa Fc Fl Fn Fo Ft Ic In Li Lk Ms Mt
Nm No Ns Oc Oo Op Pa Pc Pf Po Pq Qc Ql Qo Qq Sc So Sq Sx Sy Ta Tn Ux Va Vt Xc Xo Xr Nd D1 Dl It St Lb
"""
_CALLABLE = set(_MDOC.split())
_DESCRIBED = re.compile(r"\s+(?:-|--|\u2013|\u2014)\s+")
_GAP = re.compile(r"\n{3,}")


@dataclass(frozen=True, slots=True)
class Page:
    """``description`` is what its section NAME says after the dash; ``text`` is all but that section, as Markdown."""

    name: str  # ls.1
    description: str
    text: str

    @property
    def family(self) -> str:
        """The first word of the name: pages of one suite (git-add, git-log) share it."""
        return re.split(r"[-_.:]", self.name, maxsplit=1)[0]


def paths(folder: Path = FOLDER) -> list[Path]:
    """The pages in English, by section and name; empty where the machine has none."""
    return [path for section in SECTIONS for path in sorted((folder / f"man{section}").glob("*")) if path.is_file()]


def read(path: Path) -> Page | None:
    """One page; None for one that only points to another, has no usable NAME, or cannot be read."""
    try:
        data = path.read_bytes()
        source = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8", "replace")
    except (OSError, EOFError, zlib.error):
        return None
    sections = convert(source)
    named = [text for heading, text in sections if heading.upper() == "NAME"]
    told = _DESCRIBED.split(" ".join(named[0].split()), maxsplit=1) if named else []
    if len(told) != 2 or not told[1]:
        return None
    body = "\n\n".join(f"## {heading}\n\n{text}" for heading, text in sections if heading.upper() != "NAME" and text)
    return Page(path.name.removesuffix(".gz"), told[1].rstrip(". "), body)


def convert(source: str) -> list[tuple[str, str]]:
    """Headings, as written, and the text below each."""
    reader = _Reader()
    lines = iter(_begin(source))
    for line in lines:
        request, rest = _request(line)
        if request in _SKIPPED:
            for inner in lines:
                if inner.startswith(".."):
                    break
        elif request in {"if", "ie"}:
            _skip_branch(rest, lines)
        elif request == "TS":
            reader.take_table(lines)
        elif request is not None:
            reader.obey(request, rest)
        else:
            reader.write(plain(line))
    return reader.finish()


def plain(text: str) -> str:
    """``text`` with its escape sequences resolved (groff(7))."""

    def resolve(match: re.Match[str]) -> str:
        if (name := match["name"] or match["long_name"]) is not None:
            if re.fullmatch(r"u[0-9A-F]{4,6}", name):
                return chr(min(int(name[1:], 16), 0x10FFFF))
            return _SPECIAL.get(name, "")
        if (string := match["string"] or match["pair_string"] or match["long_string"]) is not None:
            return _STRINGS.get(string, "")
        return _SINGLE.get(match["one"] or "", "")

    return _ESCAPE.sub(resolve, text)


def _begin(source: str) -> list[str]:
    """The lines from the title on: what comes before it defines macros."""
    lines = source.splitlines()
    first = next((at for at, line in enumerate(lines) if line.startswith((".TH", ".Dd", ".Dt"))), len(lines))
    return lines[first + 1 :]


def _request(line: str) -> tuple[str | None, str]:
    """The request or macro on a control line, and what follows it; None on a line of text."""
    if not line.startswith((".", "'")):
        return None, ""
    match = re.match(r"[.']\s*(\\\"|[A-Za-z0-9]*)\s*(.*)", line)
    return (match[1], match[2]) if match else ("", "")


def _skip_branch(condition: str, lines: Iterator[str]) -> None:
    """What a condition guards is layout, or the other way to write what its ``.el`` has."""
    depth = condition.count(r"\{") - condition.count(r"\}")
    while depth > 0 and (line := next(lines, None)) is not None:
        depth += line.count(r"\{") - line.count(r"\}")


def _arguments(text: str) -> list[str]:
    text = re.sub(r'\\".*', "", text)
    return [
        plain(match[1].replace('""', '"') if match[1] is not None else match[2]) for match in _ARGUMENT.finditer(text)
    ]


class _Reader:
    """Gathers sections; ``obey`` takes control lines, ``write`` lines of text."""

    def __init__(self) -> None:
        self._sections: list[tuple[str, str]] = []
        self._heading = ""
        self._parts: list[str] = []
        self._verbatim = False
        self._name = ""  # of the page, for mdoc's .Nm
        self._titling = False  # the next line of text is a heading

    def obey(self, request: str, rest: str) -> None:
        """Take a control line; requests that only lay out are passed over."""
        match request:
            case "SH" | "Sh":
                self._open(" ".join(_arguments(rest)))
            case "SS" | "Ss":
                self._break()
                self.write(" ".join(_arguments(rest)))
                self._break()
            case "nf" | "EX" | "Vb":
                self._break()
                self._verbatim = True
            case "fi" | "EE" | "Ve":
                self._verbatim = False
                self._break()
            case "br":
                self._parts.append("\n")
            case "IP":
                self._break()
                tag = " ".join(_arguments(rest)[:1])
                self.write(tag)
                self._parts.append("\n" if len(tag) > 3 else "")
            case "UR" | "MT":
                self.write(" ".join(_arguments(rest)))
            case _ if request in _JOINED:
                self.write("".join(_arguments(rest)))
            case _ if request in _SPACED:
                self.write(" ".join(_arguments(rest)))
            case _ if request in _PARAGRAPHS or request in _CALLABLE:
                self._obey_mdoc(request, rest)

    def _obey_mdoc(self, request: str, rest: str) -> None:
        if request in _PARAGRAPHS:
            self._break()
        if request == "It" or request in _CALLABLE:
            self.write(self._words([request, *_arguments(rest)]))

    def _words(self, arguments: list[str]) -> str:
        """What a line of mdoc's macros says."""
        said: list[str] = []
        for at, word in enumerate(arguments):
            before = arguments[at - 1] if at else ""
            if word == "Nm" and (at + 1 == len(arguments) or arguments[at + 1] in _CALLABLE):
                said.append(self._name)
            elif word == "Nd":
                said.append("-")
            elif word in _CALLABLE:
                continue
            elif before == "Fl":
                said.append(f"-{word}")
            elif at >= 2 and arguments[at - 2] == "Xr":
                said[-1] += f"({word})"
            else:
                if before == "Nm" and not self._name:
                    self._name = word
                said.append(word)
        return re.sub(r" ([.,;:)\]])", r"\1", " ".join(said))

    def take_table(self, lines: Iterator[str]) -> None:
        """tbl(1): options and formats end with a line that ends in a point; cells are kept, a row a line."""
        self._break()
        in_format = True
        for line in lines:
            if line.startswith(".TE"):
                break
            if in_format:
                in_format = not line.rstrip().endswith(".")
            elif not line.startswith((".", "'")) and not re.fullmatch(r"[\s_=]*|T[{}].?", line):
                self._parts.append(plain(re.sub(r"T[{}]|\t", " ", line)) + "\n")
        self._break()

    def write(self, text: str) -> None:
        if self._titling and text.strip():
            self._titling = False
            self._heading = text.strip()
        elif self._heading:
            self._parts.append(text + ("\n" if self._verbatim else " ") if text.strip() else "\n\n")

    def _break(self) -> None:
        if self._parts and self._parts[-1] != "\n\n":
            self._parts.append("\n\n")

    def _open(self, heading: str) -> None:
        self._close()
        self._heading = heading
        self._titling = not heading

    def finish(self) -> list[tuple[str, str]]:
        self._close()
        return self._sections

    def _close(self) -> None:
        if self._heading:
            lines = [" ".join(line.split()) for line in "".join(self._parts).split("\n")]
            self._sections.append((self._heading, _GAP.sub("\n\n", "\n".join(lines)).strip()))
        self._parts = []
        self._verbatim = False
