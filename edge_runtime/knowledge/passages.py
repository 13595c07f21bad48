"""What the search found, with its sentences and their stored vectors: the passages that evidence is weighed from."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edge_runtime.knowledge.evidence import Passage, Unit
from edge_runtime.knowledge.index import Index
from edge_runtime.knowledge.search import Found

# List items, table rows, log lines and headings stand alone: their neighbours are about something else.
_ALONE = re.compile(
    r"\s*(?:[-*+•|>#]|\(?\d{1,3}[.)]\s|\[?\(?\d{4}[-/.]\d\d[-/.]\d\d|\d\d:\d\d|[A-Z][\w -]{0,40}:\s)|[^\t]+\t[^\t]+\t"
)
_WORD = re.compile(r"\w*[^\W\d_]\w*")
_HEADING = re.compile(r"\s*#{1,6}\s|[-=_*~+|: ]*$")


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
        units = tuple(
            Unit(
                start=sentences.spans[at].start,
                end=sentences.spans[at].end,
                text=sentences.texts[at],
                item=bool(_ALONE.match(sentences.texts[at])),
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
            )
        )
    return passages
