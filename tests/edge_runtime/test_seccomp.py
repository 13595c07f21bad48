"""The filter's program, run by a small simulator of the kernel's BPF machine over many system calls and arguments."""

from __future__ import annotations

import struct
from errno import ENOSYS, EPERM

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.seccomp import (
    AARCH64,
    ALLOW,
    CHILD_RULES,
    DAEMON_RULES,
    ERRNO,
    KILL_PROCESS,
    X86_64,
    AnyBit,
    Differs,
    Equals,
    Instruction,
    Machine,
    NoBit,
    Pointer,
    Rule,
    program,
)

REFUSE = ERRNO | EPERM
I386 = 0x40000003
ARM = 0x40000028
AF_UNIX, AF_INET = 1, 2
MSG_DONTWAIT, MSG_FASTOPEN = 0x40, 0x20000000
CLONE_THREAD_FLAGS = 0x3D0F00  # what pthread_create passes
VFORK_FLAGS = 0x4111  # what posix_spawn passes: CLONE_VM | CLONE_VFORK | SIGCHLD
NEW_NAMESPACES = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
# Calls that interpreters, libraries and servers live by, with their numbers on x86-64 and aarch64.
NEEDED = {
    "read": (0, 63),
    "write": (1, 64),
    "openat": (257, 56),
    "close": (3, 57),
    "mmap": (9, 222),
    "futex": (202, 98),
    "recvfrom": (45, 207),
    "getsockopt": (55, 209),
    "shutdown": (48, 210),
    "epoll_pwait": (281, 22),
    "pidfd_open": (434, 434),
    "sched_setaffinity": (203, 122),
    "prctl": (157, 167),
    "seccomp": (317, 277),
    "landlock_restrict_self": (446, 446),
    "rt_sigreturn": (15, 139),
    "exit_group": (231, 94),
    "fchmod": (91, 52),
}


def simulate(code: tuple[Instruction, ...], number: int, machine: int, arguments: tuple[int, ...]) -> int:
    """What the kernel's interpreter returns (net/core/filter.c, as far as seccomp allows instructions)."""
    data = struct.pack("<iIQ6Q", number, machine, 0x7F0000001000, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    accumulator, at = 0, 0
    for _ in range(len(code)):
        instruction = code[at]
        at += 1
        match instruction.code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, instruction.value)
            case 0x15:
                at += instruction.jump_true if accumulator == instruction.value else instruction.jump_false
            case 0x35:
                at += instruction.jump_true if accumulator >= instruction.value else instruction.jump_false
            case 0x45:
                at += instruction.jump_true if accumulator & instruction.value else instruction.jump_false
            case 0x06:
                return instruction.value
            case unknown:
                raise AssertionError(f"the kernel knows no instruction {unknown:#x} in a filter")
    raise AssertionError("the program ran off its end")


PROGRAMS = {
    (machine.audit, rules is CHILD_RULES): program(machine, rules)
    for machine in (X86_64, AARCH64)
    for rules in (DAEMON_RULES, CHILD_RULES)
}


def verdict(machine: Machine, call: str | int, *arguments: int, child: bool = False) -> int:
    number = machine.numbers[call] if isinstance(call, str) else call
    return simulate(PROGRAMS[machine.audit, child], number, machine.audit, arguments)


machines = pytest.mark.parametrize("machine", [X86_64, AARCH64], ids=["x86-64", "aarch64"])
words = st.integers(0, 2**64 - 1)
always = sorted({rule.call for rule in DAEMON_RULES if not rule.conditions} - {"clone3"})


@machines
@given(data=st.data())
def test_a_refused_call_is_refused_whatever_its_arguments(machine: Machine, data: st.DataObject) -> None:
    call = data.draw(st.sampled_from([name for name in always if name in machine.numbers]))
    arguments = data.draw(st.tuples(words, words, words, words, words, words))
    for child in (False, True):
        assert verdict(machine, call, *arguments, child=child) == REFUSE


@machines
@given(data=st.data())
def test_a_call_that_no_rule_names_is_allowed(machine: Machine, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, 600).filter(lambda n: n not in machine.numbers.values()))
    arguments = data.draw(st.tuples(words, words, words, words, words, words))
    assert verdict(machine, number, *arguments) == ALLOW


