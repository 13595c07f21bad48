"""What the seal demands before it closes, what it says where a kernel lacks a part, and what still works inside."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROLOGUE = """
import json, os, sys
from pathlib import Path
from edge_runtime import landlock, seal, seccomp
from edge_runtime.errors import SealError
from edge_runtime.seal import Access
def trial(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return error.errno
def refusal(*arguments, **options):
    try:
        seal.seal(*arguments, **options)
    except SealError as error:
        return error.message
def say(**what):
    print(json.dumps(what))
"""


def run(code: str, *arguments: object, **options: Any) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROLOGUE + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_the_seal_loads_no_installed_native_library_and_starts_no_thread() -> None:
    said = run("""
import sysconfig
seal.seal(Access())
places = tuple(sysconfig.get_path(name) for name in ("purelib", "platlib"))
files = [getattr(module, "__file__", None) or "" for module in sys.modules.values()]
say(native=[file for file in files if file.endswith(".so") and file.startswith(places)],
    threads=os.stat("/proc/self/task").st_nlink - 2)
""")
    assert said == {"native": [], "threads": 1}


def test_sealing_beside_a_running_thread_is_refused_with_the_reason() -> None:
    said = run("""
import threading
wait = threading.Event()
thread = threading.Thread(target=wait.wait)
thread.start()
message = refusal(Access())
wait.set()
thread.join()
say(message=message, free=trial(Path("/etc/passwd").read_bytes) is None, again=refusal(Access()))
""")
    assert "2 threads run already" in said["message"]
    assert "before importing a native library" in said["message"]
    assert said["free"]
    assert said["again"] is None


def test_a_path_to_write_that_does_not_exist_is_named(tmp_path: Path) -> None:
    said = run("say(message=refusal(Access(write=(Path(sys.argv[1]),))))", tmp_path / "state")
    assert said["message"] == f"{tmp_path / 'state'} is to be written, but does not exist; create it before sealing"


def test_a_path_to_read_that_does_not_exist_is_no_error(tmp_path: Path) -> None:
    said = run("say(message=refusal(Access(read=(Path(sys.argv[1]),))))", tmp_path / "model")
    assert said["message"] is None


@pytest.mark.parametrize(
    ("abi", "missing"),
    [
        (0, ["can be opened", "can be truncated", "one lock", "ioctl", "signals"]),
        (2, ["can be truncated", "one lock", "ioctl", "signals"]),
        (3, ["one lock", "ioctl", "signals"]),
        (4, ["ioctl", "signals"]),
        (5, ["signals"]),
        (6, []),
    ],
)
def test_each_guarantee_that_a_kernel_lacks_is_named_and_unsealed_runs_with_the_rest(
    abi: int, missing: list[str]
) -> None:
    said = run(
        """
landlock.version = lambda library: int(sys.argv[1])
message = refusal(Access())
before = trial(Path("/etc/passwd").read_bytes)
report = seal.seal(Access(), unsealed_ok=True)
import socket
say(message=message, before=before, sealed=report.sealed, seccomp=report.seccomp, abi=report.landlock_abi,
    missing=report.missing, read=trial(Path("/etc/passwd").read_bytes), socket=trial(socket.socket))
""",
        abi,
    )
    assert (said["sealed"], said["seccomp"], said["abi"]) == (not missing, True, abi)
    assert len(said["missing"]) == len(missing)
    for sentence, words in zip(said["missing"], missing, strict=True):
        assert words in sentence
        assert sentence in said["message"]
    if missing:
        assert "edged --unsealed" in said["message"]
        assert said["before"] is None
    assert said["read"] == (13 if abi else None)
    assert said["socket"] == 1


def test_an_unknown_instruction_set_is_named_and_unsealed_keeps_landlock() -> None:
    said = run("""
import socket
seccomp.machine = lambda: None
message = refusal(Access())
report = seal.seal(Access(), unsealed_ok=True)
say(message=message, sealed=report.sealed, seccomp=report.seccomp, missing=report.missing,
    read=trial(Path("/etc/passwd").read_bytes), socket=trial(socket.socket))
""")
    assert "sockets, io_uring and ptrace are not refused" in said["message"]
    assert (said["sealed"], said["seccomp"], len(said["missing"])) == (False, False, 1)
    assert (said["read"], said["socket"]) == (13, None)


def test_a_kernel_that_refuses_to_apply_a_part_is_reported_and_not_passed_over() -> None:
    # Landlock takes sixteen domains within one another.
    said = run("""
for _ in range(16):
    seal.seal(Access())
message = refusal(Access())
report = seal.seal(Access(), unsealed_ok=True)
say(message=message, sealed=report.sealed, seccomp=report.seccomp, abi=report.landlock_abi)
""")
    assert "the kernel refused Landlock" in said["message"]
    assert (said["sealed"], said["seccomp"], said["abi"]) == (False, True, 0)


def test_a_network_socket_left_open_by_whoever_started_us_is_named_and_a_listener_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as left:
        said = run("say(message=refusal(Access()))", pass_fds=[left.fileno(), listener.fileno()])
        assert f"descriptor {left.fileno()} is a network socket from before the seal" in said["message"]
        assert f"descriptor {listener.fileno()} " not in said["message"]
        assert run("say(message=refusal(Access()))", pass_fds=[listener.fileno()])["message"] is None


def test_what_libraries_read_of_the_machine_stays_readable_and_the_rest_does_not() -> None:
    said = run("""
import mimetypes
seal.seal(Access())
machine = ["/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/self/statm", "/proc/self/maps", "/dev/urandom",
           "/sys/devices/system/cpu/online", *mimetypes.knownfiles]
other = ["/etc/passwd", "/etc/hostname", "/etc/ssl/openssl.cnf", "/proc/1/status", "/proc/self/environ",
         "/proc/self/mem", "/proc/mounts", "/proc/net/tcp", "/proc/self/net/tcp", f"/proc/{os.getppid()}/status"]
def first(path):
    with open(path, "rb") as file:
        file.read(1)
say(machine={path: trial(first, path) for path in machine if os.path.exists(path)},
    other={path: trial(first, path) for path in other if os.path.exists(path)},
    null=trial(Path("/dev/null").write_bytes, b"x"), home=trial(os.listdir, Path.home()),
    temporary=trial(os.listdir, "/tmp"), root=trial(os.listdir, "/"), proc=trial(os.listdir, "/proc"))
""")
    assert set(said.pop("machine").values()) == {None}
    assert set(said.pop("other").values()) == {13}
    assert said == {"null": None, "home": 13, "temporary": 13, "root": 13, "proc": 13}


def test_pressure_and_control_group_limits_stay_readable() -> None:
    said = run("""
groups = [str(path) for path in seal._cgroup_files() if path.exists()]
pressure = [f"/proc/pressure/{name}" for name in ("cpu", "memory", "io") if os.path.exists(f"/proc/pressure/{name}")]
seal.seal(Access())
say(errors=[trial(Path(path).read_bytes) for path in (*groups, *pressure)])
""")
    assert set(said["errors"]) <= {None}


def test_the_code_of_this_project_can_be_imported_and_its_neighbours_cannot_be_read() -> None:
    said = run("""
root = Path(seal.__file__).parent.parent
seal.seal(Access())
import edge_runtime.protocol, models.errors
say(code=trial(Path(edge_runtime.protocol.__file__).read_bytes),
    written=trial(Path(edge_runtime.protocol.__file__).open, "a"),
    fleet=trial((root / "fleet" / "__init__.py").read_bytes),
    tools=trial((root / "firmware_tools" / "__init__.py").read_bytes))
""")
    assert said == {"code": None, "written": 13, "fleet": 13, "tools": 13}


def test_sealing_twice_narrows(tmp_path: Path) -> None:
    for name in ("model", "document"):
        (tmp_path / name).write_text("x")
    said = run(
        """
model, document = Path(sys.argv[1], "model"), Path(sys.argv[1], "document")
seal.seal(Access(read=(model, document)))
first = trial(document.read_bytes)
seal.seal_child(Access(read=(model,)))
say(first=first, model=trial(model.read_bytes), document=trial(document.read_bytes))
""",
        tmp_path,
    )
    assert said == {"first": None, "model": None, "document": 13}


def test_asyncio_serves_writes_lists_and_starts_children_when_sealed() -> None:
    said = run("""
import asyncio, socket
listener = socket.create_server(("127.0.0.1", 0))
seal.seal(Access())
seal.plain_writes()
async def main():
    left, right = socket.socketpair()
    _, writer = await asyncio.open_connection(sock=left)
    reader, _ = await asyncio.open_connection(sock=right)
    writer.writelines([b"x" * 300_000, b"y" * 300_000])
    got = await reader.readexactly(600_000)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), sock=listener)
    server.close()
    child = await asyncio.create_subprocess_exec(sys.executable, "-I", "-c", "print(1)", stdout=asyncio.subprocess.PIPE)
    out, _ = await child.communicate()
    return got == b"x" * 300_000 + b"y" * 300_000, out.decode()
same, out = asyncio.run(main())
say(same=same, out=out)
""")
    assert said == {"same": True, "out": "1\n"}
