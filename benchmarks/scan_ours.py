"""The scan of the coarse copy, measured as its peers are: a process of its own, the same queries, the same sizes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import scan_peers
from edge_runtime.knowledge.coarse import Coarse
from edge_runtime.knowledge.records import VectorBlock

_BLOCK = 4096
_EPOCH, _COLLECTION = 1, 1


class Ours:
    """Row i is the one window of chunk i + 1."""

    settings: tuple[dict[str, Any], ...] = ({},)

    def build(self, directory: Path, vectors: Any) -> None:
        coarse = Coarse.open(directory, vectors.shape[1])
        coarse.rebuild(_blocks(vectors), _EPOCH)
        coarse.close()

    def open(self, directory: Path) -> None:
        self._coarse = Coarse.open(directory, np.load(directory.parent / "queries.npy").shape[1])
        if not self._coarse.ready(_EPOCH):
            raise SystemExit(f"{directory} holds no copy: {self._coarse.trouble}")

    def apply(self, setting: dict[str, Any]) -> None:
        pass

    def query(self, vector: Any) -> list[int]:
        found = self._coarse.nearest(vector, scan_peers.K, epoch=_EPOCH, collection=_COLLECTION)
        return [chunk - 1 for chunk in found or ()]

    def files(self, directory: Path) -> list[Path]:
        return [directory]


def _blocks(vectors: Any) -> Iterator[VectorBlock]:
    for first in range(0, len(vectors), _BLOCK):
        rows = vectors[first : first + _BLOCK]
        numbers = np.arange(first + 1, first + 1 + len(rows))
        yield VectorBlock(numbers, numbers, numbers, np.full(len(rows), _COLLECTION), rows)


if __name__ == "__main__":
    scan_peers.PEERS["ours"] = Ours
    sys.exit(scan_peers.main())
