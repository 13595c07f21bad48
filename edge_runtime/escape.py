"""Every way out of the seal that we know, each a small function that tries it from inside the calling process.

The attempts do no harm where they succeed: they speak to this machine's loopback only, change nothing that they do not
put back, and end by themselves. They show that a route is closed; that no other exists, they cannot show.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from errno import EACCES, EAFNOSUPPORT, ENOSYS, EPERM, EPROTONOSUPPORT, EROFS, ESOCKTNOSUPPORT, errorcode
from typing import Final

from edge_runtime import seccomp

_REFUSED: Final = frozenset({EPERM, EACCES, EROFS})
_ABSENT: Final = frozenset({ENOSYS, EAFNOSUPPORT, EPROTONOSUPPORT, ESOCKTNOSUPPORT})
_LOOPBACK: Final = ("127.0.0.1", 9)  # the discard port
_SECONDS: Final = 0.2  # for a connection
_SPAWN_SECONDS: Final = 20.0  # for a child process
_NOBODY: Final = "\0edge-runtime-nobody-listens-here"
_QUERY: Final = bytes.fromhex("000100000001000000000000 04 65646765 07 696e76616c6964 00 0001 0001")  # edge.invalid, A

_CLONE_FS: Final = 0x200
_CLONE_NEWUSER: Final = 0x10000000
_PTRACE_PEEKDATA: Final = 2
_MSG_FASTOPEN: Final = 0x20000000
_TIOCSTI: Final = 0x5412
_X32: Final = 0x40000000
_IPC_PRIVATE: Final = 0
_I386_SOCKET: Final = 359
# mov eax, edi; push rbx; mov ebx, esi; mov ecx, edx; xor edx, edx; int 0x80; pop rbx; ret
_INT80: Final = bytes.fromhex("89f8 53 89f3 89d1 31d2 cd80 5b c3")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way out that was tried. ``refused`` is true where nothing got through; ``detail`` says what came of it."""

    route: str
    refused: bool
    detail: str


def attempts(*, listener: int | None = None) -> list[Attempt]:
    """Try every route, bounded in time, in this process and in children of it.

    ``listener`` is the descriptor of a TCP listener that was opened before sealing: its reuse is tried too, in a way
    that leaves it listening.
    """
    tried = [try_route(route, attempt) for route, attempt in ROUTES.items()]
    if seccomp.machine() is seccomp.X86_64:
        tried += [try_route(route, attempt) for route, attempt in X86_64_ROUTES.items()]
    if listener is not None:
        tried.append(try_route("TCP listener connected elsewhere", lambda: _reuse(listener)))
        tried.append(try_route("TCP listener with MSG_FASTOPEN", lambda: _fast_open(listener)))
    return tried


def try_route(route: str, attempt: Callable[[], str]) -> Attempt:
    try:
        return Attempt(route, refused=False, detail=attempt())
    except subprocess.TimeoutExpired:
        return Attempt(route, refused=False, detail="the child process did not end")
    except OSError as error:
        said = f"{errorcode.get(error.errno, error.errno)}: {error.strerror}" if error.errno else str(error)
        if error.errno in _REFUSED:
            return Attempt(route, refused=True, detail=said)
        if error.errno in _ABSENT:
            return Attempt(route, refused=True, detail=f"{said} (there is no such call or family)")
        return Attempt(route, refused=False, detail=f"{said}: the call went through to its object")


# ---- sockets -------------------------------------------------------------------------------------------------------


def _connect(family: int, kind: int, address: object) -> str:
    with socket.socket(family, kind) as opened:
        opened.settimeout(_SECONDS)
        opened.connect(address)  # type: ignore[arg-type]
    return f"connected to {address!r}"


def _open(family: int, kind: int, protocol: int = 0) -> str:
    with socket.socket(family, kind, protocol):
        return "a socket was opened"


def _udp() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.sendto(b"edge", _LOOPBACK)
    return "a datagram was sent to the loopback"


def _dns() -> str:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            opened.sendto(_QUERY, ("127.0.0.1", 53))
    except PermissionError as error:
        # No socket of this process can carry a query, so the resolver itself may be asked: it may hold another way.
        try:
            found = socket.getaddrinfo("edge.invalid", 53)
        except socket.gaierror as unresolved:
            raise PermissionError(
                EPERM, f"no query can be sent, and the resolver says: {unresolved.strerror}"
            ) from error
        return f"the resolver answered {found!r}"
    return "a query was sent to the loopback"


