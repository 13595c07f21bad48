"""The system-call filter: which calls are refused, assembled to classic BPF, and the one call that installs it.

The assembly is pure; only :func:`install` speaks to the kernel. It lists what is refused, not what is allowed: the
libraries in these processes are too many, and change too often, for a list of all they call.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from errno import ENOSYS, EPERM
from typing import Final, NamedTuple

# linux/bpf_common.h
LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
RETURN: Final = 0x06  # BPF_RET | BPF_K

# linux/seccomp.h
ALLOW: Final = 0x7FFF0000
ERRNO: Final = 0x00050000
KILL_PROCESS: Final = 0x80000000
_SET_MODE_FILTER: Final = 1
_FLAG_TSYNC: Final = 1

# struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6]
_NUMBER_AT: Final = 0
_MACHINE_AT: Final = 4
_ARGUMENTS_AT: Final = 16

_X32_BIT: Final = 0x40000000
_AF_UNIX: Final = 1
_MSG_FASTOPEN: Final = 0x20000000
# CLONE_NEW(CGROUP, UTS, IPC, USER, PID, NET, NS); CLONE_NEWTIME is out of clone's reach (its bit is the exit signal's).
_CLONE_NAMESPACES: Final = 0x7E020000
_CLONE_THREAD: Final = 0x00010000
_TIOCSTI: Final = 0x5412
_TIOCLINUX: Final = 0x541C
_PR_SET_NO_NEW_PRIVS: Final = 38


class Instruction(NamedTuple):
    """``struct sock_filter``: jumps count instructions from the next one."""

    code: int
    jump_true: int
    jump_false: int
    value: int


@dataclass(frozen=True, slots=True)
class Pointer:
    """Holds where the 64-bit argument is not null."""

    argument: int


@dataclass(frozen=True, slots=True)
class Differs:
    """Holds where the argument's low 32 bits, all that the kernel reads of an ``int``, are another value."""

    argument: int
    value: int


@dataclass(frozen=True, slots=True)
class Equals:
    """Holds where the argument's low 32 bits are this value."""

    argument: int
    value: int


@dataclass(frozen=True, slots=True)
class AnyBit:
    """Holds where one of these bits is set in the argument's low 32."""

    argument: int
    bits: int


@dataclass(frozen=True, slots=True)
class NoBit:
    """Holds where none of these bits is set in the argument's low 32."""

    argument: int
    bits: int


Condition = Pointer | Differs | Equals | AnyBit | NoBit


@dataclass(frozen=True, slots=True)
class Rule:
    """Refuse ``call`` where any condition holds, or always where there is none."""

    call: str
    conditions: tuple[Condition, ...] = ()
    errno: int = EPERM


@dataclass(frozen=True, slots=True, eq=False)
class Machine:
    """An instruction set as seccomp names it, one object of each. ``numbers`` has the calls that rules speak of."""

    audit: int  # AUDIT_ARCH_*, linux/audit.h
    numbers: Mapping[str, int]
    seccomp: int  # the number of seccomp(2)
    x32: bool = False  # numbers from 0x40000000 are a second table of the same calls


def _numbers(*, x86_64: bool) -> dict[str, int]:
    pairs = (line.split() for line in _TABLE.strip().splitlines())
    column = 1 if x86_64 else 2
    return {row[0]: int(row[column]) for row in pairs if row[column] != "-"}


