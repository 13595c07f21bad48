"""Keeps the coarse copy of the index's vectors at the database's epoch; one that is behind is built anew."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.daemon import logs
from edge_runtime.errors import EdgeError

if TYPE_CHECKING:
    from edge_runtime.daemon.library import Library
    from edge_runtime.knowledge.index import Index

LOOK_SECONDS = 1.0
_AGAIN_SECONDS = 600.0  # after it failed: the disk will not be larger in a moment
_LINEAGE = "lineage"  # the number that database and copy were given together when they were opened last
_NONE = 2**53  # no database has it


async def keep(library: Library, directory: Path, *, seconds: float = LOOK_SECONDS) -> None:
    """Goes on until it is cancelled. Searches take the exact way for as long as the copy is not ready."""
    behind = 0
    while True:
        try:
            index = (await library.opened()).index
            behind = await library.finish(asyncio.to_thread(look, index, directory, behind))
        except EdgeError:
            behind = 0  # it is not open, or broken: the status says so
        trouble = index.coarse.trouble if behind and index.coarse is not None else ""
        if trouble:
            logs.warn("scan.failed", reason=trouble)
        await asyncio.sleep(_AGAIN_SECONDS if trouble else seconds)


def look(index: Index, directory: Path, behind: int) -> int:
    """Build a copy that is still behind at the second look; how often in a row it was found so.

    An addition is between database and copy only for a moment.
    """
    if index.coarse is None:
        attach(index, directory)
    elif index.scanned():
        return 0
    elif behind == 0:
        return 1
    coarse = index.coarse
    if coarse is None or index.scanned():
        return 0
    with index.vectors() as (epoch, blocks):
        coarse.rebuild(blocks, epoch)
    logs.info("scan.built", epoch=coarse.epoch, rows=coarse.rows, bytes=coarse.bytes)
    return behind + 1


def attach(index: Index, directory: Path) -> None:
    """Give the index the copy below ``directory``, before anything is added to it.

    Epochs of a restored or replaced database may be those of another history: the lineage tells them apart.
    """
    from edge_runtime.knowledge.coarse import Coarse  # noqa: PLC0415  (with the index)

    before, after = int(index.setting(_LINEAGE, 0)), secrets.randbelow(2**52) + 1
    coarse = Coarse.open(directory, index.width, lineage=before or _NONE, epoch=index.stats().epoch)
    index.keep_settings({_LINEAGE: after})
    coarse.renew(after)
    index.coarse = coarse
