"""From what was found to an answer of quotes: for one question, a list, a summary, or the parts of a question. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from edge_runtime.knowledge.answer import Cited, Draft, extract, readable, rivals
from edge_runtime.knowledge.evidence import Evidence, Passage, Quote
from edge_runtime.knowledge.extent import Extent, Kind
from edge_runtime.knowledge.several import Bearing
from edge_runtime.knowledge.words import Asked

MISSING = "The documents do not say: "  # before the part of a question that they do not answer


@dataclass(frozen=True, slots=True)
class Look:
    """What was found for a question or one of its parts; ``bearings`` where several sentences are wanted."""

    asked: Asked
    evidence: Evidence
    kind: Kind = "one"
    bearings: tuple[Bearing, ...] = ()
    passages: tuple[Passage, ...] = ()


@dataclass(frozen=True, slots=True)
class Outline:
    """An answer of quotes. From ``quotes[sure]`` on they are open: part of it only if a reader speaks for them."""

    quotes: tuple[Quote, ...]
    sure: int
    sentences: tuple[Cited, ...]
    confidence: float


@dataclass(slots=True)
class _Sheet:
    """Quotes and sentences as they are gathered, none of them twice."""

    quotes: list[Quote] = field(default_factory=list)
    sentences: list[Cited] = field(default_factory=list)
    cores: set[tuple[str, int]] = field(default_factory=set)

    def put(self, draft: Draft) -> None:
        for cited in draft.sentences:
            kept = [draft.quotes[at] for at in cited.quotes]
            if all(_core(quote) in self.cores for quote in kept):
                continue
            first = len(self.quotes)
            self.quotes += kept
            self.cores |= {_core(quote) for quote in kept}
            self.sentences.append(Cited(cited.text, tuple(range(first, len(self.quotes)))))

    def outline(self, looks: Iterable[Look], confidence: float, *, several: bool = False) -> Outline:
        """With the bearings of ``looks`` open; of a question for one thing, those that are as good as its answer."""
        sure = len(self.quotes)
        for bearing in sorted((one for look in looks for one in look.bearings), key=lambda one: -one.quote.score):
            if (several or bearing.sure) and _core(bearing.quote) not in self.cores:
                self.cores.add(_core(bearing.quote))
                self.quotes.append(bearing.quote)
        return Outline(tuple(self.quotes), sure, tuple(self.sentences), confidence)


def compose(extent: Extent, looks: Sequence[Look], *, confidence: float) -> Outline | None:
    """The answer that ``looks`` (at the whole question, then at each part) give; None: the documents do not say.

    ``confidence`` is the least that an answer needs.
    """
    whole, parts = looks[0], looks[1:]
    sheet = _Sheet()
    if not parts:
        if not _holds(whole, confidence):
            return None
        sheet.put(_answer(whole))
        return sheet.outline(looks, whole.evidence.confidence, several=whole.kind != "one")
    found: list[float] = []
    if extent.joint and _holds(whole, confidence) and _names_all(whole, parts):
        sheet.put(_side(whole) if extent.compares else _answer(whole))
        found.append(whole.evidence.confidence)
    named = bool(found)
    if extent.compares or not named:
        for part in parts:
            if _holds(part, confidence):
                sheet.put(_side(part) if extent.compares else _answer(part))
                found.append(part.evidence.confidence)
            elif not named:
                sheet.sentences.append(Cited(MISSING + part.asked.text, ()))
    return sheet.outline(looks, found[0]) if found else None


def _holds(look: Look, confidence: float) -> bool:
    """A list needs a sentence that has every code and number of the question, too."""
    is_there = bool(look.evidence.quotes) and look.evidence.confidence >= confidence
    return is_there and (look.kind != "list" or bool(look.bearings))


def _names_all(whole: Look, parts: Sequence[Look]) -> bool:
    """Whether the best sentence for the whole question speaks of every part: of what each has and the others lack."""
    quote = whole.evidence.quotes[0]
    said = quote.passage.units[quote.core].terms
    shared = frozenset.intersection(*(part.asked.terms for part in parts))
    return all((part.asked.terms - shared) & said for part in parts)


def _answer(look: Look) -> Draft:
    """The quotes for one question: steps, one sentence (with what contradicts it), or all that bear on it."""
    draft = extract(look.asked, look.evidence)
    sheet = _Sheet()
    sheet.put(draft)
    if len(draft.sentences) > 1:
        return draft
    if look.kind == "one" or (look.kind == "list" and _enumerates(look)):
        sheet.put(_alone(rivals(look.evidence.quotes)))
    else:
        sheet.put(_alone(tuple(bearing.quote for bearing in look.bearings if bearing.sure)))
        sheet.sentences = _in_order(sheet)
    return Draft(tuple(sheet.quotes), tuple(sheet.sentences))


def _side(look: Look) -> Draft:
    """One sentence for one side of a comparison; what only announces something compares nothing."""
    quotes = look.evidence.quotes
    best = next((quote for quote in quotes if not _text(quote).rstrip().endswith(":")), quotes[0])
    return Draft((best,), (Cited(readable(_text(best)), (0,)),))


def _alone(quotes: Sequence[Quote]) -> Draft:
    return Draft(tuple(quotes), tuple(Cited(readable(_text(quote)), (at,)) for at, quote in enumerate(quotes)))


def _text(quote: Quote) -> str:
    return quote.passage.units[quote.core].text


def _enumerates(look: Look) -> bool:
    """Whether the best sentence is a list in itself, and about all that is asked."""
    quote = look.evidence.quotes[0]
    core = quote.passage.units[quote.core]
    heard = frozenset[str]().union(*(unit.terms for passage in look.passages for unit in passage.units))
    text = core.text
    counted = text.count(", ") >= 2 or (", " in text and (" and " in text or " or " in text))
    return not core.item and counted and look.asked.terms & heard <= core.terms


def _in_order(sheet: _Sheet) -> list[Cited]:
    """As one would read them: document by document, the best one's first, each from its beginning."""
    rank: dict[str, int] = {}
    for quote in sheet.quotes:
        rank.setdefault(quote.passage.document_id, len(rank))

    def place(cited: Cited) -> tuple[int, int]:
        quote = sheet.quotes[cited.quotes[0]]
        return rank[quote.passage.document_id], quote.passage.units[quote.core].start

    return sorted(sheet.sentences, key=place)


def _core(quote: Quote) -> tuple[str, int]:
    return quote.passage.document_id, quote.passage.units[quote.core].start