# call, x86-64 (Linux: arch/x86/entry/syscalls/syscall_64.tbl), aarch64 (include/uapi/asm-generic/unistd.h), - for none
_TABLE: Final = """
socket 41 198
socketpair 53 199
connect 42 203
bind 49 200
listen 50 201
accept 43 202
accept4 288 242
sendto 44 206
sendmsg 46 211
sendmmsg 307 269
recvmsg 47 212
recvmmsg 299 243
io_uring_setup 425 425
io_uring_enter 426 426
io_uring_register 427 427
ptrace 101 117
pidfd_getfd 438 438
process_vm_readv 310 270
process_vm_writev 311 271
process_madvise 440 440
kcmp 312 272
userfaultfd 323 282
bpf 321 280
perf_event_open 298 241
fanotify_init 300 262
setns 308 268
unshare 272 97
clone 56 220
clone3 435 435
fork 57 -
vfork 58 -
execve 59 221
execveat 322 281
mount 165 40
umount2 166 39
pivot_root 155 41
chroot 161 51
move_mount 429 429
open_tree 428 428
open_tree_attr 467 467
fsopen 430 430
fsconfig 431 431
fsmount 432 432
fspick 433 433
mount_setattr 442 442
swapon 167 224
swapoff 168 225
keyctl 250 219
add_key 248 217
request_key 249 218
init_module 175 105
finit_module 313 273
delete_module 176 106
kexec_load 246 104
kexec_file_load 320 294
open_by_handle_at 304 265
name_to_handle_at 303 264
mq_open 240 180
mq_unlink 241 181
msgget 68 186
msgsnd 69 189
msgrcv 70 188
msgctl 71 187
semget 64 190
semop 65 193
semctl 66 191
semtimedop 220 192
shmget 29 194
shmat 30 196
shmctl 31 195
ioctl 16 29
acct 163 89
quotactl 179 60
quotactl_fd 443 443
reboot 169 142
sethostname 170 161
setdomainname 171 162
settimeofday 164 170
clock_settime 227 112
syslog 103 116
vhangup 153 58
iopl 172 -
ioperm 173 -
modify_ldt 154 -
uselib 134 -
lookup_dcookie 212 18
mknod 133 -
mknodat 259 33
chown 92 -
lchown 94 -
fchownat 260 54
setxattr 188 5
lsetxattr 189 6
setxattrat 463 463
removexattr 197 14
lremovexattr 198 15
removexattrat 466 466
file_setattr 469 469
"""

X86_64: Final = Machine(audit=0xC000003E, numbers=_numbers(x86_64=True), seccomp=317, x32=True)
AARCH64: Final = Machine(audit=0xC00000B7, numbers=_numbers(x86_64=False), seccomp=277)

# accept and listen stay: the listeners that were opened before are served (asyncio calls listen on them again), and no
# other socket can be had to listen on.
_ALWAYS: Final = """
socket connect bind sendmsg sendmmsg recvmsg recvmmsg
io_uring_setup io_uring_enter io_uring_register
ptrace pidfd_getfd process_vm_readv process_vm_writev process_madvise kcmp
userfaultfd bpf perf_event_open fanotify_init
setns unshare
mount umount2 pivot_root chroot move_mount open_tree open_tree_attr fsopen fsconfig fsmount fspick mount_setattr
swapon swapoff
keyctl add_key request_key
init_module finit_module delete_module kexec_load kexec_file_load
open_by_handle_at name_to_handle_at
mq_open mq_unlink msgget msgsnd msgrcv msgctl semget semop semctl semtimedop shmget shmat shmctl
acct quotactl quotactl_fd reboot sethostname setdomainname settimeofday clock_settime syslog vhangup
iopl ioperm modify_ldt uselib lookup_dcookie
chown lchown fchownat
setxattr lsetxattr setxattrat removexattr lremovexattr removexattrat file_setattr
"""

DAEMON_RULES: Final = (
    *(Rule(call) for call in _ALWAYS.split()),
    # asyncio wakes itself, and children are started again, through Unix socket pairs.
    Rule("socketpair", (Differs(0, _AF_UNIX),)),
    # A stream's send() is sendto without an address. With one it speaks to a stranger, and MSG_FASTOPEN connects.
    Rule("sendto", (Pointer(4), AnyBit(3, _MSG_FASTOPEN))),
    Rule("clone", (AnyBit(0, _CLONE_NAMESPACES),)),
    # clone3 hides its flags in memory, where a filter cannot look: the C library falls back to clone on ENOSYS.
    Rule("clone3", errno=ENOSYS),
    # Typing into the terminal that started us: its shell has a network.
    Rule("ioctl", (Equals(1, _TIOCSTI), Equals(1, _TIOCLINUX))),
)