def _pair_elsewhere() -> str:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        left.connect(_NOBODY)
    return "a socket pair's end was connected to another name"


def _pair_addressed() -> str:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        left.sendto(b"edge", _NOBODY)
    return "a socket pair's end sent to another name"


def _receive_descriptor() -> str:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"x")
        right.recvmsg(1, socket.CMSG_SPACE(4))
    return "a message that may carry descriptors was received"


def _send_descriptor() -> str:
    left, right = socket.socketpair()
    with left, right:
        left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, left.fileno().to_bytes(4, sys.byteorder))])
    return "a descriptor was sent"


def _reuse(listener: int) -> str:
    # A listener refuses to connect before anything else is looked at, and stays what it is. Only where the filter
    # has refused already is the second form tried, which would end the listening.
    library = ctypes.CDLL(None, use_errno=True)
    for address in (b"\x02\x00\x00\x09\x7f\x00\x00\x01" + bytes(8), bytes(16)):  # 127.0.0.1:9; AF_UNSPEC: disconnect
        try:
            _checked(library.connect(listener, address, 16))
        except PermissionError as error:
            refusal = error
        else:
            return "the listener was turned into a client"
    raise refusal


def _fast_open(listener: int) -> str:
    duplicate = socket.socket(fileno=os.dup(listener))
    with duplicate:
        duplicate.sendto(b"edge", _MSG_FASTOPEN | socket.MSG_DONTWAIT, _LOOPBACK)
    return "the listener sent to an address"


# ---- system calls --------------------------------------------------------------------------------------------------


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _call(name: str, *arguments: object, offset: int = 0) -> int:
    machine = seccomp.machine()
    if machine is None or name not in machine.numbers:
        raise OSError(ENOSYS, os.strerror(ENOSYS))
    library = ctypes.CDLL(None, use_errno=True)
    return _checked(library.syscall(ctypes.c_long(machine.numbers[name] + offset), *arguments))


def _raw(name: str, *arguments: object) -> Callable[[], str]:
    def attempt() -> str:
        return f"{name} returned {_call(name, *arguments)}"

    return attempt


def _closing(name: str, *arguments: object, offset: int = 0) -> Callable[[], str]:
    def attempt() -> str:
        os.close(_call(name, *arguments, offset=offset))
        return f"{name} gave a descriptor"

    return attempt


def _stranger() -> int:
    """A process that is not ours to reach: the parent. Raises OSError where it is outside this PID namespace."""
    parent = os.getppid()
    if parent == 0:
        raise OSError(ENOSYS, "no process but our own is in sight")
    return parent


def _take_descriptor() -> str:
    process = os.pidfd_open(_stranger())
    try:
        os.close(_call("pidfd_getfd", process, 0, 0))
    finally:
        os.close(process)
    return "a descriptor was taken from the parent"


def _trace() -> str:
    # A request that needs an attached process: it shows whether the call is there, and attaches to nothing.
    return f"ptrace returned {_call('ptrace', _PTRACE_PEEKDATA, _stranger(), None, None)}"


def _read_memory() -> str:
    return f"process_vm_readv returned {_call('process_vm_readv', _stranger(), None, 0, None, 0, 0)}"


def _type_into_terminal() -> str:
    # Down a pipe it reaches no terminal, whatever the filter says.
    reader, writer = os.pipe()
    try:
        _call("ioctl", reader, ctypes.c_ulong(_TIOCSTI), b"#")
    finally:
        os.close(reader)
        os.close(writer)
    return "a character was typed"


# ---- processes and files -------------------------------------------------------------------------------------------


def _run(*arguments: str) -> int:
    finished = subprocess.run(
        [sys.executable, "-P", "-m", __name__, *arguments],
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_SPAWN_SECONDS,
    )
    return finished.returncode


def _child() -> str:
    code = _run("socket")
    if code == EPERM:
        raise PermissionError(EPERM, "the child process was refused a socket")
    return f"a child process opened a socket (exit code {code})"


def _child_int80() -> str:
    code = _run("int80")
    if code == -signal.SIGSYS:
        raise PermissionError(EPERM, "the kernel killed the process that tried")
    if code == -signal.SIGSEGV:
        raise OSError(ENOSYS, "this kernel knows no 32-bit system calls")
    return f"a 32-bit system call opened a socket (exit code {code})"


