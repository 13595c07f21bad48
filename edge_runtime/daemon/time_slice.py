"""A short time slice for the thread that answers: it wakes often, works little, and should not wait for a long turn.

Linux gives the CPU to the eligible thread whose slice ends first (EEVDF), so a short slice means less waiting beside
threads that compute, for the same share of time. It asks for no privilege (sched_setattr(2); since Linux 6.12 for the
ordinary policy, before that without effect).
"""

from __future__ import annotations

import ctypes
import platform
import struct

SLICE = 100_000  # nanoseconds: the least that the kernel takes
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")  # size, policy, flags, nice, priority, runtime, deadline, period
_RESET_ON_FORK = 1  # children compute, and keep the usual slice
_NUMBERS = {"x86_64": (314, 315), "aarch64": (274, 275), "riscv64": (274, 275)}  # sched_setattr, sched_getattr


def shorten() -> bool:
    """Give the calling thread the short slice; whether the kernel has it."""
    numbers = _NUMBERS.get(platform.machine())
    now = _read(numbers[1]) if numbers is not None else None
    if numbers is None or now is None:
        return False
    nice = now[3]
    wanted = _ATTRIBUTES.pack(_ATTRIBUTES.size, 0, _RESET_ON_FORK, nice, 0, SLICE, 0, 0)
    if ctypes.CDLL(None).syscall(numbers[0], 0, ctypes.create_string_buffer(wanted, len(wanted)), 0) != 0:
        return False
    after = _read(numbers[1])
    return after is not None and after[5] == SLICE


def current() -> int:
    """The calling thread's slice in nanoseconds; 0 where the kernel does not tell."""
    numbers = _NUMBERS.get(platform.machine())
    found = _read(numbers[1]) if numbers is not None else None
    return 0 if found is None else int(found[5])


def _read(number: int) -> tuple[int, ...] | None:
    """The thread's attributes where its policy is the ordinary one."""
    buffer = ctypes.create_string_buffer(_ATTRIBUTES.size)
    if ctypes.CDLL(None).syscall(number, 0, buffer, _ATTRIBUTES.size, 0) != 0:
        return None
    found = _ATTRIBUTES.unpack(buffer.raw)
    return found if found[1] == 0 else None
