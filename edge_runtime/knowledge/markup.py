"""Reads HTML into text with headings: scripts, styles and navigation go, list items and table rows stay lines.

Runs no script and fetches nothing that a page refers to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from selectolax.lexbor import LexborHTMLParser

from edge_runtime.errors import DocumentError
from edge_runtime.knowledge.documents import ParsedDocument
from edge_runtime.knowledge.plain import sections

_UNREAD = """
script style nav noscript template svg iframe object head select textarea button canvas audio video math
"""
_DROPPED = frozenset(_UNREAD.split())
_LINES_OF_THEIR_OWN = """
p div section article main header footer aside ul ol dl dt dd table thead tbody tfoot caption blockquote figure
figcaption address details summary form fieldset hr body html
"""
_BLOCKS = frozenset(_LINES_OF_THEIR_OWN.split())
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_SPACE = re.compile(r"\s+")


@dataclass(slots=True)
class _Text:
    """The text so far; a line break is written once something follows it."""

    parts: list[str] = field(default_factory=list)
    length: int = 0
    breaks: int = 0  # line ends that are due
    headings: list[tuple[int, int, str]] = field(default_factory=list)

    def line_end(self, count: int = 1) -> None:
        self.breaks = max(self.breaks, count)

    def write(self, words: str, *, verbatim: bool = False) -> None:
        if not verbatim:
            words = _SPACE.sub(" ", words)
            if self.breaks or not self.parts or self.parts[-1].endswith((" ", "\n")):
                words = words.lstrip()
        if not words.strip("\n" if verbatim else " "):
            if words and self.parts and not self.breaks:
                self._put(words)
            return
        if self.breaks and self.parts:
            self._put("\n" * self.breaks)
        self.breaks = 0
        self._put(words)

    def _put(self, words: str) -> None:
        self.parts.append(words)
        self.length += len(words)


def _hidden(node: Any) -> bool:
    """Whether a browser would not show it: what no reader saw must not be answered."""
    style = (node.attributes.get("style") or "").replace(" ", "").lower()
    return "hidden" in node.attributes or "display:none" in style or "visibility:hidden" in style


def read_html(name: str, source: str) -> ParsedDocument:
    """Raises DocumentError: the page holds no text."""
    tree = LexborHTMLParser(source)
    title = tree.css_first("title")
    out = _Text()
    if tree.body is not None:
        _walk(tree.body, out)
    text = "".join(out.parts).rstrip()
    if not text.strip():
        raise DocumentError(f"{name} holds no text: a page that a script fills must be saved from the browser first")
    named = [(at, level, _SPACE.sub(" ", text[at:end]).strip()) for at, level, end in _ends(out, text)]
    heading = title.text().strip() if title is not None else ""
    heading = heading or next((words for _, level, words in named if level == 1), "")
    return ParsedDocument(
        format="html",
        title=_SPACE.sub(" ", heading) or name,
        text=text,
        sections=sections(text, [one for one in named if one[2]]),
    )


def _ends(out: _Text, text: str) -> list[tuple[int, int, int]]:
    return [(at, level, text.find("\n", at) if "\n" in text[at:] else len(text)) for at, level, _ in out.headings]


def _walk(body: Any, out: _Text) -> None:
    """Depth first with a stack of our own: a page may nest deeper than Python recurses."""
    stack: list[tuple[Any, bool, bool]] = [(body, False, False)]  # node, leaving, inside <pre>
    while stack:
        node, leaving, verbatim = stack.pop()
        tag = node.tag
        if leaving:
            _leave(tag, out, in_item=tag == "p" and node.parent is not None and node.parent.tag == "li")
            continue
        if tag == "-text":
            out.write(node.text_content or "", verbatim=verbatim)
            continue
        if tag in _DROPPED or tag.startswith(("-", "!")) or _hidden(node):
            continue
        _enter(tag, out)
        verbatim = verbatim or tag == "pre"
        stack.append((node, True, verbatim))
        stack.extend((child, False, verbatim) for child in reversed(list(node.iter(include_text=True))))


def _enter(tag: str, out: _Text) -> None:
    if tag in _HEADINGS:
        out.line_end(2)
        at = out.length + (out.breaks if out.parts else 0)
        out.headings.append((at, _HEADINGS[tag], ""))
    elif tag == "li":
        out.line_end()
        out.write("- ")
    elif tag in {"td", "th"} and out.parts and not out.breaks:
        out.write(" | ", verbatim=True)
    elif tag in {"br", "tr"}:
        out.line_end()
    elif tag == "p" and out.parts and out.parts[-1] == "- ":
        pass  # the first paragraph of a list item stays on its line
    elif tag in {"p", "pre", "table", "ul", "ol"}:
        out.line_end(2)
    elif tag in _BLOCKS:
        out.line_end()


def _leave(tag: str, out: _Text, *, in_item: bool) -> None:
    if in_item:
        out.line_end()
    elif tag in _HEADINGS or tag in {"p", "pre", "table", "ul", "ol"}:
        out.line_end(2)
    elif tag in _BLOCKS or tag in {"li", "tr"}:
        out.line_end()