def _execute() -> str:
    subprocess.run(["/bin/sh", "-c", ":"], check=False, stdin=subprocess.DEVNULL, timeout=_SPAWN_SECONDS)
    return "/bin/sh was run"


def _read() -> str:
    with open("/etc/passwd", "rb") as file:  # noqa: PTH123 (what is tried is open itself)
        return f"/etc/passwd was read ({len(file.read())} bytes)"


def _write() -> str:
    path = f"/tmp/edge-runtime-escape-{os.getpid()}"  # noqa: S108 (a place outside that any process may write)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    os.unlink(path)  # noqa: PTH108
    return f"{path} was written"


def _list_descriptors() -> str:
    return f"the parent has {len(os.listdir(f'/proc/{_stranger()}/fd'))} descriptors"  # noqa: PTH208


def _signal() -> str:
    os.kill(_stranger(), 0)
    return "the parent can be sent signals"


ROUTES: Final[dict[str, Callable[[], str]]] = {
    "TCP over IPv4": lambda: _connect(socket.AF_INET, socket.SOCK_STREAM, _LOOPBACK),
    "TCP over IPv6": lambda: _connect(socket.AF_INET6, socket.SOCK_STREAM, ("::1", 9)),
    "UDP": _udp,
    "DNS": _dns,
    "raw IP socket": lambda: _open(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "packet socket": lambda: _open(socket.AF_PACKET, socket.SOCK_RAW),
    "netlink socket": lambda: _open(socket.AF_NETLINK, socket.SOCK_RAW),
    "vsock": lambda: _connect(socket.AF_VSOCK, socket.SOCK_STREAM, (1, 9)),
    "Unix socket by path": lambda: _connect(socket.AF_UNIX, socket.SOCK_STREAM, "/run/edge-runtime-nobody"),
    "Unix socket by abstract name": lambda: _connect(socket.AF_UNIX, socket.SOCK_STREAM, _NOBODY),
    "socket pair connected elsewhere": _pair_elsewhere,
    "socket pair sending elsewhere": _pair_addressed,
    "descriptor handed in": _receive_descriptor,
    "descriptor handed out": _send_descriptor,
    "socket by ctypes": _closing("socket", socket.AF_INET, socket.SOCK_STREAM, 0),
    "io_uring": _closing("io_uring_setup", 1, ctypes.create_string_buffer(120)),
    "ptrace": _trace,
    "pidfd_getfd": _take_descriptor,
    "memory of another process": _read_memory,
    "descriptors of another process": _list_descriptors,
    "signal to another process": _signal,
    "namespace by unshare": _raw("unshare", 0),
    "namespace by setns": _raw("setns", -1, 0),
    # Flags that exclude each other: nothing is started even where the filter lets the call through.
    "namespace by clone": _raw("clone", ctypes.c_ulong(_CLONE_NEWUSER | _CLONE_FS), None, None, None, None),
    "namespace by clone3": _raw("clone3", None, 0),
    "mount": _raw("mount", None, b"/nonexistent", None, ctypes.c_ulong(0), None),
    "file handle": _raw("open_by_handle_at", -1, None, 0),
    "bpf": _raw("bpf", -1, None, 0),
    "kernel keyring": _raw("keyctl", -1, 0, 0, 0, 0),
    "shared memory segment": _raw("shmget", _IPC_PRIVATE, 0, 0),
    "typing into the terminal": _type_into_terminal,
    "reading a file outside": _read,
    "writing a file outside": _write,
    "running a file outside": _execute,
    "child process": _child,
}

X86_64_ROUTES: Final[dict[str, Callable[[], str]]] = {
    "x32 system call": _closing("socket", socket.AF_INET, socket.SOCK_STREAM, 0, offset=_X32),
    "32-bit system call": _child_int80,
}


def _int80() -> int:
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(_INT80)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    signature = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int)
    result: int = signature(address)(_I386_SOCKET, socket.AF_INET, socket.SOCK_STREAM)
    return result


def main(what: str) -> int:
    """What the child processes of the attempts do: exit 0 where a socket was opened, else with the error's number."""
    if what == "int80":
        return max(0, -_int80())
    try:
        _open(socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        return error.errno or 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