@machines
@pytest.mark.parametrize("call", NEEDED)
def test_calls_that_every_process_needs_are_allowed(machine: Machine, call: str) -> None:
    number = NEEDED[call][machine is AARCH64]
    assert verdict(machine, number) == verdict(machine, number, child=True) == ALLOW


@machines
@given(number=st.integers(-(2**31), 2**31 - 1), other=st.sampled_from([I386, ARM, 0x40000004, 0, 0xC00000F3]))
def test_another_instruction_sets_table_kills_the_process(machine: Machine, number: int, other: int) -> None:
    assert simulate(PROGRAMS[machine.audit, False], number, other, ()) == KILL_PROCESS


@given(number=st.integers(0x40000000, 2**31 - 1) | st.integers(-(2**31), -1))
def test_x32_numbers_are_refused_on_x86_64(number: int) -> None:
    assert verdict(X86_64, number) == REFUSE


@machines
@given(high=st.integers(0, 2**32 - 1), family=st.integers(0, 2**32 - 1))
def test_socketpair_is_refused_unless_it_is_of_unix_sockets(machine: Machine, high: int, family: int) -> None:
    # The kernel reads an int: what stands in the upper half is of no account to it.
    assert verdict(machine, "socketpair", high << 32 | AF_UNIX, 1, 0, 4096) == ALLOW
    if family != AF_UNIX:
        assert verdict(machine, "socketpair", high << 32 | family, 1, 0, 4096) == REFUSE


@machines
@given(address=st.integers(1, 2**64 - 1), flags=st.integers(0, 2**32 - 1))
def test_sendto_is_refused_with_an_address_and_allowed_without(machine: Machine, address: int, flags: int) -> None:
    assert verdict(machine, "sendto", 3, 4096, 10, flags, address, 16) == REFUSE
    assert verdict(machine, "sendto", 3, 4096, 10, flags & ~MSG_FASTOPEN, 0, 0) == ALLOW


@machines
def test_sendto_with_an_address_in_the_upper_half_only_is_refused(machine: Machine) -> None:
    assert verdict(machine, "sendto", 3, 4096, 10, 0, 1 << 40, 16) == REFUSE


@machines
def test_sendto_with_fastopen_is_refused_even_without_an_address(machine: Machine) -> None:
    assert verdict(machine, "sendto", 3, 4096, 10, MSG_FASTOPEN | MSG_DONTWAIT, 0, 0) == REFUSE


@machines
def test_clone_makes_threads_and_processes_but_no_namespaces(machine: Machine) -> None:
    assert verdict(machine, "clone", CLONE_THREAD_FLAGS) == ALLOW
    assert verdict(machine, "clone", VFORK_FLAGS) == ALLOW
    for flag in NEW_NAMESPACES:
        assert verdict(machine, "clone", flag | 17) == REFUSE
        assert verdict(machine, "clone", flag | 1 << 50 | CLONE_THREAD_FLAGS, child=True) == REFUSE


@machines
def test_a_child_makes_threads_but_no_processes(machine: Machine) -> None:
    assert verdict(machine, "clone", CLONE_THREAD_FLAGS, child=True) == ALLOW
    assert verdict(machine, "clone", VFORK_FLAGS, child=True) == REFUSE
    assert verdict(machine, "clone", 17, child=True) == REFUSE
    for call in ("execve", "execveat", "accept", "accept4", "listen"):
        assert verdict(machine, call, child=True) == REFUSE
        assert verdict(machine, call) == ALLOW


def test_a_child_cannot_fork_the_old_ways_on_x86_64() -> None:
    assert {verdict(X86_64, call, child=True) for call in ("fork", "vfork")} == {REFUSE}
    assert {verdict(X86_64, call) for call in ("fork", "vfork")} == {ALLOW}


@machines
@given(arguments=st.tuples(words, words))
def test_clone3_is_as_if_the_kernel_did_not_know_it(machine: Machine, arguments: tuple[int, int]) -> None:
    for child in (False, True):
        assert verdict(machine, "clone3", *arguments, child=child) == ERRNO | ENOSYS


