"""The life of ``edged``: who may talk to it, what it survives, how it stops, how it is backed up and restored."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from models.store import Store
from tests.box import PATIENCE, Box, ask_as, prepared, running

CHAT = "/v1/chat/completions"
LONG = {"model": "default", "messages": [{"role": "user", "content": "Go on."}], "max_tokens": 3000, "ignore_eos": True}
NOTE = b"# Pump\n\nThe pump P9 is painted green.\n"


def in_background(work: Any) -> tuple[threading.Thread, list[Any]]:
    done: list[Any] = []
    thread = threading.Thread(target=lambda: done.append(work()))
    thread.start()
    return thread, done


def restore(box: Box, archive: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "edge_runtime.daemon.restore", str(archive)]
    world = {**os.environ, "EDGE_HOME": str(box.home)}
    return subprocess.run(command, env=world, capture_output=True, text=True, timeout=PATIENCE)


def test_a_child_that_dies_is_replaced_and_what_it_was_asked_is_done(shared_store: Store) -> None:
    with running(shared_store.root) as box:
        killed = box.kill_engine()
        assert box.chat(max_tokens=4).status == 200
        engine = box.child("engine")
        assert (engine["state"], engine["restarts"]) == ("ready", 1)
        assert engine["pid"] != killed
        os.kill(box.child("embedder")["pid"], signal.SIGKILL)
        assert box.post("/v1/embeddings", {"model": "default", "input": "pump"}).status == 200
        assert box.child("embedder")["restarts"] == 1
        assert box.stop() == 0


def test_a_full_queue_is_answered_at_once_with_when_to_come_back(shared_store: Store) -> None:
    with running(shared_store.root, "slots = 1\nqueue = 1\n") as box:
        stream = box.stream(CHAT, {**LONG, "stream": True})
        next(stream)
        thread, done = in_background(lambda: box.chat(max_tokens=2))
        box.wait(lambda: box.status()["requests_waiting"] == 1)
        refused = box.chat()
        assert (refused.status, refused.error["code"]) == (429, "busy")
        assert int(refused.headers["Retry-After"]) >= 1
        stream.close()  # type: ignore[attr-defined]
        thread.join(PATIENCE)
        assert done[0].status == 200


def test_a_stop_lets_running_requests_finish_and_tells_the_service_manager(shared_store: Store, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, prepared(shared_store.root) as box:
        manager.bind(os.fspath(tmp_path / "notify"))
        manager.settimeout(PATIENCE)
        box.start(environment={"NOTIFY_SOCKET": os.fspath(tmp_path / "notify")})
        assert b"READY=1" in manager.recv(4096)
        thread, done = in_background(lambda: box.chat(max_tokens=40, ignore_eos=True))
        box.wait(lambda: box.status()["requests_running"] == 1)
        children = [child["pid"] for child in box.status()["children"]]
        assert box.stop() == 0
        thread.join(PATIENCE)
        assert done[0].status == 200
        assert done[0].json["usage"]["completion_tokens"] == 40
        assert manager.recv(4096) == b"STOPPING=1"
        assert not box.socket.exists()
        assert not [child for child in children if Path(f"/proc/{child}").exists()]


def test_a_stop_cancels_what_would_take_too_long_and_says_so(shared_store: Store) -> None:
    with running(shared_store.root, "[server]\ndrain_seconds = 0.2\n") as box:
        stream = box.stream(CHAT, {**LONG, "stream": True})
        next(stream)
        assert box.process is not None
        box.process.send_signal(signal.SIGINT)
        assert "edged is stopping" in list(stream)[-1].json["error"]["message"]
        assert box.stop() == 0


def test_a_second_daemon_and_a_restore_are_refused_while_one_runs(shared_store: Store, tmp_path: Path) -> None:
    with running(shared_store.root, ready=False) as box:
        second = box.run()
        assert second.returncode == 4
        assert "another edged" in second.stderr
        (tmp_path / "any.tar").write_bytes(b"")
        third = restore(box, tmp_path / "any.tar")
        assert third.returncode == 4
        assert "another edged" in third.stderr


def test_a_killed_daemon_leaves_nothing_that_stops_the_next(shared_store: Store) -> None:
    with running(shared_store.root) as box:
        assert box.add("pump.md", NOTE).status == 200
        children = [child["pid"] for child in box.status()["children"]]
        box.stop(signal.SIGKILL)
        box.start()
        assert len(box.get("/edge/v1/documents").json["documents"]) == 1
        box.wait(lambda: not [child for child in children if Path(f"/proc/{child}/fd").exists()])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask as other users")
def test_root_and_the_owner_administer_the_group_asks_and_strangers_do_not_get_in(shared_store: Store) -> None:
    owner, group, member, stranger = 64001, 64002, 64003, 64004
    with prepared(shared_store.root) as box:
        box.home.parent.chmod(0o755)
        box.home.chmod(0o750)
        os.chown(box.home, owner, group)
        box.start()
        document = box.add("pump.md", NOTE).json["document"]["id"]

        def ask(method: str, target: str, uid: int, gid: int, *groups: int) -> str:
            return ask_as(box, method, target, uid=uid, gid=gid, groups=groups)

        own, guest, other = (owner, group), (member, member, group), (stranger, stranger)
        for path in ("/edge/v1/status", "/v1/models", "/edge/v1/documents", f"/edge/v1/documents/{document}"):
            assert [ask("GET", path, *who) for who in (own, guest, other)] == ["200", "200", "PermissionError"]
        for method, path in (
            ("GET", "/edge/v1/events"),
            ("POST", "/edge/v1/documents"),
            ("POST", "/edge/v1/probe"),
            ("POST", "/edge/v1/backup"),
            ("DELETE", f"/edge/v1/documents/{document}"),
        ):
            assert ask(method, path, *guest) == "403"
        assert ask("POST", "/edge/v1/backup", *own) == "200"
        # A collection that names its readers is not there for others, whoever they are.
        assert box.post("/edge/v1/collections", {"name": "default", "uids": [member]}).status == 200
        reader, outsider = (member, member, group), (stranger, stranger, group)
        place = f"/edge/v1/documents/{document}"
        assert [ask("GET", place, *who) for who in (own, reader, outsider)] == ["200", "200", "404"]
        stream = box.stream(CHAT, {**LONG, "stream": True})
        next(stream)
        (entry,) = box.get("/edge/v1/requests").json["requests"]
        # Another user's request is not there for a guest; the owner may stop it.
        assert ask("DELETE", f"/edge/v1/requests/{entry['id']}", *guest) == "404"
        assert ask("DELETE", f"/edge/v1/requests/{entry['id']}", *own) == "200"
        assert list(stream)[-1].json["error"]["code"] == "cancelled"


def test_a_tcp_client_needs_the_token_and_may_only_ask(shared_store: Store) -> None:
    with running(shared_store.root, "", "--listen", "127.0.0.1:0") as box:
        listen = box.status()["listen"]
        token = (box.home / "run" / "token").read_text().strip()

        def over_tcp(method: str, path: str, *head: str, body: str = "") -> tuple[int, bytes]:
            host, _, port = listen.rpartition(":")
            with socket.create_connection((host, int(port)), PATIENCE) as connection:
                size = f"Content-Length: {len(body)}"
                lines = [f"{method} {path} HTTP/1.1", "Connection: close", size, *head, "", body]
                connection.sendall("\r\n".join(lines).encode())
                reply = b""
                while part := connection.recv(65536):
                    reply += part
            return int(reply.split()[1]), reply

        here, right = f"Host: {listen}", f"Authorization: Bearer {token}"
        assert over_tcp("GET", "/v1/models", here, right)[0] == 200
        status, reply = over_tcp("GET", "/v1/models", here)
        assert (status, b'"invalid_api_key"' in reply) == (401, True)
        assert over_tcp("GET", "/v1/models", here, "Authorization: Bearer guess")[0] == 401
        assert over_tcp("GET", "/v1/models", "Host: evil.example", right)[0] == 403
        assert over_tcp("GET", "/edge/v1/events", here, right)[0] == 403
        # The refusal of a head that is far too long is read, though much of the head is not.
        status, reply = over_tcp("GET", "/v1/models", here, f"X-Long: {'x' * 2**20}")
        assert (status, b'"request_head_too_large"' in reply) == (431, True)
        # What routes there are is told to nobody without the token.
        for method, path, status in (("GET", "/nowhere", 404), ("GET", CHAT, 405)):
            assert [over_tcp(method, path, here, *more)[0] for more in ((), (right,))] == [401, status]
        # A collection that others read is as unknown as one that is not there.
        assert box.post("/edge/v1/collections", {"name": "personnel", "uids": [1]}).status == 200
        for path, asked in (("/edge/v1/ask", "question"), ("/edge/v1/search", "query")):
            replies = [
                over_tcp("POST", path, here, right, body=json.dumps({asked: "x", "collection": name}))
                for name in ("personnel", "no-such--")
            ]
            assert [status for status, _ in replies] == [404, 404]
            first, second = (json.loads(reply.partition(b"\r\n\r\n")[2])["error"] for _, reply in replies)
            assert first == {**second, "message": second["message"].replace("no-such--", "personnel")}
            assert first["message"].endswith("those are: default")
        proof = box.post("/edge/v1/probe").json["attempts"]
        assert any("TCP listener" in attempt["route"] for attempt in proof)
        assert not [attempt for attempt in proof if not attempt["refused"]]
        assert over_tcp("GET", "/v1/models", here, right)[0] == 200


def test_a_listener_handed_over_by_a_service_manager_is_used(shared_store: Store, tmp_path: Path) -> None:
    with prepared(shared_store.root) as box, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(tmp_path / "given"))
        listener.listen()
        os.set_inheritable(listener.fileno(), True)
        become = (
            f"import os, sys; os.dup2({listener.fileno()}, 3); "
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1');"
            "os.execv(sys.executable, [sys.executable, '-P', '-m', 'edge_runtime.daemon'])"
        )
        world = {**os.environ, "EDGE_HOME": str(box.home), "EDGE_SOCKET": os.fspath(tmp_path / "given")}
        with (box.home / "log").open("ab") as log:
            box.process = subprocess.Popen(
                [sys.executable, "-c", become], env=world, pass_fds=(listener.fileno(),), stdout=log, stderr=log
            )
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(os.fspath(tmp_path / "given"))
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
        assert box.stop() == 0
        assert (tmp_path / "given").exists()


# ---- what is missing or damaged ------------------------------------------------------------------------------------


def test_without_models_it_starts_says_what_to_do_and_takes_them_up_when_they_come(shared_store: Store) -> None:
    with running(None, ready=False) as box:
        box.wait(lambda: box.get("/readyz").json["detail"].count("edge model pull") == 2)
        assert box.get("/readyz").status == 503
        assert "edge model pull smollm2-135m-instruct" in box.status()["detail"]
        assert box.get("/healthz").status == 200
        reply = box.chat()
        assert (reply.status, reply.error["code"]) == (503, "engine_unavailable")
        assert "edge model pull" in reply.error["message"]
        shutil.copytree(shared_store.root, box.home / "models", dirs_exist_ok=True)
        box.wait(lambda: box.get("/readyz").status == 200)
        assert box.chat().status == 200


def test_a_damaged_model_file_is_reported_and_the_rest_goes_on(shared_store: Store) -> None:
    weights = shared_store.writer_path("smollm2-135m-instruct")
    with prepared(shared_store.root) as box:
        held = box.home / "models" / "blobs" / weights.name
        content = bytearray(weights.read_bytes())
        content[:4096] = b"\xff" * 4096
        held.unlink()  # it may be a link to the shared store
        held.write_bytes(content)
        box.start(ready=False)
        box.wait(lambda: box.child("engine")["state"] == "failed" and box.child("embedder")["state"] == "ready")
        assert box.child("engine")["detail"]
        assert box.chat().error["code"] == "engine_unavailable"
        assert box.post("/v1/embeddings", {"model": "default", "input": "pump"}).status == 200
        box.wait(lambda: box.post("/edge/v1/search", {"query": "pump"}).status == 200)
        assert box.get("/readyz").status == 503


def test_a_damaged_index_is_left_as_it_is_and_the_rest_goes_on(shared_store: Store) -> None:
    with prepared(shared_store.root) as box:
        index = box.home / "index.db"
        damaged = b"SQLite format 3\0" + b"\x55" * 8192
        index.write_bytes(damaged)
        box.start(ready=False)
        box.wait(lambda: "index.db" in box.status()["detail"])
        assert box.chat().status == 200
        for reply in (
            box.post("/edge/v1/search", {"query": "pump"}),
            box.post("/edge/v1/ask", {"question": "Which pump?"}),
            box.add("pump.md", NOTE),
            box.get("/edge/v1/documents"),
        ):
            assert (reply.status, reply.error["code"]) == (507, "storage")
            assert "restore" in reply.error["message"]
        assert box.stop() == 0
        assert index.read_bytes() == damaged


def test_a_configuration_that_is_wrong_is_refused_before_anything_starts(shared_store: Store) -> None:
    with prepared(shared_store.root) as box:
        (box.home / "edge.toml").write_text("[engine]\nthread = 1\n")
        done = box.run()
        assert done.returncode == 2
        assert "did you mean engine.threads?" in done.stderr


# ---- backup and restore --------------------------------------------------------------------------------------------


def test_a_backup_brings_back_what_was_lost_and_keeps_what_it_replaces(shared_store: Store) -> None:
    with running(shared_store.root) as box:
        assert box.add("pump.md", NOTE).status == 200
        archive = Path(box.post("/edge/v1/backup", {"name": "one"}).json["path"])
        assert box.add("later.md", b"# Later\n\nThis came later.\n").status == 200
        box.stop()
        damaged = archive.with_name("damaged.tar")
        damaged.write_bytes(archive.read_bytes()[:-20_000])
        for wrong in (damaged, box.home / "edge.toml", box.home / "no-such-file"):
            done = restore(box, wrong)
            assert done.returncode == 1
            assert str(wrong) in done.stderr
        done = restore(box, archive)
        assert done.returncode == 0, done.stderr
        kept = Path(json.loads(done.stdout)["kept"])
        assert {"index.db", "journal.db", "edge.toml"} <= {path.name for path in kept.iterdir()}
        box.start()
        assert [item["name"] for item in box.get("/edge/v1/documents").json["documents"]] == ["pump.md"]
        assert box.post("/edge/v1/search", {"query": "painted"}).json["hits"][0]["document"] == "pump.md"


def test_a_backup_that_names_other_files_is_refused(shared_store: Store, tmp_path: Path) -> None:
    with prepared(shared_store.root) as box:
        manifest = {"format": 1, "program": "x", "created": 0, "files": [{"name": "../x", "size": 1, "sha256": "0"}]}
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        with tarfile.open(tmp_path / "evil.tar", "w") as archive:
            archive.add(tmp_path / "manifest.json", "manifest.json")
        done = restore(box, tmp_path / "evil.tar")
        assert done.returncode == 1
        assert "no backup holds" in done.stderr


def test_a_full_disk_costs_the_backup_alone(shared_store: Store) -> None:
    with running(shared_store.root) as box:
        assert box.add("pump.md", NOTE).status == 200
        assert box.process is not None
        unlimited = resource.prlimit(box.process.pid, resource.RLIMIT_FSIZE)
        size = (box.home / "index.db").stat().st_size
        resource.prlimit(box.process.pid, resource.RLIMIT_FSIZE, (size // 2, unlimited[1]))
        reply = box.post("/edge/v1/backup", {"name": "one"})
        resource.prlimit(box.process.pid, resource.RLIMIT_FSIZE, unlimited)
        assert (reply.status, reply.error["code"]) == (507, "storage")
        assert list((box.home / "backups").iterdir()) == []
        assert box.post("/edge/v1/backup", {"name": "one"}).status == 200
