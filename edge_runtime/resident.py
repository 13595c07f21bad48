"""How much memory this process takes, as far as a sealed one can tell.

``edged`` reads its proportional set size (proc(5), smaps_rollup). The seal that its children inherit leaves them no
file of their own in ``/proc``: for those it is bounded from above by what was resident at most (getrusage(2)) and by
what the allocator holds (mallinfo2(3)) beside the whole of its model's file. It counts pages which processes share in
each of them, and of the allocator's what is not touched: more than what it does not know of, such as thread stacks.
"""

from __future__ import annotations

import ctypes
import functools
import resource
from pathlib import Path
from typing import Any

_ROLLUP = Path("/proc/self/smaps_rollup")


class _Heap(ctypes.Structure):
    """``struct mallinfo2``, glibc from 2.33 on."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "top",
        )
    )


def proportional_bytes(rollup: Path = _ROLLUP) -> int | None:
    """This process's PSS; None where the kernel or the seal does not give it."""
    try:
        lines = rollup.read_text("ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), None)


@functools.cache
def _mallinfo() -> Any:
    function = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if function is not None:
        function.restype = _Heap
    return function


def _heap_bytes() -> int:
    """What the allocator took from the system; 0 where it does not say."""
    function = _mallinfo()
    if function is None:
        return 0
    heap = function()
    return int(heap.arena + heap.hblkhd)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Resident:
    """Made before a model is loaded; :meth:`settle` once it is, and :meth:`bytes` from then on."""

    def __init__(self, rollup: Path = _ROLLUP) -> None:
        self._rollup = rollup
        self._base, self._heap = _peak_bytes(), _heap_bytes()

    def settle(self, mapped: int) -> None:
        """The model is loaded, with ``mapped`` bytes of files. The peak may be one of loading, which is over."""
        heap = _heap_bytes()
        self._base = min(_peak_bytes(), self._base + heap - self._heap + mapped)
        self._heap = heap

    def bytes(self) -> int:
        exact = proportional_bytes(self._rollup)
        if exact is not None:
            return exact
        return max(0, min(_peak_bytes(), self._base + _heap_bytes() - self._heap))
