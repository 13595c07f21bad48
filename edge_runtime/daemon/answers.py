"""Answers of the last while, in memory only: for polling, for feedback, and to be forgotten with their documents."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

import msgspec

from edge_runtime.daemon.peers import Peer
from edge_runtime.daemon.requests import same
from edge_runtime.errors import NotFoundError
from edge_runtime.knowledge_protocol import Answer

KEPT = 256


class Answers:
    """The latest answers by id; each is its asker's alone."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[Peer, Answer]] = OrderedDict()

    def put(self, answer: Answer, peer: Peer) -> None:
        self._kept[answer.id] = (peer, answer)
        self._kept.move_to_end(answer.id)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def begin(self, key: str, peer: Peer) -> None:
        """Show a question that is being answered."""
        self.put(blank(key, "running"), peer)

    def end(self, key: str, status: str) -> None:
        """Mark one that got no answer; one that did keeps it."""
        held = self._kept.get(key)
        if held is not None and held[1].status == "running":
            self._kept[key] = (held[0], msgspec.structs.replace(held[1], status=status))

    def get(self, key: str, peer: Peer | None) -> Answer:
        """
        Raises:
            NotFoundError: never asked, too long ago, purged, or (with ``peer``) somebody else's.
        """
        held = self._kept.get(key)
        if held is None or (peer is not None and not same(held[0], peer)):
            raise NotFoundError(f"there is no answer {key}: the last {KEPT} are kept, until edged stops")
        return held[1]

    def forget(self, documents: Collection[str]) -> int:
        """Drop every answer that quotes one of these documents (ids); how many there were."""
        derived = [
            key
            for key, (_, answer) in self._kept.items()
            if any(citation.document_id in documents for citation in answer.citations)
        ]
        for key in derived:
            del self._kept[key]
        return len(derived)


def blank(key: str, status: str) -> Answer:
    """An answer that says nothing yet."""
    return Answer(
        id=key,
        status=status,  # type: ignore[arg-type]
        answer="",
        citations=[],
        grounded=False,
        route="knowledge",
        sensitivity="internal",
        model=None,
        cached_age_s=None,
        timings_ms={},
        confidence=0.0,
    )
