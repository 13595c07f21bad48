"""A prepared document of the large index says of its passages what their text says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.knowledge_stage import WIDTH, document
from edge_runtime.embedding.windows import unit
from edge_runtime.knowledge.index import Index


def test_passages_are_stored_and_found_with_the_vectors_beside_them(tmp_path: Path) -> None:
    texts = ["The gland bolts need 25 Nm.", "Alarm E17: low suction pressure.", "Grease monthly."]
    rows = unit(np.random.default_rng(0).standard_normal((3, WIDTH), dtype=np.float32))
    index = Index.open(tmp_path / "index.db", embedder="bench", width=WIDTH)
    try:
        index.add(document("volume.txt", texts, rows))
        told = index.report()
        assert (told.documents, told.chunks, told.windows, told.coverage) == (1, 3, 3, 1.0)
        scope = index.scope("default", None)
        assert scope is not None
        for row, text in zip(rows, texts, strict=True):
            nearest = next(iter(index.nearest(scope, row, 1)))
            assert [one.text for one in index.chunks([nearest])] == [text]
    finally:
        index.close()
