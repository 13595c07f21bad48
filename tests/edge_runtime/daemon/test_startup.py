"""Home, lock, listeners and token, on real files and sockets."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_runtime.daemon.startup import open_listeners, prepare_home, read_token, take_lock
from edge_runtime.errors import ConfigError, RefusedError, StorageError
from edge_runtime.paths import SOCKET_PATH_BYTES, Paths


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def no_names_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("EDGE_CONFIG", "EDGE_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    paths = Paths(tmp_path / "home")
    prepare_home(paths)
    return paths


def test_a_new_home_is_private_but_for_the_way_to_the_socket(paths: Paths) -> None:
    assert (mode(paths.home), mode(paths.run)) == (0o750, 0o750)
    assert {mode(path) for path in (paths.models, paths.snapshots, paths.backups)} == {0o700}


def test_a_home_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    home = tmp_path / "mine"
    home.mkdir()
    home.chmod(0o711)
    prepare_home(Paths(home))
    assert mode(home) == 0o711


def test_a_home_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="set EDGE_HOME"):
        prepare_home(Paths(tmp_path / "file" / "home"))


def test_a_second_daemon_on_one_home_is_refused_and_told_the_first(paths: Paths) -> None:
    held = take_lock(paths)
    with pytest.raises(RefusedError, match=rf"pid {os.getpid()}"):
        take_lock(paths)
    os.close(held)
    os.close(take_lock(paths))


def test_the_socket_is_for_owner_and_group_alone(paths: Paths) -> None:
    listeners = open_listeners(paths, None)
    with listeners.unix:
        assert mode(paths.socket) == 0o660
        assert (listeners.owner, listeners.group) == (os.getuid(), paths.home.stat().st_gid)
        assert listeners.tcp is None


def test_a_socket_that_nobody_answers_on_is_replaced(paths: Paths) -> None:
    open_listeners(paths, None).unix.close()
    assert paths.socket.exists()
    open_listeners(paths, None).unix.close()


def test_a_socket_that_somebody_answers_on_is_left_alone(paths: Paths) -> None:
    with open_listeners(paths, None).unix as listener:
        before = paths.socket.stat().st_ino
        with pytest.raises(RefusedError, match="another process answers"):
            open_listeners(paths, None)
        assert paths.socket.stat().st_ino == before
        assert listener.fileno() >= 0


def test_a_file_in_the_socket_s_place_is_never_removed(paths: Paths) -> None:
    paths.socket.write_text("mine")
    with pytest.raises(RefusedError, match="not a socket"):
        open_listeners(paths, None)
    assert paths.socket.read_text() == "mine"


def test_a_home_with_a_long_path_gets_a_socket_that_can_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    paths = Paths(tmp_path / ("long" * 40))
    prepare_home(paths)
    with open_listeners(paths, None).unix, socket.socket(socket.AF_UNIX) as client:
        assert len(os.fsencode(paths.socket)) <= SOCKET_PATH_BYTES
        client.connect(os.fspath(paths.socket))


@pytest.mark.parametrize(
    "listen", ["0.0.0.0:80", "192.0.2.1:80", "8080", "127.0.0.1:http", "127.0.0.1:70000", "[::]:1"]
)
def test_only_a_loopback_address_may_be_listened_on(paths: Paths, listen: str) -> None:
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1"):
        open_listeners(paths, listen)


def test_a_tcp_listener_has_a_private_token_that_lasts(paths: Paths) -> None:
    listeners = open_listeners(paths, "127.0.0.1:0")
    assert listeners.tcp is not None
    with listeners.unix, listeners.tcp:
        assert (listeners.tcp_address or "").startswith("127.0.0.1:")
        assert mode(paths.token) == 0o600
        assert len(listeners.token or "") >= 40
        assert read_token(paths) == listeners.token


def test_inherited_listeners_are_taken_as_they_are(paths: Paths, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(os.fspath(tmp_path / "s"))
        given.listen()
        assert open_listeners(paths, None, [given]).unix is given
        assert not paths.socket.exists()