@machines
@given(high=st.integers(0, 2**32 - 1))
def test_ioctl_is_allowed_except_typing_into_a_terminal(machine: Machine, high: int) -> None:
    assert verdict(machine, "ioctl", 0, high << 32 | 0x5412, 4096) == REFUSE  # TIOCSTI
    assert verdict(machine, "ioctl", 0, 0x541C, 4096) == REFUSE  # TIOCLINUX
    assert verdict(machine, "ioctl", 0, 0x5401, 4096) == ALLOW  # TCGETS


conditions = st.one_of(
    st.builds(Pointer, st.integers(0, 5)),
    st.builds(Differs, st.integers(0, 5), st.integers(0, 2**32 - 1)),
    st.builds(Equals, st.integers(0, 5), st.integers(0, 2**32 - 1)),
    st.builds(AnyBit, st.integers(0, 5), st.integers(0, 2**32 - 1)),
    st.builds(NoBit, st.integers(0, 5), st.integers(0, 2**32 - 1)),
)
Condition = Pointer | Differs | Equals | AnyBit | NoBit


def holds(condition: Condition, arguments: tuple[int, ...]) -> bool:
    whole = arguments[condition.argument]
    low = whole & 0xFFFFFFFF
    match condition:
        case Pointer():
            return whole != 0
        case Differs(value=value):
            return low != value
        case Equals(value=value):
            return low == value
        case AnyBit(bits=bits):
            return low & bits != 0
        case NoBit(bits=bits):
            return low & bits == 0


@given(data=st.data())
def test_any_rules_compile_to_a_program_that_does_what_they_say(data: st.DataObject) -> None:
    calls = ("socket", "sendto", "ioctl", "clone")
    rules = tuple(
        Rule(call, tuple(data.draw(st.lists(conditions, max_size=4))), data.draw(st.integers(1, 133))) for call in calls
    )
    # Small and edge values, so that conditions often hold.
    values = st.one_of(words, st.sampled_from([0, 1, 2**32, 2**32 - 1, 2**63]))
    arguments = data.draw(st.tuples(values, values, values, values, values, values))
    machine = data.draw(st.sampled_from([X86_64, AARCH64]))
    rule = data.draw(st.sampled_from(rules))
    refused = not rule.conditions or any(holds(condition, arguments) for condition in rule.conditions)
    found = simulate(program(machine, rules), machine.numbers[rule.call], machine.audit, arguments)
    assert found == (ERRNO | rule.errno if refused else ALLOW)


@machines
def test_every_call_that_a_rule_names_has_a_number(machine: Machine) -> None:
    only_x86 = {"fork", "vfork", "chown", "lchown", "iopl", "ioperm", "modify_ldt", "uselib"}
    named = {rule.call for rule in (*DAEMON_RULES, *CHILD_RULES)}
    assert named - machine.numbers.keys() == (only_x86 if machine is AARCH64 else set())
    assert len(set(machine.numbers.values())) == len(machine.numbers)


@machines
def test_the_programs_fit_the_kernels_limits(machine: Machine) -> None:
    for rules in (DAEMON_RULES, CHILD_RULES):
        code = program(machine, rules)
        assert len(code) <= 4096  # BPF_MAXINSNS
        assert all(0 <= jump < 256 for each in code for jump in (each.jump_true, each.jump_false))


def test_numbers_are_those_of_the_kernels_tables() -> None:
    # From the manual page syscalls(2) and the tables it names; a wrong number would leave the door open.
    expected = {
        "socket": (41, 198),
        "connect": (42, 203),
        "bind": (49, 200),
        "sendto": (44, 206),
        "sendmsg": (46, 211),
        "recvmsg": (47, 212),
        "recvmmsg": (299, 243),
        "sendmmsg": (307, 269),
        "socketpair": (53, 199),
        "clone": (56, 220),
        "clone3": (435, 435),
        "ptrace": (101, 117),
        "unshare": (272, 97),
        "setns": (308, 268),
        "process_vm_readv": (310, 270),
        "pidfd_getfd": (438, 438),
        "io_uring_setup": (425, 425),
        "bpf": (321, 280),
        "keyctl": (250, 219),
        "open_by_handle_at": (304, 265),
        "ioctl": (16, 29),
        "shmget": (29, 194),
        "mount": (165, 40),
        "execve": (59, 221),
        "accept4": (288, 242),
    }
    assert {call: (X86_64.numbers[call], AARCH64.numbers[call]) for call in expected} == expected
