"""Landlock as this kernel keeps it: each test restricts a process of its own, without the system-call filter's help."""

from __future__ import annotations

import ctypes
import errno
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.landlock import READ, WRITE, Right, handled, version

NEWEST = 7

# Restricts itself to argv[1], as JSON, and says what came of each trial: None, or the error's number.
PROLOGUE = """
import ctypes, json, os, socket, sys
from pathlib import Path
from edge_runtime import landlock, seccomp
from edge_runtime.landlock import READ, WRITE, Grant, Right
given = json.loads(sys.argv[1])
library = ctypes.CDLL(None, use_errno=True)
def restrict(*grants, abi=None):
    seccomp.forbid_new_privileges(library)
    landlock.restrict(library, given.get("abi", 7) if abi is None else abi, grants)
def trial(action, *arguments):
    try:
        action(*arguments)
    except OSError as error:
        return error.errno
def say(**what):
    print(json.dumps(what))
"""


def run(code: str, **given: Any) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROLOGUE + code, json.dumps(given, default=str)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for directory in ("in", "out"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "file").write_text("text")
    return tmp_path


def test_each_version_handles_what_it_added_and_all_before() -> None:
    assert handled(1) == Right(2**13 - 1)
    assert handled(2) ^ handled(1) == Right.REFER
    assert handled(3) ^ handled(2) == Right.TRUNCATE
    assert handled(4) == handled(3)
    assert handled(5) ^ handled(4) == Right.IOCTL_DEV
    assert handled(NEWEST) == handled(99) == Right(2**16 - 1)


def test_no_grant_of_ours_makes_devices_sockets_or_links() -> None:
    special = Right.MAKE_CHAR | Right.MAKE_BLOCK | Right.MAKE_SOCK | Right.MAKE_FIFO | Right.MAKE_SYM | Right.IOCTL_DEV
    assert not (READ | WRITE) & (special | Right.EXECUTE)


def test_a_kernel_without_landlock_has_version_0() -> None:
    class Kernel:
        """Answers as the C library does where the call is unknown, or switched off at boot."""

        def __init__(self, error: int) -> None:
            self.error = error

        def syscall(self, *_: object) -> int:
            ctypes.set_errno(self.error)
            return -1

    for error in (errno.ENOSYS, errno.EOPNOTSUPP):
        assert version(Kernel(error)) == 0  # type: ignore[arg-type]


def test_this_kernel_has_a_version() -> None:
    assert version(ctypes.CDLL(None, use_errno=True)) >= 1


def test_what_is_granted_to_read_is_read_and_nothing_else(tree: Path) -> None:
    said = run(
        """
inside, outside = Path(given["tree"], "in"), Path(given["tree"], "out")
restrict(Grant(inside, READ))
say(read=trial((inside / "file").read_bytes), listed=trial(os.listdir, inside),
    written=trial((inside / "file").write_bytes, b""), made=trial((inside / "new").write_bytes, b""),
    run=trial(os.execv, inside / "file", ["file"]),
    outside=trial((outside / "file").read_bytes), outside_listed=trial(os.listdir, outside),
    parent=trial(os.listdir, inside.parent), dotdot=trial((inside / ".." / "out" / "file").read_bytes))
""",
        tree=tree,
    )
    assert {name for name, error in said.items() if error is None} == {"read", "listed"}
    assert set(said.values()) == {None, errno.EACCES}


def test_what_is_granted_to_write_holds_plain_files_only(tree: Path) -> None:
    said = run(
        """
inside, outside = Path(given["tree"], "in"), Path(given["tree"], "out")
restrict(Grant(inside, WRITE))
file = inside / "file"
say(written=trial(file.write_bytes, b"x"), truncated=trial(os.truncate, file, 0), directory=trial((inside / "d").mkdir),
    moved=trial(file.rename, inside / "d" / "file"), removed=trial((inside / "d" / "file").unlink),
    gone=trial((inside / "d").rmdir),
    link=trial((inside / "s").symlink_to, "/etc"), pipe=trial(os.mkfifo, inside / "p"),
    bound=trial(socket.socket(socket.AF_UNIX).bind, os.path.relpath(inside / "u")),
    away=trial((inside / "other").rename, outside / "other"), in_again=trial(os.link, outside / "file", inside / "l"))
""",
        tree=tree,
    )
    assert [name for name, error in said.items() if error is None] == [
        "written", "truncated", "directory", "moved", "removed", "gone",
    ]  # fmt: skip