# What a child that computes never does: start a process, run a file, accept a connection.
CHILD_RULES: Final = (
    *(rule for rule in DAEMON_RULES if rule.call != "clone"),
    Rule("clone", (AnyBit(0, _CLONE_NAMESPACES), NoBit(0, _CLONE_THREAD))),
    *(Rule(call) for call in ("fork", "vfork", "execve", "execveat", "listen", "accept", "accept4")),
)


def machine() -> Machine | None:
    """The running instruction set, or None where no table of system calls is known for it."""
    return {"x86_64": X86_64, "aarch64": AARCH64}.get(platform.machine())


def program(target: Machine, rules: tuple[Rule, ...]) -> tuple[Instruction, ...]:
    """The filter (seccomp(2)): refuse what the rules say, allow the rest.

    A call through another instruction set's table kills the process: its numbers mean something else.
    """
    out = [
        Instruction(LOAD, 0, 0, _MACHINE_AT),
        Instruction(EQUAL, 1, 0, target.audit),
        Instruction(RETURN, 0, 0, KILL_PROCESS),
        Instruction(LOAD, 0, 0, _NUMBER_AT),
    ]
    if target.x32:
        out += [Instruction(AT_LEAST, 0, 1, _X32_BIT), Instruction(RETURN, 0, 0, ERRNO | EPERM)]
    for rule in rules:
        number = target.numbers.get(rule.call)
        if number is None:
            continue
        body = list(_body(rule))
        out += [Instruction(EQUAL, 0, len(body), number), *body]
    return (*out, Instruction(RETURN, 0, 0, ALLOW))


@functools.cache
def encoded(target: Machine, rules: tuple[Rule, ...]) -> bytes:
    """:func:`program` as the kernel reads it; made once, so that a process that forks finds it ready."""
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program(target, rules))


def _body(rule: Rule) -> Iterator[Instruction]:
    refuse = Instruction(RETURN, 0, 0, ERRNO | rule.errno)
    if not rule.conditions:
        yield refuse
        return
    for condition in rule.conditions:
        low = _ARGUMENTS_AT + 8 * condition.argument  # both instruction sets are little-endian
        yield Instruction(LOAD, 0, 0, low)
        match condition:
            case Pointer():
                yield Instruction(EQUAL, 1, 0, 0)
                yield refuse
                yield Instruction(LOAD, 0, 0, low + 4)
                yield Instruction(EQUAL, 1, 0, 0)
            case Differs(value=value):
                yield Instruction(EQUAL, 1, 0, value)
            case Equals(value=value):
                yield Instruction(EQUAL, 0, 1, value)
            case AnyBit(bits=bits):
                yield Instruction(ANY_BIT, 0, 1, bits)
            case NoBit(bits=bits):
                yield Instruction(ANY_BIT, 1, 0, bits)
        yield refuse
    yield Instruction(RETURN, 0, 0, ALLOW)


_INSTRUCTION: Final = struct.Struct("=HBBI")  # struct sock_filter


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def forbid_new_privileges(library: ctypes.CDLL) -> None:
    """``no_new_privs``: no set-user-ID program raises this process again; filters then need no privilege.

    Raises:
        OSError: the kernel does not know it (before Linux 3.5).
    """
    one, zero = ctypes.c_ulong(1), ctypes.c_ulong(0)
    if library.prctl(_PR_SET_NO_NEW_PRIVS, one, zero, zero, zero) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def install(library: ctypes.CDLL, target: Machine, rules: tuple[Rule, ...]) -> None:
    """Put the filter on every thread of this process, for good; children inherit it.

    ``library`` is the C library, loaded with ``use_errno``; ``no_new_privs`` must be set.

    Raises:
        OSError: the kernel refuses filters, or a thread cannot take this one.
    """
    code = encoded(target, rules)
    loaded = _Program(len(code) // _INSTRUCTION.size, code)
    result = library.syscall(
        ctypes.c_long(target.seccomp), _SET_MODE_FILTER, _FLAG_TSYNC, ctypes.byref(loaded)
    )  # fmt: skip
    if result > 0:
        raise OSError(EPERM, f"thread {result} holds a filter of its own and cannot take this one")
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
