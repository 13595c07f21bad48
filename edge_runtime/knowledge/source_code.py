"""Reads source code and configuration as they stand; sections follow definitions: file > class > function, or keys.

Python by its own parser where that accepts the file, braces by :mod:`edge_runtime.knowledge.braces`, the rest by what
stands at the start of a line. Knows definitions, not meaning: no imports are followed and no calls resolved.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Final

from edge_runtime.errors import DocumentError
from edge_runtime.knowledge.braces import definitions
from edge_runtime.knowledge.documents import Kind, ParsedDocument, Section
from edge_runtime.knowledge.plain import shortened

Mark = tuple[int, tuple[str, ...]]  # from this position on, this path holds

_PARSED_CHARS: Final = 2_000_000  # more Python than this is generated, and its tree would take a gigabyte
_LINE_CHARS: Final = 1000  # a longer line defines nothing
_SHEBANG: Final = re.compile(r"#!\s*\S*?(?:/env\s+(?:-S\s+)?)?([a-z]+)[\d.]*(?:\s|$)")
_LANGUAGES: Final = {
    "python": ".py .pyi .pyw",
    "braces": ".c .h .cc .cpp .cxx .hh .hpp .hxx .cu .m .mm .java .go .rs .cs .kt .kts .swift .scala .dart .zig .proto"
    " .thrift .glsl .v .sv .groovy .gradle .d .ino",
    "script": ".js .mjs .cjs .jsx .ts .mts .cts .tsx .php",
    "lines": ".sh .bash .zsh .ksh .fish .rb .lua .pl .pm .tcl .r .jl .ex .exs .erl .hs .ml .mli .fs .clj .el .lisp .scm"
    " .vb .vbs .bas .ps1 .psm1 .f .f90 .f95 .for .cob .pas .ada .adb .ads .nim .vhd .vhdl .asm .s .st",
    "sql": ".sql .ddl .dml .pls .plsql",
    "tables": ".ini .cfg .conf .toml .service .socket .timer .desktop .properties .editorconfig .repo .network",
    "keys": ".yaml .yml .json .json5 .jsonc .geojson",
    "records": ".jsonl .ndjson",
    "make": ".mk .mak",
    "plain": ".xml .xsd .xsl .xslt .svg .css .scss .less .sass .vue .svelte .tf .hcl .nix .cmake .dockerfile .bat .cmd"
    " .rnc .graphql .tex .diff .patch",
}
_BY_SUFFIX: Final = {suffix: language for language, found in _LANGUAGES.items() for suffix in found.split()}
_BY_NAME: Final = {"makefile": "make", "gnumakefile": "make", "dockerfile": "plain", "cmakelists.txt": "plain"}
_BY_PROGRAM: Final = {
    **dict.fromkeys(("python", "pypy"), "python"),
    **dict.fromkeys(("node", "deno", "bun", "php"), "script"),
    **dict.fromkeys(("sh", "bash", "dash", "zsh", "ksh", "fish", "ruby", "perl", "lua", "awk", "tclsh"), "lines"),
}
_WORD: Final = r"[\w$.:?!-]{1,80}"
_LINES: Final = re.compile(
    rf"(?:(?:local|export|public|private|static|async)\s+)*(?:function|sub|def|class|module|proc|macro|defmodule|defp?|"
    rf"defun|procedure|subroutine|program)\s+(?:self\.)?[\"']?({_WORD})"
    rf"|({_WORD})\s*(?:\(\)\s*\{{?|(?:<-|=)\s*function\s*\()"
)
_SQL: Final = re.compile(
    r"(?:create|alter|drop|replace)\s+(?:or\s+(?:replace|alter)\s+)?(?:(?:temp|temporary|unique|global|virtual|"
    r"materialized|external|definer\s*=\s*\S+)\s+)*(table|view|function|procedure|trigger|index|type|sequence|package|"
    r"schema|database|role|user|extension|policy)\s+(?:body\s+)?(?:if\s+(?:not\s+)?exists\s+)?([\w.\"`\[\]$-]{1,120})",
    re.IGNORECASE,
)
_SQL_OTHER: Final = re.compile(
    r"(?:insert\s+into|update|delete\s+from|grant|select|with|set|begin|commit)\b", re.IGNORECASE
)
_TABLE: Final = re.compile(r"\s{0,8}\[{1,2}\s*([^\]\n]{1,200}?)\s*\]{1,2}\s*(?:[#;].*)?$")
_KEY: Final = re.compile(r"( *)(?:- )?(?:\"([^\"\n]{1,120})\"|'([^'\n]{1,120})'|([\w./$@ -]{1,80}?))\s*:(?:\s|$)")
_TARGET: Final = re.compile(r"([\w./%$(){} -]{1,120}?)\s*::?(?![=:])")
_COMMENT_LINE: Final = re.compile(r"(?:#|//|--|;|\*|/\*|\"\"\"|@)")


def language(name: str, text: str) -> str | None:
    """How ``name`` is to be cut (a key of the table above), by its name or its first line; None: it is no code."""
    path = PurePath(name)
    found = _BY_NAME.get(path.name.lower()) or _BY_SUFFIX.get(path.suffix.lower())
    if found is None and not path.suffix and (shebang := _SHEBANG.match(text[:200])):
        return _BY_PROGRAM.get(shebang.group(1), "lines")
    return found


def read_code(name: str, text: str, found: str) -> ParsedDocument:
    """``text`` with sections after the rules for the language ``found``. Raises DocumentError: it is empty."""
    if not text.strip():
        raise DocumentError(f"{name} is empty: nothing was added")
    marks = _RULES[found](text)
    kind: Kind = "rows" if found == "records" else "code"
    return ParsedDocument(
        format="code", title=name, text=text, sections=_sections(text, (PurePath(name).name,), marks, kind)
    )


def _sections(text: str, root: tuple[str, ...], marks: list[Mark], kind: Kind) -> list[Section]:
    root = (shortened(root[0]),)
    out: list[Section] = []
    start = 0
    path: tuple[str, ...] = ()
    for position, following in marks:
        if position > start and text[start:position].strip():
            out.append(Section(start, position, (*root, *path), None, kind))
            start = position
        path = tuple(map(shortened, following))
    if out and not text[start:].strip():
        last = out.pop()
        return [*out, Section(last.start, len(text), last.heading, None, kind)]
    return [*out, Section(start, len(text), (*root, *path), None, kind)]


# ---- Python --------------------------------------------------------------------------------------------------------


def _python(text: str) -> list[Mark]:
    tree = None
    if len(text) <= _PARSED_CHARS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in somebody's file is not ours to report
            try:
                tree = ast.parse(text)
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                tree = None
    if tree is None:
        return _indented(text)
    starts = _line_starts(text)
    marks: list[Mark] = []
    _defined(tree.body, (), starts, text, marks)
    return marks


def _defined(body: list[ast.stmt], path: tuple[str, ...], starts: list[int], text: str, marks: list[Mark]) -> None:
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
        while first > 0 and text.startswith("#", _indent_end(text, starts[first - 1])):
            first -= 1
        inner = (*path, node.name)
        marks.append((starts[first], inner))
        if isinstance(node, ast.ClassDef) and len(inner) < 4:
            _defined(node.body, inner, starts, text, marks)
        end = node.end_lineno or node.lineno
        marks.append((starts[end] if end < len(starts) else len(text), path))


def _indent_end(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t":
        at += 1
    return at


def _line_starts(text: str) -> list[int]:
    return [0, *(match.end() for match in re.finditer("\n", text))]


_PYTHON_LINE: Final = re.compile(r"([ \t]*)(?:async\s+)?(?:def|class)\s+(\w{1,80})")


def _indented(text: str) -> list[Mark]:
    """Definitions by indentation, for Python that its parser does not take: an older one, or a part of a file."""
    marks: list[Mark] = []
    open_: list[tuple[int, str]] = []
    above = -1  # where comments and decorators began that belong to what follows
    for at, line in _lines(text):
        words = line.strip()
        if not words:
            above = -1
            continue
        depth = len(line) - len(line.lstrip())
        if _COMMENT_LINE.match(words) and words[0] in "#@":
            above = at if above < 0 else above
            continue
        kept = [one for one in open_ if one[0] < depth]
        found = _PYTHON_LINE.match(line)
        if len(kept) < len(open_) and not words.startswith((")", "]", "}")):
            open_ = kept
            marks.append((at if above < 0 else above, tuple(name for _, name in open_)))
        if found and len(open_) < 3 and len(open_) == len(kept):
            open_ = [*open_, (depth, found.group(2))]
            marks.append((at if above < 0 else above, tuple(name for _, name in open_)))
        above = -1
    return marks


# ---- by lines ------------------------------------------------------------------------------------------------------


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with where they start; of a very long one, its beginning."""
    at = 0
    while at <= len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        yield at, text[at : min(end, at + _LINE_CHARS)]
        at = end + 1


