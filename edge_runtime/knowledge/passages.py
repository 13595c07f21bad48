"""What the search found, with its sentences and their stored vectors: the passages that evidence is weighed from."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from edge_runtime.knowledge.evidence import Passage, Unit
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.search import Found
from edge_runtime.knowledge.words import stems

# List items, table rows, log lines and headings stand alone: their neighbours are about something else.
_ALONE = re.compile(
    r"\s*(?:[-*+•|>#]|\(?\d{1,3}[.)]\s|\[?\(?\d{4}[-/.]\d\d[-/.]\d\d|\d\d:\d\d|[A-Z][\w -]{0,40}:\s)|[^\t]+\t[^\t]+\t"
)
_WORD = re.compile(r"\w*[^\W\d_]\w*")
_HEADING = re.compile(r"\s*#{1,6}\s|[-=_*~+|: ]*$")
_RULE = re.compile(r"\s*\|[|: -]*-[|: -]*$")  # between the head of a Markdown table and its rows
_SECTION = re.compile(r"\s*(?:\d+(?:\.\d+)*\.?|[A-Z]\.)\s")  # the number of a heading says nothing of its subject
_GOES_ON = 2  # sentences that an item may go on for before its list has ended


def gather(index: Index, found: Sequence[Found]) -> list[Passage]:
    """One passage a chunk found, in the same order; a sentence that two chunks share belongs to the first."""
    seen: set[tuple[str, int]] = set()
    passages = []
    for chunk, sentences in zip(found, index.sentences([one.chunk for one in found]), strict=True):
        kept = [
            at
            for at, (span, text) in enumerate(zip(sentences.spans, sentences.texts, strict=True))
            if chunk.start <= span.start
            and span.end <= chunk.end
            and (chunk.document_id, span.start) not in seen
            and not _HEADING.match(text)
            and len(_WORD.findall(text)) > 1  # "3." alone answers nothing
        ]
        announced = _announced(sentences.texts)
        units = tuple(
            Unit(
                start=sentences.spans[at].start,
                end=sentences.spans[at].end,
                text=sentences.texts[at],
                item=bool(_ALONE.match(sentences.texts[at])),
                under=announced[at],
                cut=frozenset(stems(sentences.texts[at])),
            )
            for at in kept
        )
        seen.update((chunk.document_id, unit.start) for unit in units)
        passages.append(
            Passage(
                document_id=chunk.document_id,
                document=chunk.document,
                heading=chunk.heading[-1] if chunk.heading else None,
                page=chunk.page,
                start=chunk.start,
                text=chunk.text,
                units=units,
                vectors=sentences.vectors[kept],
                dense=chunk.dense or 0.0,
                lexical=chunk.lexical,
                titles=" ".join(_SECTION.sub("", heading) for heading in chunk.heading),
            )
        )
    whole: dict[tuple[str, int], Passage] = {}
    for passage in sorted(passages, key=lambda one: one.start):
        whole[passage.document_id, passage.start] = _continued(passage, whole.values())
    return [whole[passage.document_id, passage.start] for passage in passages]


def _continued(passage: Passage, found: Iterable[Passage]) -> Passage:
    """``passage`` with its first rows or items under what those at the end of the passage before it stand under."""
    parted = list(itertools.takewhile(lambda unit: unit.item and not unit.under, passage.units))
    before = next((other for other in found if other.units and other.is_followed_by(passage)), None) if parted else None
    if before is None or not before.units[-1].item:
        return passage
    under = before.units[-1].under
    units = (*(replace(unit, under=under) for unit in parted), *passage.units[len(parted) :])
    return replace(passage, units=units)


def _announced(texts: Sequence[str]) -> list[str]:
    """What each sentence stands under: of a row its table's head, of an item the sentence that announces its list."""
    found: list[str] = []
    head, lead, since = "", "", 0
    for at, text in enumerate(texts):
        row = text.lstrip().startswith("|")
        if row and at and _RULE.match(text):
            head = texts[at - 1]
        elif not row:
            head = ""
        item = bool(_ALONE.match(text))
        if text.rstrip().endswith(":"):
            lead, since = text, 0
        elif not item and (since := since + 1) > _GOES_ON:
            lead = ""
        if item:
            since = 0
        found.append(head if row else lead if item else "")
    return found
