"""How near the best sentence of a chunk comes to a query: a passage may be about much, and answer with one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw
import numpy as np

from edge_runtime.knowledge.filters import as_json
from edge_runtime.knowledge.records import Matrix

_SENTENCES = (
    "SELECT k.id, s.vector FROM json_each(?) AS j CROSS JOIN chunks AS k ON k.id = j.value"
    ' CROSS JOIN sentences AS s ON s.document = k.document AND s.start >= k.start AND s.start < k."end"'
)


def closest(connection: apsw.Connection, chunks: Sequence[int], vector: Matrix) -> dict[int, float]:
    """The best cosine over the sentences that begin in each chunk; a chunk without any is left out.

    ``vector`` (width,) has unit length.
    """
    rows: Any = connection.execute(_SENTENCES, (as_json(chunks),)).fetchall()
    if not rows:
        return {}
    table = np.frombuffer(b"".join(row[1] for row in rows), "<f2").reshape(len(rows), -1).astype(np.float32)
    best: dict[int, float] = {}
    for (chunk, _), cosine in zip(rows, (table @ vector).tolist(), strict=True):
        best[chunk] = max(cosine, best.get(chunk, -1.0))
    return best