def _at_column_0(text: str) -> list[Mark]:
    """A definition that opens at the margin holds until the margin is reached by what closes it, or by another one."""
    marks: list[Mark] = []
    inside = False
    above = -1
    for at, line in _lines(text):
        if not line.strip():
            above = -1
        elif line[0] in "})" or re.match(r"(?:end|fi|done)\b", line, re.IGNORECASE):
            if inside:
                marks.append((at + len(line) + 1, ()))
            inside, above = False, -1
        elif (found := _LINES.match(line)) is not None:
            marks.append((at if above < 0 else above, (found.group(1) or found.group(2),)))
            inside, above = True, -1
            if line.rstrip().endswith(("}", " end")):
                marks.append((at + len(line) + 1, ()))
                inside = False
        elif not inside and _COMMENT_LINE.match(line):
            above = at if above < 0 else above
        else:
            above = -1
    return marks


def _statements(text: str) -> list[Mark]:
    marks: list[Mark] = []
    above = -1
    ended = True  # the statement before
    for at, line in _lines(text):
        if not line.strip():
            above = -1
            continue
        if line.startswith("--"):
            above = at if above < 0 else above
            continue
        opening = at if above < 0 else above
        above = -1
        if found := _SQL.match(line):
            name = found.group(2).strip('"`[]')
            marks.append((opening, (f"{found.group(1).lower()} {name}",)))
        elif ended and _SQL_OTHER.match(line) and marks and marks[-1][1]:
            marks.append((opening, ()))
        ended = line.rstrip().endswith(";")
    return marks


