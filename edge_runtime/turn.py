"""Whose turn it is on the CPU: one lease, shared fairly by the processes of the box that compute.

Two process-shared robust mutexes (pthread_mutexattr_setrobust(3)) in a sealed memfd that ``edged`` makes and its
children inherit. Whoever waits stands in the gate while waiting for the lease, so one that releases and wants again at
once goes behind. A holder that is killed leaves it to the next; one that is stopped is passed by after some seconds.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import mmap
import os
import struct
import sys
import time
from errno import EBUSY, EDEADLK, EOWNERDEAD, ETIMEDOUT
from types import TracebackType
from typing import Any, Final, Self

PATIENCE: Final = 3.0  # seconds; a step of the engine or a batch of the embedder takes a fraction of one
# Beside a holder that stands still: how often one looks in earnest whether it goes on, and for how long.
_RECHECK: Final = 1.0
_GLANCE: Final = 0.05

_SIZE: Final = mmap.PAGESIZE
_GATE: Final = 0  # offsets; pthread_mutex_t has 40 to 48 bytes, and each lock has its own cache lines
_LEASE: Final = 128
_SEATS: Final = 256
_SEAT: Final = struct.Struct("=qq")  # process id, nanoseconds of CPU time
_SEAT_COUNT: Final = 48  # edged, the embedder, and an engine for each model that is loaded
_ALL_SEATS: Final = struct.Struct(f"={2 * _SEAT_COUNT}q")
_NS: Final = 1_000_000_000

# pthread.h and bits/time.h on Linux, the same in glibc and musl.
_PROCESS_SHARED: Final = 1
_ROBUST: Final = 1
_ERRORCHECK: Final = 2
_CLOCK_MONOTONIC: Final = 1


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


@functools.cache
def _library() -> ctypes.CDLL:
    """The C library. ctypes lets other Python threads run during each call."""
    library = ctypes.CDLL(None)
    for name in ("trylock", "unlock", "consistent"):
        getattr(library, f"pthread_mutex_{name}").argtypes = (ctypes.c_void_p,)
    library.pthread_mutex_timedlock.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Timespec))
    if hasattr(library, "pthread_mutex_clocklock"):
        library.pthread_mutex_clocklock.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Timespec))
    return library


def _lock_until(address: int, deadline: float) -> int:
    """Wait for a mutex until ``deadline`` (monotonic seconds); the errno."""
    library = _library()
    if hasattr(library, "pthread_mutex_clocklock"):
        until = _Timespec(int(deadline), int(deadline % 1 * _NS))
        return int(library.pthread_mutex_clocklock(address, _CLOCK_MONOTONIC, ctypes.byref(until)))
    # Only glibc from 2.30 on takes the monotonic clock; elsewhere a clock that jumps makes this wait shorter or longer.
    wall = time.time() + deadline - time.monotonic()
    return int(library.pthread_mutex_timedlock(address, ctypes.byref(_Timespec(int(wall), int(wall % 1 * _NS)))))


def _lives(pid: int) -> bool:
    if not pid:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # the seal forbids all signals to it, this one too
    return True


class Turn:
    """``with turn:`` runs while no other process of the box computes. For one thread of a process, and not nested.

    Beside the lease, each process has a seat with the CPU time that it has used: :meth:`others_cpu` tells the
    governor which load is the box's own.
    """

    def __init__(self, descriptor: int | None, *, patience: float = PATIENCE) -> None:
        self.descriptor = descriptor
        self._patience = patience
        self._held = False
        self.waited = False  # whether somebody else was computing when the last turn was asked for
        self._doubted = 0.0  # when a wait was given up; 0: the lease goes round
        self._told = False
        if descriptor is None:
            return
        self._page = mmap.mmap(descriptor, _SIZE)
        # Keeps the page's buffer exported: the addresses stay good for as long as this object lives.
        self._anchor: Any = ctypes.c_char.from_buffer(self._page)
        start = ctypes.addressof(self._anchor)
        self._gate, self._lease = start + _GATE, start + _LEASE
        library = _library()
        self._try, self._unlock = library.pthread_mutex_trylock, library.pthread_mutex_unlock

    @classmethod
    def create(cls) -> Turn:
        """A new lease, in a memfd that can change its size no more. Its descriptor is given to children.

        Raises:
            OSError: no memfd, or no robust mutexes, on this system.
        """
        descriptor = os.memfd_create("turn", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, _SIZE)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        turn = cls(descriptor)
        library = _library()
        attributes = ctypes.create_string_buffer(64)
        library.pthread_mutexattr_init(attributes)
        for setting, value in (("pshared", _PROCESS_SHARED), ("robust", _ROBUST), ("type", _ERRORCHECK)):
            error = getattr(library, f"pthread_mutexattr_set{setting}")(attributes, value)
            if error:
                raise OSError(error, os.strerror(error))
        for address in (turn._gate, turn._lease):
            error = library.pthread_mutex_init(ctypes.c_void_p(address), attributes)
            if error:
                raise OSError(error, os.strerror(error))
        turn._sit()
        return turn

    @classmethod
    def at(cls, descriptor: int, *, patience: float = PATIENCE) -> Turn:
        """The lease in an inherited descriptor; ``patience``: seconds to wait for one that holds it."""
        turn = cls(descriptor, patience=patience)
        turn._sit()
        return turn

    @classmethod
    def free(cls) -> Turn:
        """For a process that computes alone: every turn is its own."""
        return cls(None)

    def __enter__(self) -> Self:
        if self.descriptor is not None:
            self._held = self._acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.descriptor is None:
            return
        self.mark()
        if self._held:
            self._held = False
            self._unlock(self._lease)

    @property
    def held(self) -> bool:
        """Whether the lease is really ours; false after a wait that was given up."""
        return self._held

    def mark(self) -> None:
        """Write down how much CPU time this process has used; leaving a turn does it too."""
        if self.descriptor is not None:
            _SEAT.pack_into(self._page, self._seat, os.getpid(), time.process_time_ns())

    def others_cpu(self) -> float:
        """CPU seconds of the other processes that share the lease, up to their last mark.

        Only differences mean something, and those only upwards: a new process in an old seat begins at 0.
        """
        if self.descriptor is None:
            return 0.0
        seats = _ALL_SEATS.unpack_from(self._page, _SEATS)
        _, own = _SEAT.unpack_from(self._page, self._seat)
        return float(sum(seats[1::2]) - own) / _NS

    def _sit(self) -> None:
        with_lease = self._acquire()
        seats = [_SEATS + _SEAT.size * number for number in range(_SEAT_COUNT)]
        # Where all are taken, two share the last: the governor then sees neighbours that are none, and gives way.
        self._seat = next((seat for seat in seats if not _lives(_SEAT.unpack_from(self._page, seat)[0])), seats[-1])
        self.mark()
        if with_lease:
            self._unlock(self._lease)

    def _acquire(self) -> bool:
        """Whether the lease is ours now."""
        now = time.monotonic()
        self.waited = False
        wait = self._patience
        if self._doubted:
            wait = _GLANCE if now - self._doubted > _RECHECK else 0.0
        if not self._take(self._gate, now + wait):
            return self._give_up(wait)
        taken = self._take(self._lease, now + wait)
        self._unlock(self._gate)
        if not taken:
            return self._give_up(wait)
        self._doubted = 0.0
        return True

    def _take(self, address: int, deadline: float) -> bool:
        """Lock one mutex, or give up at ``deadline`` (monotonic seconds)."""
        error = self._try(address)
        if error == EBUSY:
            self.waited = True
            error = _lock_until(address, deadline)
        if error == EOWNERDEAD:
            # Its holder was killed. What it guards is a right to compute, which nobody can leave half done.
            error = _library().pthread_mutex_consistent(address)
        if error == ETIMEDOUT:
            return False
        if error == EDEADLK:
            raise RuntimeError("this thread holds the turn already; leave it before entering again")
        if error:
            raise OSError(error, os.strerror(error))
        return True

    def _give_up(self, waited: float) -> bool:
        """Go on without: the holder stands still, and until it has let go it is not waited for again."""
        if waited:
            self._doubted = time.monotonic()
        if not self._told:
            self._told = True
            sys.stderr.write(
                f"turn: another process of the box has held the CPU for {self._patience:g} s; going on beside it. "
                "Is one of them stopped? edge status names them\n"
            )
        return False
