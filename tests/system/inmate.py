"""A process that seals itself (or not), starts native threads, and then tries what it is asked to: a JSON line each.

Started by test_seal.py as a file of its own; what is open before the seal is opened here.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_runtime import seal

options: dict[str, Any] = json.loads(sys.argv[1])
control = socket.socket(fileno=options["control"])
listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(options["listeners"])]
reading = tuple(Path(path) for path in options["read"])
writing = tuple(Path(path) for path in options["write"])
access = seal.Access(read=(*reading, Path(__file__).parent), write=writing)
match options["seal"]:
    case "daemon":
        seal.seal(access)
    case "child":
        seal.seal_child(access)

# From here on everything native may start its threads.
import contextlib  # noqa: E402
import ctypes  # noqa: E402
import errno  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import threading  # noqa: E402

from edge_runtime import escape, seccomp  # noqa: E402

libc = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE = 0x4206
OUT = b"out"


def checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def call(name: str, *arguments: object) -> int:
    machine = seccomp.machine()
    assert machine is not None
    return checked(libc.syscall(ctypes.c_long(machine.numbers[name]), *arguments))


def field(number: int, value: bytes | int) -> bytes:
    """One protobuf field of less than 128 bytes."""
    return bytes([number << 3, value]) if isinstance(value, int) else bytes([number << 3 | 2, len(value)]) + value


def identity_model() -> bytes:
    """An ONNX model with one node, so that ONNX Runtime has something to start its threads for."""
    kind = field(1, field(1, 1) + field(2, field(1, field(1, 1))))  # a tensor of float32 with one dimension of one
    node = field(1, b"x") + field(2, b"y") + field(4, b"Identity")
    values = field(11, field(1, b"x") + field(2, kind)) + field(12, field(1, b"y") + field(2, kind))
    return field(1, 8) + field(7, field(1, node) + field(2, b"g") + values) + field(8, field(2, 13))


def start_native_threads() -> object:
    import numpy as np
    import onnxruntime

    product = np.ones((600, 600)) @ np.ones((600, 600))
    assert product[0, 0] == 600
    openmp = ctypes.CDLL("libgomp.so.1")
    openmp.GOMP_parallel(libc.getppid, None, ctypes.c_uint(4), ctypes.c_uint(0))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 3
    onnxruntime.set_default_logger_severity(4)
    session = onnxruntime.InferenceSession(identity_model(), settings, providers=["CPUExecutionProvider"])
    (same,) = session.run(None, {"x": np.ones(1, dtype=np.float32)})
    assert same[0] == 1
    return session


def tcp(host: str, port: int) -> None:
    with socket.create_connection((host, port), timeout=5) as opened:
        opened.sendall(OUT)


def udp(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.sendto(OUT, ("127.0.0.1", port))


def netlink() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as opened:
        # struct nlmsghdr and rtgenmsg: RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP
        opened.send(bytes.fromhex("14000000 1200 0103 01000000 00000000 00000000"))
        assert len(opened.recv(65536)) > 16


def resolve() -> None:
    try:
        socket.getaddrinfo("localhost", 53)
    except socket.gaierror as error:
        raise PermissionError(errno.EPERM, str(error)) from error


def unix(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.connect(address.replace("@", "\0"))
        opened.sendall(OUT)


def socket_pair_to(address: str) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        left.sendto(OUT, address)


def descriptor_handed_in() -> None:
    _, descriptors, _, _ = socket.recv_fds(control, 1, 1)
    os.write(descriptors[0], OUT)
    os.close(descriptors[0])


def descriptor_handed_in_unseen() -> int:
    before = descriptors_open()
    control.recv(1)
    return descriptors_open() - before


def descriptors_open() -> int:
    def is_open(number: int) -> bool:
        try:
            os.fstat(number)
        except OSError:
            return False
        return True

    return sum(is_open(number) for number in range(256))


def listener_reused(index: int, port: int) -> None:
    listener = listeners[index]
    listener.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(PermissionError):
        checked(libc.connect(listener.fileno(), bytes(16), 16))  # AF_UNSPEC: disconnect
    listener.connect(("127.0.0.1", port))
    listener.sendall(OUT)


def listener_fast_opened(index: int, port: int) -> None:
    listeners[index].shutdown(socket.SHUT_RDWR)
    listeners[index].sendto(OUT, socket.MSG_FASTOPEN, ("127.0.0.1", port))


def raw_calls(port: int) -> None:
    opened = call("socket", socket.AF_INET, socket.SOCK_STREAM, 0)
    address = b"\x02\x00" + port.to_bytes(2, "big") + b"\x7f\x00\x00\x01" + bytes(8)
    call("connect", opened, address, 16)
    os.write(opened, OUT)
    os.close(opened)


def child_process(port: int) -> None:
    code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5).sendall(b'out')"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    if done.returncode:
        assert "PermissionError" in done.stderr, done.stderr
        raise PermissionError(errno.EPERM, done.stderr.splitlines()[-1])


def forked_child(port: int) -> None:
    child = os.fork()
    if child == 0:
        try:
            tcp("127.0.0.1", port)
        except OSError as error:
            os._exit(error.errno or 255)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, os.strerror(code))


def trace(pid: int) -> None:
    def attach() -> None:
        try:
            call("ptrace", PTRACE_SEIZE, pid, None, None)
        except OSError as error:
            failures.append(error)

    # What a thread traces is let go when the thread ends.
    failures: list[OSError] = []
    tracer = threading.Thread(target=attach)
    tracer.start()
    tracer.join()
    if failures:
        raise failures[0]


def take_descriptor(pid: int, descriptor: int) -> None:
    process = os.pidfd_open(pid)
    try:
        taken = call("pidfd_getfd", process, descriptor, 0)
    finally:
        os.close(process)
    os.write(taken, OUT)
    os.close(taken)


def read_memory(pid: int, address: int, length: int) -> str:
    buffer = ctypes.create_string_buffer(length)
    local = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), length)
    remote = (ctypes.c_uint64 * 2)(address, length)
    call("process_vm_readv", pid, local, ctypes.c_ulong(1), remote, ctypes.c_ulong(1), ctypes.c_ulong(0))
    return buffer.raw.decode()


def read_memory_file(pid: int, address: int, length: int) -> str:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(length).decode()


def read_file(path: str) -> str:
    return Path(path).read_text("utf-8")


def write_file(path: str) -> None:
    Path(path).write_text("out", "utf-8")


def shared_segment() -> None:
    segment = call("shmget", 0, ctypes.c_size_t(4096), 0o1600)
    call("shmctl", segment, 0, None)


def route(name: str) -> str:
    attempt = {**escape.ROUTES, **escape.X86_64_ROUTES}[name]
    outcome = escape.try_route(name, attempt)
    return json.dumps([outcome.refused, outcome.detail])


ATTACKS: dict[str, Callable[..., Any]] = {
    each.__name__: each
    for each in (
        tcp, udp, netlink, resolve, unix, socket_pair_to, descriptor_handed_in, descriptor_handed_in_unseen,
        listener_reused, listener_fast_opened, raw_calls, child_process, forked_child, trace, take_descriptor,
        read_memory, read_memory_file, read_file, write_file, shared_segment, route,
    )
}  # fmt: skip
ATTACKS |= {
    "kill": lambda pid: os.kill(pid, signal.SIGCONT),
    "list_directory": os.listdir,
    "truncate": lambda path: os.truncate(path, 0),
    "rename": os.rename,
    "link": os.link,
    "remove": os.remove,
    "symlink": os.symlink,
    "change_owner": lambda path: os.chown(path, os.getuid(), os.getgid()),
    "execute": lambda path: subprocess.run([path], check=True, stdin=subprocess.DEVNULL).returncode,
    "child_of_child": lambda argv: subprocess.run(argv, capture_output=True, text=True, check=True).stdout,
    "attempts": lambda: [
        [each.route, each.refused, each.detail] for each in seal.attempts(listener=listeners[-1].fileno())
    ],
}


def answer(line: str) -> dict[str, Any]:
    asked = json.loads(line)
    try:
        said = ATTACKS[asked.pop("attack")](*asked.pop("positional", ()), **asked)
    except OSError as error:
        return {"through": False, "refused": error.errno in (errno.EPERM, errno.EACCES), "said": repr(error)}
    return {"through": True, "refused": False, "said": said}


def serve() -> None:
    # In a thread of its own, as the daemon's work is.
    for line in sys.stdin:
        print(json.dumps(answer(line)), flush=True)


if __name__ == "__main__":
    session = start_native_threads() if options["native"] else None
    print(json.dumps({"threads": threading.active_count()}), flush=True)
    worker = threading.Thread(target=serve)
    worker.start()
    worker.join()