def _tables(text: str) -> list[Mark]:
    return [(at, (found.group(1),)) for at, line in _lines(text) if (found := _TABLE.match(line))]


def _keys(text: str) -> list[Mark]:
    """The keys of the outermost two levels, by how far their lines are indented."""
    found = [(at, match) for at, line in _lines(text) if (match := _KEY.match(line))]
    depths = sorted({len(match.group(1)) for _, match in found})[:2]
    marks: list[Mark] = []
    outer: tuple[str, ...] = ()
    for at, match in found:
        name = next(group for group in match.groups()[1:] if group is not None).strip()
        if len(match.group(1)) == depths[0]:
            outer = (name,)
            marks.append((at, outer))
        elif len(match.group(1)) == depths[1]:
            marks.append((at, (*outer, name)))
    return marks


def _targets(text: str) -> list[Mark]:
    marks: list[Mark] = []
    for at, line in _lines(text):
        if found := _TARGET.match(line):
            marks.append((at, (found.group(1),)))
        elif line.strip() and line[0] not in "\t #" and marks and marks[-1][1]:
            marks.append((at, ()))
    return marks


def _braces(text: str, *, single_quoted: bool = False) -> list[Mark]:
    found = definitions(text, single_quoted=single_quoted)
    return _at_column_0(text) if found is None else found


_RULES: Final[dict[str, Callable[[str], list[Mark]]]] = {
    "python": _python,
    "braces": _braces,
    "script": lambda text: _braces(text, single_quoted=True),
    "lines": _at_column_0,
    "sql": _statements,
    "tables": _tables,
    "keys": _keys,
    "records": lambda _: [],
    "make": _targets,
    "plain": lambda _: [],
}
