"""Every known way out of the seal, tried by a real sealed process with native threads alive; and by a free one, so that
each test shows that its attack works where nothing stops it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime import escape, seccomp
from tests.system.cell import Inmate, Pair, Sink, Victim

OUT = b"out"
ROUTES = [*escape.ROUTES, *(escape.X86_64_ROUTES if seccomp.machine() is seccomp.X86_64 else ())]
# What an unprivileged process, or one on a hardened kernel, is refused anyway.
PRIVILEGED = {"raw IP socket", "packet socket", "bpf", "mount", "file handle", "pidfd_getfd", "io_uring"}
# What not every kernel has: there the free process must at least meet something else than the seal.
NOT_EVERYWHERE = {"TCP over IPv6", "vsock", "x32 system call", "32-bit system call"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    inside = tmp_path_factory.mktemp("inside")
    with Inmate.start("daemon", write=inside) as sealed, Inmate.start("none", write=inside) as free:
        yield Pair(sealed, free, inside)


@pytest.fixture
def sink() -> Iterator[Sink]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Sink(listener)


@pytest.fixture
def victim(sink: Sink, tmp_path: Path) -> Iterator[Victim]:
    secret = tmp_path / "unlinked"
    secret.write_text("secret in a file")
    with Victim.start(sink.port, secret) as started:
        yield started


# ---- what is sealed ------------------------------------------------------------------------------------------------


def test_native_threads_run_in_the_sealed_process_and_each_is_under_the_filter(pair: Pair) -> None:
    tasks = list(Path(f"/proc/{pair.sealed.process.pid}/task").iterdir())
    # Python's two, OpenMP's three beside the caller, two of ONNX Runtime.
    assert len(tasks) >= 7
    for task in tasks:
        status = (task / "status").read_text()
        assert "\nSeccomp:\t2\n" in status
        assert "\nNoNewPrivs:\t1\n" in status


@pytest.mark.parametrize("route", ROUTES)
def test_each_route_of_the_doctor_is_refused_sealed_and_met_by_no_seal_outside(pair: Pair, route: str) -> None:
    sealed_refused, sealed_said = json.loads(pair.sealed.ask("route", route)["said"])
    free_refused, free_said = json.loads(pair.free.ask("route", route)["said"])
    assert sealed_refused, sealed_said
    if route in NOT_EVERYWHERE:
        assert free_said != sealed_said
    elif os.geteuid() == 0 or route not in PRIVILEGED:
        assert not free_refused, free_said


def test_attempts_made_by_the_sealed_process_leave_its_listener_listening(pair: Pair) -> None:
    tried = pair.sealed.ask("attempts")["said"]
    assert [route for route, refused, _ in tried if not refused] == []
    assert {"TCP listener connected elsewhere", "TCP listener with MSG_FASTOPEN"} <= {route for route, _, _ in tried}
    again = pair.sealed.ask("attempts")["said"]
    assert again == tried


# ---- the network ---------------------------------------------------------------------------------------------------


def test_tcp_connection_is_refused(pair: Pair, sink: Sink) -> None:
    pair.assert_only_the_seal_refuses("tcp", host="127.0.0.1", port=sink.port)
    assert sink.heard() == [OUT]


def test_udp_datagram_is_refused(pair: Pair) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        pair.assert_only_the_seal_refuses("udp", port=receiver.getsockname()[1])
        assert receiver.recv(10) == OUT
        receiver.settimeout(0)
        with pytest.raises(BlockingIOError):
            receiver.recv(10)


def test_netlink_query_is_refused(pair: Pair) -> None:
    pair.assert_only_the_seal_refuses("netlink")


def test_name_resolution_is_refused(pair: Pair) -> None:
    pair.assert_only_the_seal_refuses("resolve")


def test_socket_and_connect_as_bare_system_calls_through_ctypes_are_refused(pair: Pair, sink: Sink) -> None:
    pair.assert_only_the_seal_refuses("raw_calls", port=sink.port)
    assert sink.heard() == [OUT]


def test_child_process_that_connects_is_refused(pair: Pair, sink: Sink) -> None:
    pair.assert_only_the_seal_refuses("child_process", port=sink.port)
    assert sink.heard() == [OUT]


def test_forked_child_that_connects_is_refused(tmp_path: Path, sink: Sink) -> None:
    # Without native threads: a fork beside them is undefined, and no part of the attack.
    for seal, heard in (("none", [OUT]), ("daemon", [])):
        with Inmate.start(seal, write=tmp_path, native=False) as inmate:
            outcome = inmate.ask("forked_child", port=sink.port)
        assert (outcome["through"], outcome["refused"]) == (seal == "none", seal != "none")
        assert sink.heard() == heard


def test_unix_socket_proxy_is_refused_by_path(pair: Pair, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as proxy:
        path = tmp_path / "p"
        # By a path from the directory that all three processes are in: sun_path is short.
        proxy.bind(os.path.relpath(path))
        proxy.listen()
        pair.assert_only_the_seal_refuses("unix", address=os.path.relpath(path))
        assert Sink(proxy).heard() == [OUT]


def test_unix_socket_proxy_is_refused_by_abstract_name(pair: Pair) -> None:
    name = f"edge-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX) as proxy:
        proxy.bind(f"\0{name}")
        proxy.listen()
        pair.assert_only_the_seal_refuses("unix", address=f"@{name}")
        assert Sink(proxy).heard() == [OUT]


def test_socket_pair_that_sends_to_a_proxys_name_is_refused(pair: Pair) -> None:
    name = f"\0edge-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as proxy:
        proxy.bind(name)
        pair.assert_only_the_seal_refuses("socket_pair_to", address=name)
        assert proxy.recv(10) == OUT


def test_connected_socket_handed_in_by_scm_rights_is_refused(pair: Pair, sink: Sink) -> None:
    for inmate in (pair.free, pair.sealed):
        with socket.create_connection(sink.listener.getsockname()) as connected:
            socket.send_fds(inmate.control, [b"x"], [connected.fileno()])
            outcome = inmate.ask("descriptor_handed_in")
        assert outcome["through" if inmate is pair.free else "refused"], outcome
    # The byte that it came with can be read, and drops it.
    assert pair.sealed.ask("descriptor_handed_in_unseen")["said"] == 0
    assert sink.heard() == [OUT, b""]


def test_listener_from_before_the_seal_cannot_be_disconnected_and_reused(pair: Pair, sink: Sink) -> None:
    pair.assert_only_the_seal_refuses("listener_reused", index=0, port=sink.port)
    assert sink.heard() == [OUT]


def test_listener_from_before_the_seal_cannot_send_with_fastopen(pair: Pair, sink: Sink) -> None:
    pair.assert_only_the_seal_refuses("listener_fast_opened", index=1, port=sink.port)
    assert sink.heard() == [OUT]


# ---- other processes -----------------------------------------------------------------------------------------------


def test_tracing_another_process_is_refused(pair: Pair, victim: Victim) -> None:
    pair.assert_only_the_seal_refuses("trace", pid=victim.pid)


def test_taking_another_processs_connection_is_refused(pair: Pair, victim: Victim, sink: Sink) -> None:
    pair.assert_only_the_seal_refuses("take_descriptor", pid=victim.pid, descriptor=victim.socket)
    assert sink.heard() == [OUT]


def test_reading_another_processs_memory_is_refused(pair: Pair, victim: Victim) -> None:
    where = {"pid": victim.pid, "address": victim.address, "length": 16}
    assert pair.free.ask("read_memory", **where)["said"] == "secret in memory"
    pair.assert_only_the_seal_refuses("read_memory", **where)


def test_reading_another_processs_memory_file_is_refused(pair: Pair, victim: Victim) -> None:
    where = {"pid": victim.pid, "address": victim.address, "length": 16}
    assert pair.free.ask("read_memory_file", **where)["said"] == "secret in memory"
    pair.assert_only_the_seal_refuses("read_memory_file", **where)


def test_opening_another_processs_descriptor_through_proc_is_refused(pair: Pair, victim: Victim) -> None:
    path = f"/proc/{victim.pid}/fd/{victim.file}"
    assert pair.free.ask("read_file", path=path)["said"] == "secret in a file"
    pair.assert_only_the_seal_refuses("read_file", path=path)
    pair.assert_only_the_seal_refuses("list_directory", f"/proc/{victim.pid}/fd")


def test_signal_to_another_process_is_refused(pair: Pair, victim: Victim) -> None:
    pair.assert_only_the_seal_refuses("kill", pid=victim.pid)


def test_shared_memory_with_another_process_is_refused(pair: Pair) -> None:
    pair.assert_only_the_seal_refuses("shared_segment")


# ---- files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    file = tmp_path / "outside.txt"
    file.write_text("secret")
    return file


def test_reading_a_file_outside_is_refused(pair: Pair, outside: Path) -> None:
    pair.assert_only_the_seal_refuses("read_file", path=str(outside))
    pair.assert_only_the_seal_refuses("list_directory", str(outside.parent))


def test_reading_a_file_outside_through_a_link_that_lies_inside_is_refused(pair: Pair, outside: Path) -> None:
    link = pair.inside / "link"
    link.symlink_to(outside)
    pair.assert_only_the_seal_refuses("read_file", path=str(link))


def test_writing_and_truncating_a_file_outside_are_refused(pair: Pair, outside: Path) -> None:
    pair.assert_only_the_seal_refuses("write_file", path=str(outside))
    pair.assert_only_the_seal_refuses("truncate", str(outside))
    pair.assert_only_the_seal_refuses("change_owner", str(outside))


def test_moving_or_linking_a_file_outside_to_the_inside_is_refused(pair: Pair, outside: Path) -> None:
    def moves() -> Iterator[tuple[str, str, str]]:
        yield "link", str(outside), str(pair.inside / "linked")
        yield "rename", str(outside), str(pair.inside / "moved")

    for attack, source, target in moves():
        sealed = pair.sealed.ask(attack, source, target)
        assert not sealed["through"], sealed
        assert not Path(target).exists()
        assert pair.free.ask(attack, source, target)["through"]


def test_removing_a_file_outside_is_refused(pair: Pair, outside: Path) -> None:
    assert pair.sealed.ask("remove", str(outside))["refused"]
    assert pair.free.ask("remove", str(outside))["through"]


def test_writing_inside_works_and_making_links_there_does_not(pair: Pair) -> None:
    file = pair.inside / "own.txt"
    assert pair.sealed.ask("write_file", path=str(file))["through"]
    assert pair.sealed.ask("read_file", path=str(file))["said"] == "out"
    assert pair.sealed.ask("rename", str(file), str(pair.inside / "renamed"))["through"]
    assert pair.sealed.ask("remove", str(pair.inside / "renamed"))["through"]
    assert pair.sealed.ask("symlink", "/etc/passwd", str(pair.inside / "trap"))["refused"]


def test_running_a_program_outside_or_a_written_one_is_refused(pair: Pair, tmp_path: Path) -> None:
    for directory in (tmp_path, pair.inside):
        program = directory / "program"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        pair.assert_only_the_seal_refuses("execute", str(program))
    pair.assert_only_the_seal_refuses("execute", "/bin/true")


# ---- children ------------------------------------------------------------------------------------------------------

CHILD = """
import json, sys
from pathlib import Path
from edge_runtime.seal import Access, attempts, seal_child
seal_child(Access(read=(Path(sys.argv[1]),)))
def trial(action):
    try:
        action()
    except OSError as error:
        return error.errno
