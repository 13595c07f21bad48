"""Landlock through bare system calls: a domain that names the paths a process may use, and refuses all TCP.

It does not govern what was opened before, nor stat, chdir, utime and the like on paths outside (landlock(7)).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag
from errno import ENOSYS, EOPNOTSUPP
from pathlib import Path
from stat import S_ISDIR
from typing import Final

# The same numbers on every instruction set.
_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION: Final = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH: Final = 1  # LANDLOCK_RULE_PATH_BENEATH


class Right(IntFlag):
    """``LANDLOCK_ACCESS_FS_*`` (linux/landlock.h)."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13  # ABI 2
    TRUNCATE = 1 << 14  # ABI 3
    IOCTL_DEV = 1 << 15  # ABI 5


READ: Final = Right.READ_FILE | Right.READ_DIR
# No devices, pipes, sockets or links: what lies in a written directory is plain files.
WRITE: Final = (
    READ
    | Right.WRITE_FILE
    | Right.TRUNCATE
    | Right.REMOVE_DIR
    | Right.REMOVE_FILE
    | Right.MAKE_DIR
    | Right.MAKE_REG
    | Right.REFER
)
_OF_FILES: Final = Right.EXECUTE | Right.WRITE_FILE | Right.READ_FILE | Right.TRUNCATE | Right.IOCTL_DEV

_TCP: Final = 0b11  # LANDLOCK_ACCESS_NET_BIND_TCP | LANDLOCK_ACCESS_NET_CONNECT_TCP, ABI 4
_SCOPES: Final = 0b11  # LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | LANDLOCK_SCOPE_SIGNAL, ABI 6


@dataclass(frozen=True, slots=True)
class Grant:
    """``rights`` on a file, or on a directory and all below it.

    ``hold`` keeps a descriptor of the path open. A rule is tied to an inode, and procfs forgets the inodes that nobody
    holds when memory is short, and makes others, which the rule does not know.
    """

    path: Path
    rights: Right
    hold: bool = False


def handled(abi: int) -> Right:
    """Every file-system right that this version of the interface knows; each is refused unless granted."""
    rights = Right(2**13 - 1)
    for since, right in ((2, Right.REFER), (3, Right.TRUNCATE), (5, Right.IOCTL_DEV)):
        if abi >= since:
            rights |= right
    return rights


def version(library: ctypes.CDLL) -> int:
    """The kernel's Landlock ABI, 0 where there is none or it is switched off."""
    found = _call(library, _CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION), missing=0)
    return max(found, 0)


def restrict(library: ctypes.CDLL, abi: int, grants: Iterable[Grant]) -> None:
    """Enter a domain in which only ``grants`` are left of the file system, and no TCP bind or connect.

    Holds for the calling thread and what it starts from then on: call it while there is no other. ``no_new_privs``
    must be set. A path that does not exist is passed over: nothing can then be opened there.

    Raises:
        OSError: the kernel refused (16 nested domains are its limit).
    """
    made = ruleset(library, abi, grants)
    try:
        enter(library, made)
    finally:
        os.close(made)


def ruleset(library: ctypes.CDLL, abi: int, grants: Iterable[Grant]) -> int:
    """The descriptor of a ruleset that leaves only ``grants``, for :func:`enter`, by this process or its forks.

    Raises:
        OSError: the kernel refused.
    """
    known = handled(abi)
    # struct landlock_ruleset_attr: what an older kernel does not know must be zero.
    wanted = struct.pack("=QQQ", known, _TCP if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    made = _call(library, _CREATE_RULESET, wanted, ctypes.c_size_t(len(wanted)), ctypes.c_uint32(0))
    try:
        for grant in grants:
            _allow(library, made, grant, known)
    except BaseException:
        os.close(made)
        raise
    return made


def enter(library: ctypes.CDLL, made: int) -> None:
    """Enter the domain of a :func:`ruleset`. Raises as :func:`restrict`."""
    _call(library, _RESTRICT_SELF, ctypes.c_int(made), ctypes.c_uint32(0))


def _allow(library: ctypes.CDLL, ruleset: int, grant: Grant, known: Right) -> None:
    try:
        descriptor = os.open(grant.path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    try:
        rights = grant.rights & known
        if not S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, descriptor)  # struct landlock_path_beneath_attr, packed
        _call(library, _ADD_RULE, ctypes.c_int(ruleset), _PATH_BENEATH, rule, ctypes.c_uint32(0))
    finally:
        if not grant.hold:
            os.close(descriptor)


def _call(library: ctypes.CDLL, number: int, *arguments: object, missing: int | None = None) -> int:
    result: int = library.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        error = ctypes.get_errno()
        if missing is not None and error in (ENOSYS, EOPNOTSUPP):
            return missing
        raise OSError(error, os.strerror(error))
    return result
