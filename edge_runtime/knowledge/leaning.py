"""How much meaning counts against words for one query: a base weight that leans with what the query holds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from edge_runtime.knowledge.fusion import DENSE_WEIGHT

LEAST, MOST = 0.05, 0.95
RARE_SHARE = 0.001  # of all chunks: a word in no more of them is rare
_SHOWN = 3  # words named in a reason


@dataclass(frozen=True, slots=True)
class Traits:
    """What of a query speaks for words or for meaning."""

    codes: tuple[str, ...] = ()
    quoted: tuple[str, ...] = ()
    rare: tuple[str, ...] = ()  # words that few chunks hold, and at least one
    terms: int = 0  # codes, quoted phrases and words outside of them
    question: bool = False
    known: float = 1.0  # share of the words' weight that the index holds

    @property
    def amounts(self) -> dict[str, float]:
        """How much of each trait the query has, 0 to 1, under the names of :class:`Weights`."""
        # A description may mention a code; who types little else wants that very code.
        return {
            "code": _share(self.codes, self.terms),
            "quoted": _share(self.quoted, self.terms),
            "rare": _share(self.rare, self.terms),
            "question": float(self.question and not self.codes and not self.quoted),
            "unknown": 1.0 - self.known,
        }


@dataclass(frozen=True, slots=True)
class Weights:
    """Share of the dense score, and how it changes with what a query holds; ``edge search --tune`` fits them."""

    base: float = DENSE_WEIGHT
    code: float = -0.4  # for a query of nothing else; else in proportion, as with the next two
    quoted: float = -0.4
    rare: float = -0.1
    question: float = 0.05
    unknown: float = 0.0

    @classmethod
    def of(cls, settings: Mapping[str, float], collection: str) -> Weights:
        """From an index's settings, as :meth:`settings` named them; what is not there keeps its default."""
        known = {one.name: settings.get(prefix(collection) + one.name) for one in fields(cls)}
        return cls(**{name: value for name, value in known.items() if value is not None})

    def settings(self, collection: str) -> dict[str, float]:
        return {prefix(collection) + name: value for name, value in asdict(self).items()}


def prefix(collection: str) -> str:
    """What the names of a collection's weights begin with in its index's settings."""
    return f"search.{collection}."


@dataclass(frozen=True, slots=True)
class Leaning:
    weight: float  # of the dense score
    reason: str


def lean(traits: Traits, weights: Weights) -> Leaning:
    """The weight for a query, ``LEAST`` to ``MOST``, and a sentence that says why."""
    said = {
        "code": _named("code", traits.codes),
        "quoted": _named("quoted phrase", traits.quoted),
        "rare": _named("rare word", traits.rare),
        "question": "a question in plain words",
        "unknown": f"words that the index lacks, {1 - traits.known:.0%} of their weight",
    }
    changes = {name: amount * getattr(weights, name) for name, amount in traits.amounts.items()}
    weight = min(max(weights.base + sum(changes.values()), LEAST), MOST)
    if all(abs(change) < 0.005 for change in changes.values()):
        return Leaning(weight, f"Meaning weighs {weight:.2f}, the default: nothing speaks for either side.")
    sides = (
        ("words", [said[name] for name, change in changes.items() if change <= -0.005]),
        ("meaning", [said[name] for name, change in changes.items() if change >= 0.005]),
    )
    reasons = "; ".join(f"for {side} speaks {' and '.join(why)}" for side, why in sides if why)
    return Leaning(weight, f"Meaning weighs {weight:.2f}, by default {weights.base:.2f}: {reasons}.")


def _share(some: Sequence[str], every: int) -> float:
    return min(len(some) / max(every, 1), 1.0)


def _named(kind: str, found: Sequence[str]) -> str:
    shown = ", ".join(found[:_SHOWN]) + (" ..." if len(found) > _SHOWN else "")
    return f"the {kind} {shown}" if len(found) == 1 else f"the {kind}s {shown}"
