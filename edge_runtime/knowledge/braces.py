"""Finds the definitions of a source file in a language of braces, without a grammar: C and its many relatives.

A scanner skips comments and strings and counts braces; the words before a brace name what it opens. What it cannot
follow (unbalanced braces, minified code) it says, and the text is then one section.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

# Possessive, and closing marks optional: each match is kept, so the whole takes one pass over any text.
_COMMENT: Final = r"//[^\n]*+|/\*(?:[^*]++|\*(?!/))*+(?:\*/)?"
_DIRECTIVES: Final = "if|ifdef|ifndef|else|elif|endif|define|include|undef|pragma|error|warning|import|region|endregion"
_DIRECTIVE: Final = rf"(?:^|\n)[ \t]*+\#[ \t]*+(?:{_DIRECTIVES})\b(?:\\\n|[^\n])*+"
_CHARACTER: Final = r"'(?:\\[^\n]{1,8}?|[^'\\\n])'"  # no string: Rust's lifetimes have one mark
_SINGLE_QUOTED: Final = r"'(?:\\.|[^'\\\n])*+'?"
_OTHERS: Final = (
    r'"""(?:[^"]++|"(?!""))*+(?:""")?'
    r'|"(?:\\.|[^"\\\n])*+"?'
    r"|`(?:\\.|[^`\\])*+`?"
    r"|[{};]|\n[ \t]*+(?=\n)"
)
_TOKENS: Final = re.compile(f"{_COMMENT}|{_DIRECTIVE}|{_CHARACTER}|{_OTHERS}", re.DOTALL)
_TOKENS_SINGLE: Final = re.compile(f"{_COMMENT}|{_SINGLE_QUOTED}|{_OTHERS}", re.DOTALL)
_COMMENTS: Final = re.compile(rf"{_COMMENT}|\#\[[^\]]*+\]|\#[^\n]*+", re.DOTALL)
_SPACE: Final = re.compile(r"\s+")
_HEADER_CHARS: Final = 2000
_NAME_CHARS: Final = 80
_OPEN: Final = 16  # braces in each other that are looked at
_DEPTH: Final = 4  # of definitions in each other that get a heading
_CONTAINER: Final = re.compile(
    r"\b(class|interface|enum|trait|impl|namespace|module|mod|record|object|extension|protocol|struct|union)\b"
    r"(?:\s+class|\s+struct|\s*\[\[[^\]]*+\]\])?\s*([^{]*)"
)
_KEYWORD_FUNCTION: Final = re.compile(r"\b(?:fn|func|fun|function|def)\b\s*\*?\s*([\w$]+)?")
_METHOD_OF: Final = re.compile(r"\bfunc\s*\(\s*(?:\w+\s+)?\*?\s*([\w]+)[^)]*+\)\s*(\w+)")
_GO_TYPE: Final = re.compile(r"\btype\s+(\w+)[^=]*\b(?:struct|interface)\b")
_ASSIGNED: Final = re.compile(r"\b(?:const|let|var|val)\s+([\w$]+)\b[^=]*=[^{]*(?:=>|\bfunction\b)")
_CALLED: Final = re.compile(r"([~\w$][\w$:~]*(?:<[^<>()]*>)?|operator\s*[^\s\w(]{1,3})\s*\(")
_KEYWORDS: Final = (
    "if for while switch catch return throw new else do synchronized with foreach using lock sizeof typeof match "
    "alignas decltype noexcept requires __attribute__ __declspec static_assert elif unless"
)
_NO_NAMES: Final = frozenset(_KEYWORDS.split())


@dataclass(slots=True)
class _Block:
    """An open brace: what it belongs to, and where a heading for it began."""

    named: tuple[str, ...]
    container: bool
    start: int  # of its line, with the comment above


@dataclass(slots=True)
class _Scan:
    text: str
    stack: list[_Block] = field(default_factory=list)
    mark: int = 0  # where the words before the next brace begin
    out: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)

    def path(self) -> tuple[str, ...]:
        return tuple(name for block in self.stack for name in block.named)

    def open(self, at: int) -> None:
        outer = len(self.stack) < _OPEN and all(block.container for block in self.stack)
        named: tuple[str, ...] = ()
        container = False
        start = _line_start(self.text, self.mark, at)
        if outer and len(self.path()) < _DEPTH:
            found = named_by(self.text[max(start, at - _HEADER_CHARS) : at])
            if found is not None:
                named, container = found
                if named:
                    self.out.append((start, (*self.path(), *named)))
        self.stack.append(_Block(named, container, start))
        self.mark = at + 1

    def close(self, at: int) -> bool:
        """False: nothing was open."""
        if not self.stack:
            return False
        block = self.stack.pop()
        if block.named:
            end = self.text.find("\n", at)
            self.out.append((len(self.text) if end < 0 else end + 1, self.path()))
        self.mark = at + 1
        return True


def definitions(text: str, *, single_quoted: bool = False) -> list[tuple[int, tuple[str, ...]]] | None:
    """Where definitions begin and end: (position, path that holds from there on), in order. None: braces do not match.

    ``single_quoted``: a string may stand in single quotes (JavaScript, PHP), which elsewhere hold one character.
    """
    scan = _Scan(text)
    for found in (_TOKENS_SINGLE if single_quoted else _TOKENS).finditer(text):
        token = found.group()
        match token[0]:
            case "{":
                scan.open(found.start())
            case "}":
                if not scan.close(found.start()):
                    return None
            case ";":
                scan.mark = found.end()
            case "\n" | "#":
                scan.mark = found.end()
    return None if scan.stack else scan.out


def _line_start(text: str, mark: int, at: int) -> int:
    """The start of the first line with words between ``mark`` and the brace ``at``."""
    while mark < at and text[mark].isspace():
        mark += 1
    return text.rfind("\n", 0, mark) + 1


def named_by(header: str) -> tuple[tuple[str, ...], bool] | None:
    """What the words before a brace name, and whether definitions may stand inside it. None: it is a mere block.

    No names and True is a brace that only wraps: ``extern "C"``, a namespace without a name.
    """
    words = _SPACE.sub(" ", _COMMENTS.sub(" ", header)).strip()
    if re.search(r'\bextern\s+"[^"]*"$', words) or re.search(r"\b(?:namespace|export)$", words):
        return (), True
    if found := _METHOD_OF.search(words):
        return (found.group(1), found.group(2)), False
    if found := _GO_TYPE.search(words):
        return (found.group(1),), False
    function = _KEYWORD_FUNCTION.search(words)
    container = _CONTAINER.search(words)
    if container and (function is None or container.start() < function.start()):
        plain = container.group(1) in {"struct", "union", "enum", "record", "object", "module", "mod"}
        if not (plain and ("(" in words[: container.start()] or "=" in words)) and not (
            container.group(1) in {"struct", "union"} and "(" in container.group(2)
        ):
            return ((_kind_name(container.group(1), container.group(2)),), True)
    if function and function.group(1):
        return (function.group(1),), False
    if assigned := _ASSIGNED.search(words):
        return (assigned.group(1),), False
    if "=" in words.split("(", 1)[0].replace("operator", ""):
        return None
    for call in _CALLED.finditer(words):
        if call.group(1) not in _NO_NAMES and words[: call.start()].rstrip()[-1:] not in {"@", ".", "["}:
            return None if words.endswith("=>") else ((call.group(1)[:_NAME_CHARS],), False)
        if call.group(1) in {"if", "for", "while", "switch", "catch", "return"}:
            return None
    return None


def _kind_name(kind: str, rest: str) -> str:
    """``Pump`` of ``class Pump extends Device``; ``impl Drain for Pump`` keeps both."""
    rest = rest.strip()
    if kind == "impl":
        plain = re.sub(r"^<[^>]*>\s*", "", rest).split(" where ")[0]
        return f"impl {plain}"[:_NAME_CHARS].strip()
    name = re.match(r"[\w$.:]+", rest)
    return name.group()[:_NAME_CHARS].rstrip(":") if name else kind
