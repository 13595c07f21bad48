"""Reads HTML into text with headings: scripts, styles and navigation go, list items and table rows stay lines.

Where a page marks its main content, that is what is read. Runs no script and fetches nothing that a page refers to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from selectolax.lexbor import LexborHTMLParser

from edge_runtime.errors import DocumentError
from edge_runtime.knowledge.documents import ParsedDocument
from edge_runtime.knowledge.plain import sections, shortened

_UNREAD = """
script style nav noscript template svg iframe object head select textarea button canvas audio video math
"""
_DROPPED = frozenset(_UNREAD.split())
_LINES_OF_THEIR_OWN = """
p div section article main header footer aside ul ol dl dt dd table thead tbody tfoot caption blockquote figure
figcaption address details summary form fieldset hr body html
"""
_BLOCKS = frozenset(_LINES_OF_THEIR_OWN.split())
# Around the content of a site and not part of it (WAI-ARIA 1.2 landmarks); inside an article they are.
_AROUND = frozenset({"header", "footer", "aside"})
_AROUND_ROLES = frozenset({"navigation", "banner", "contentinfo", "search", "menu", "menubar", "dialog", "alertdialog"})
_LINK_MARKS = frozenset({"¶", "#", "§", "🔗", "[edit]", "permalink"})
_MAIN_SHARE = 0.3  # of the text of a page that its main element must hold to be taken for it
_DEPTH = 10_000  # of elements in each other: beyond it the parser's work grows with the square
_NESTING = re.compile(
    r"<(/?)(?:div|section|article|main|aside|header|footer|ul|ol|dl|table|blockquote|center|fieldset|form|details|"
    r"figure|address|menu|button|object|applet|marquee)\b",
    re.IGNORECASE,
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_SPACE = re.compile(r"\s+")
_BULLET = re.compile(r"(?:-|\d+\.) $")


@dataclass(slots=True)
class _Text:
    """The text so far; a line break is written once something follows it."""

    parts: list[str] = field(default_factory=list)
    length: int = 0
    breaks: int = 0  # line ends that are due
    headings: list[tuple[int, int, str]] = field(default_factory=list)
    numbers: list[int | None] = field(default_factory=list)  # of the lists that are open: the next item's, or a bullet

    def line_end(self, count: int = 1) -> None:
        self.breaks = max(self.breaks, count)

    def write(self, words: str, *, verbatim: bool = False) -> None:
        if not verbatim:
            words = _SPACE.sub(" ", words.replace("\xad", ""))
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
    """Raises DocumentError: the page holds no text, shows only frames, or nests too deep."""
    if _depth(source) > _DEPTH:
        raise DocumentError(
            f"{name} nests its elements more than {_DEPTH} deep: it was not read; save its text and add that"
        )
    tree = LexborHTMLParser(source)
    title = tree.css_first("title")
    out = _Text()
    if tree.body is not None:
        whole = _Text()
        _walk(tree.body, whole)
        out = _main(tree, whole) or whole
    text = "".join(out.parts).rstrip()
    if not text.strip():
        shown = ", ".join(frame.attributes.get("src") or "" for frame in tree.css("frame, iframe")[:5])
        if shown:
            raise DocumentError(f"{name} only shows other pages in frames: add those ({shown[:200]})")
        raise DocumentError(f"{name} holds no text: a page that a script fills must be saved from the browser first")
    named = [(at, level, _SPACE.sub(" ", text[at:end]).strip()) for at, level, end in _ends(out, text)]
    heading = title.text().strip() if title is not None else ""
    heading = heading or next((words for _, level, words in named if level == 1), "")
    return ParsedDocument(
        format="html",
        title=shortened(_SPACE.sub(" ", heading)) or name,
        text=text,
        sections=sections(text, [one for one in named if one[2]]),
    )


def _depth(source: str) -> int:
    """How deep elements that no other closes may nest, counted from the tags alone."""
    depth = deepest = 0
    for tag in _NESTING.finditer(source):
        if tag.group(1):
            depth = max(0, depth - 1)
        else:
            depth += 1
            deepest = max(deepest, depth)
    return deepest


def _main(tree: LexborHTMLParser, whole: _Text) -> _Text | None:
    """The text of the page's main element, where there is one and it holds a fair part of the text."""
    found = tree.css("main, [role=main]")
    if len(found) != 1 or _hidden(found[0]):
        return None
    out = _Text()
    _walk(found[0], out)
    return out if out.length >= _MAIN_SHARE * whole.length and out.length > 0 else None


def _ends(out: _Text, text: str) -> list[tuple[int, int, int]]:
    ends = ((at, level, text.find("\n", at)) for at, level, _ in out.headings)
    return [(at, level, len(text) if end < 0 else end) for at, level, end in ends]


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
        if tag in _DROPPED or tag.startswith(("-", "!")) or _hidden(node) or _surrounds(node, tag):
            continue
        _enter(node, tag, out)
        verbatim = verbatim or tag == "pre"
        stack.append((node, True, verbatim))
        stack.extend((child, False, verbatim) for child in reversed(list(node.iter(include_text=True))))


def _surrounds(node: Any, tag: str) -> bool:
    """Whether this is what a site puts around its pages, or a mark to link to a heading by."""
    if tag == "a":
        return "headerlink" in (node.attributes.get("class") or "") or (node.text() or "").strip() in _LINK_MARKS
    role = node.attributes.get("role")
    if role in _AROUND_ROLES:
        return True
    return tag in _AROUND and role is None and node.parent is not None and node.parent.tag == "body"


def _enter(node: Any, tag: str, out: _Text) -> None:
    if tag in _HEADINGS:
        out.line_end(2)
        at = out.length + (out.breaks if out.parts else 0)
        out.headings.append((at, _HEADINGS[tag], ""))
    elif tag == "li":
        out.line_end()
        number = out.numbers[-1] if out.numbers else None
        out.write("- " if number is None else f"{number}. ")
        if number is not None:
            out.numbers[-1] = number + 1
    elif tag in {"td", "th"} and out.parts and not out.breaks:
        out.write(" | ", verbatim=True)
    elif tag in {"br", "tr"}:
        out.line_end()
    elif tag == "p" and out.parts and _BULLET.match(out.parts[-1]):
        pass  # the first paragraph of a list item stays on its line
    elif tag in {"p", "pre", "table", "ul", "ol"}:
        out.line_end(1 if out.numbers and tag in {"ul", "ol"} else 2)
        if tag in {"ul", "ol"}:
            out.numbers.append(_first(node) if tag == "ol" else None)
    elif tag in _BLOCKS:
        out.line_end()


def _first(node: Any) -> int:
    start = node.attributes.get("start") or ""
    return int(start) if start.isascii() and start.isdigit() and len(start) < 6 else 1


def _leave(tag: str, out: _Text, *, in_item: bool) -> None:
    if tag in {"ul", "ol"} and out.numbers:
        out.numbers.pop()
    if in_item:
        out.line_end()
    elif tag in _HEADINGS or tag in {"p", "pre", "table", "ul", "ol"}:
        out.line_end(1 if out.numbers and tag in {"ul", "ol"} else 2)
    elif tag in _BLOCKS or tag in {"li", "tr"}:
        out.line_end()