tried = attempts()
own, parents = Path(sys.argv[1]), Path(sys.argv[2])
import threading
thread = threading.Thread(target=lambda: None)
thread.start()
thread.join()
print(json.dumps({
    "open": [each.route for each in tried if not each.refused],
    "own": trial(own.read_bytes),
    "written": trial(lambda: own.write_text("x")),
    "parents": trial(parents.read_bytes),
}))
"""


@pytest.mark.parametrize("parent", ["daemon", "none"])
def test_sealed_child_has_less_than_its_parent_and_no_way_out(tmp_path: Path, parent: str) -> None:
    own, parents = tmp_path / "own", tmp_path / "parents"
    own.write_text("model")
    parents.write_text("documents")
    with Inmate.start(parent, write=tmp_path, native=False) as inmate:
        outcome = inmate.ask("child_of_child", [sys.executable, "-P", "-c", CHILD, str(own), str(parents)])
    assert outcome["through"], outcome
    assert json.loads(outcome["said"]) == {"open": [], "own": None, "written": 13, "parents": 13}


def test_child_seal_refuses_processes_programs_and_connections(tmp_path: Path, sink: Sink) -> None:
    with Inmate.start("child", write=tmp_path) as inmate:
        tried = inmate.ask("attempts")["said"]
        started = inmate.ask("execute", sys.executable)
        connected = inmate.ask("tcp", host="127.0.0.1", port=sink.port)
    assert [route for route, refused, _ in tried if not refused] == []
    assert started["refused"]
    assert connected["refused"]
    assert sink.heard() == []