def test_a_file_may_be_granted_alone(tree: Path) -> None:
    said = run(
        """
inside = Path(given["tree"], "in")
(inside / "beside").touch()
restrict(Grant(inside / "file", WRITE))
say(written=trial((inside / "file").write_bytes, b"x"), beside=trial((inside / "beside").read_bytes),
    removed=trial((inside / "file").unlink))
""",
        tree=tree,
    )
    assert said == {"written": None, "beside": errno.EACCES, "removed": errno.EACCES}


def test_a_grant_of_what_does_not_exist_is_passed_over(tree: Path) -> None:
    said = run(
        """
inside = Path(given["tree"], "in")
restrict(Grant(inside / "nothing", READ), Grant(inside / "file" / "below", READ), Grant(inside / "file", READ))
say(read=trial((inside / "file").read_bytes), nothing=trial((inside / "nothing").read_bytes))
""",
        tree=tree,
    )
    assert said == {"read": None, "nothing": errno.ENOENT}


def test_a_second_domain_narrows_the_first_and_never_widens_it(tree: Path) -> None:
    said = run(
        """
inside, outside = Path(given["tree"], "in"), Path(given["tree"], "out")
restrict(Grant(inside, WRITE))
restrict(Grant(inside, READ), Grant(outside, WRITE))
say(read=trial((inside / "file").read_bytes), written=trial((inside / "file").write_bytes, b""),
    outside=trial((outside / "file").read_bytes))
""",
        tree=tree,
    )
    assert said == {"read": None, "written": errno.EACCES, "outside": errno.EACCES}


def test_a_held_grant_keeps_its_path_open_so_that_procfs_cannot_forget_the_inode(tree: Path) -> None:
    said = run(
        """
inside = Path(given["tree"], "in")
before = {os.readlink(f"/proc/self/fd/{n}") for n in range(3, 20) if os.path.lexists(f"/proc/self/fd/{n}")}
restrict(Grant(Path("/proc/meminfo"), READ, hold=True), Grant(inside, READ))
say(held=[os.readlink(f"/proc/self/fd/{n}") for n in range(3, 20) if os.path.lexists(f"/proc/self/fd/{n}")],
    read=trial(Path("/proc/meminfo").read_bytes))
""",
        tree=tree,
    )
    assert said == {"held": ["/proc/meminfo"], "read": None}


REUSE = """
listener = socket.create_server(("127.0.0.1", 0))
if given["restricted"]:
    restrict()
listener.shutdown(socket.SHUT_RDWR)
library.connect(listener.fileno(), bytes(16), 16)  # AF_UNSPEC: disconnect
fresh = socket.socket()
say(reused=trial(listener.connect, ("127.0.0.1", given["port"])),
    connected=trial(fresh.connect, ("127.0.0.1", given["port"])),
    bound=trial(socket.socket().bind, ("127.0.0.1", 0)))
"""


def test_tcp_is_refused_by_landlock_alone_a_kept_listener_included() -> None:
    with socket.create_server(("127.0.0.1", 0)) as outside:
        port = outside.getsockname()[1]
        free = run(REUSE, restricted=False, port=port)
        restricted = run(REUSE, restricted=True, port=port)
    assert free == {"reused": None, "connected": None, "bound": None}
    assert set(restricted.values()) == {errno.EACCES}


@pytest.mark.parametrize("abi", range(1, NEWEST + 1))
def test_an_older_versions_domain_refuses_what_that_version_knows_and_no_more(tree: Path, abi: int) -> None:
    # Shows too that each guarantee that is reported as missing is really missing there.
    with socket.create_server(("127.0.0.1", 0)) as outside:
        said = run(
            """
restrict(Grant(Path(given["tree"], "in"), READ))
fresh = socket.socket()
pseudo = os.open("/dev/null", os.O_PATH)
say(read=trial(Path(given["tree"], "out", "file").read_bytes),
    truncated=trial(os.truncate, Path(given["tree"], "out", "file"), 0),
    connected=trial(fresh.connect, ("127.0.0.1", given["port"])),
    signalled=trial(os.kill, os.getppid(), 0))
""",
            tree=tree,
            abi=abi,
            port=outside.getsockname()[1],
        )
    assert said == {
        "read": errno.EACCES,
        "truncated": errno.EACCES if abi >= 3 else None,
        "connected": errno.EACCES if abi >= 4 else None,
        "signalled": errno.EPERM if abi >= 6 else None,
    }
