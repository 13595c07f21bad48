"""``edge add``, ``docs`` and ``rm``: what is read, what is skipped and said, what is removed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from edge_runtime import knowledge_protocol
from tests.edge_runtime import samples
from tests.edge_runtime.cli.conftest import Shell
from tests.edge_runtime.scripted import Asked, Script, ScriptedDaemon, error_reply, json_reply


def sent(daemon: ScriptedDaemon) -> list[str]:
    """The names of the documents that were sent, sorted: several are on their way at once."""
    target = "/edge/v1/documents"
    return sorted(asked.json["name"] for asked in daemon.asked if (asked.method, asked.target) == ("POST", target))


def test_folders_are_added_recursively_under_the_name_of_the_folder(shell: Shell, tmp_path: Path) -> None:
    manuals = tmp_path / "manuals"
    (manuals / "pumps").mkdir(parents=True)
    (manuals / "pumps" / "p12.md").write_text("x", "utf-8")
    (manuals / "a.txt").write_text("y", "utf-8")
    (manuals / ".hidden").write_text("z", "utf-8")
    with shell.daemon() as daemon:
        done = shell.edge("add", manuals)
    names = sent(daemon)
    assert (done.code, names) == (0, ["manuals/a.txt", "manuals/pumps/p12.md"])
    assert done.err.endswith("added 2 documents, 14 passages\n")


def test_the_folder_of_the_shell_is_added_under_its_own_name(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "station"
    folder.mkdir()
    (folder / "a.md").write_text("x", "utf-8")
    with shell.daemon() as daemon:
        shell.edge("add", ".", cwd=folder)
    assert daemon.asked[-1].json["name"] == "station/a.md"


def test_a_loop_of_links_ends_and_each_folder_is_read_once(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "up").symlink_to(folder)
    (folder / "b" / "x.md").write_text("x", "utf-8")
    (folder / "dangling").symlink_to(folder / "nowhere")
    with shell.daemon() as daemon:
        done = shell.edge("add", folder)
    assert sent(daemon) == ["a/b/x.md"]
    assert done.code == 1
    assert "dangling: No such file or directory" in done.err


def test_a_link_out_of_the_folder_is_not_read(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret", "utf-8")
    (tmp_path / "others").mkdir()
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "x.md").write_text("x", "utf-8")
    (folder / "file").symlink_to(tmp_path / "secret.txt")
    (folder / "folder").symlink_to(tmp_path / "others")
    with shell.daemon() as daemon:
        done = shell.edge("add", folder)
    assert sent(daemon) == ["mine/x.md"]
    assert done.err.count("a link out of the folder") == 2


def test_what_cannot_be_read_is_skipped_with_its_reason_and_the_rest_is_added(shell: Shell, tmp_path: Path) -> None:
    for name in ("good.md", "scan.pdf", "last.md"):
        (tmp_path / name).write_text("x", "utf-8")
    os.mkfifo(tmp_path / "pipe.md")

    def add(asked: Asked) -> Script:
        if asked.json["name"] == "scan.pdf":
            return error_reply(422, "unreadable_document", "this PDF is a scan and holds no text; run OCR on it first")
        return json_reply(knowledge_protocol.DocumentAdded(document=samples.DOCUMENT, warnings=["page 2 is empty"]))

    with shell.daemon({"POST /edge/v1/documents": add}):
        done = shell.edge("add", "good.md", "scan.pdf", "pipe.md", "nothing.md", "last.md", cwd=tmp_path)
    assert done.code == 1
    assert "skipped: scan.pdf: this PDF is a scan and holds no text; run OCR on it first" in done.err
    assert "skipped: pipe.md: it is neither a file nor a folder" in done.err
    assert "skipped: nothing.md: No such file or directory" in done.err
    assert "note: good.md: page 2 is empty" in done.err
    assert done.err.endswith("added 2 documents, 14 passages; 3 skipped\n")


def test_a_file_over_the_limit_is_not_even_read(shell: Shell, tmp_path: Path) -> None:
    (shell.home / "edge.toml").write_text("[knowledge]\ndocument_bytes = 1000\n", "utf-8")
    (tmp_path / "big.md").write_bytes(b"x" * 1001)
    with shell.daemon() as daemon:
        done = shell.edge("add", tmp_path / "big.md")
    assert (done.code, [asked.method for asked in daemon.asked]) == (1, ["GET"])
    assert "the limit is 1000 B" in done.err


def test_two_files_of_one_name_do_not_replace_each_other(shell: Shell, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "manual.md").write_text(folder, "utf-8")
    with shell.daemon() as daemon:
        done = shell.edge("add", "a/manual.md", "b/manual.md", cwd=tmp_path)
    assert len(sent(daemon)) == 1
    assert (done.code, "has the same name" in done.err) == (1, True)


def test_a_full_disk_ends_the_command_at_once(shell: Shell, tmp_path: Path) -> None:
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text("x", "utf-8")
    full = error_reply(507, "storage", "the disk is full; free some space")
    with shell.daemon({"POST /edge/v1/documents": full}):
        done = shell.edge("add", "a.md", "b.md", cwd=tmp_path)
    assert done.code == 1
    assert "error: the disk is full\n  free some space" in done.err


def test_a_file_name_that_is_not_utf8_still_travels(shell: Shell, tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.md")
    Path(name).write_bytes(b"x")
    with shell.daemon() as daemon:
        assert shell.edge("add", name).code == 0
    assert daemon.asked[-1].json["name"] == "caf\ufffd.md"


def test_removing_says_what_was_purged(shell: Shell) -> None:
    with shell.daemon():
        done = shell.edge("rm", "--yes", "pump.md")
    assert (done.code, done.err) == (0, "removed pump.md\npurged 7 chunks, 9 vectors, 1 answers\n")


def test_removing_without_a_terminal_needs_yes(shell: Shell) -> None:
    with shell.daemon() as daemon:
        done = shell.edge("rm", "pump.md")
    assert (done.code, "add --yes" in done.err) == (2, True)
    assert all(asked.method == "GET" for asked in daemon.asked)


def test_removing_what_is_not_there_removes_nothing(shell: Shell) -> None:
    with shell.daemon() as daemon:
        done = shell.edge("rm", "--yes", "pump.md", "missing.md")
    assert (done.code, "no document has the name or id missing.md" in done.err) == (1, True)
    assert all(asked.method == "GET" for asked in daemon.asked)


def test_a_name_in_two_collections_must_be_told_apart(shell: Shell) -> None:
    documents = [
        samples.DOCUMENT,
        msgspec.structs.replace(samples.DOCUMENT, id="d9", collection="maintenance"),
    ]
    with shell.daemon(
        {"GET /edge/v1/documents": json_reply(knowledge_protocol.DocumentList(documents=documents))}
    ) as daemon:
        unclear = shell.edge("rm", "--yes", "pump.md")
        assert shell.edge("rm", "--yes", "pump.md", "--collection", "default").code == 0
    assert (unclear.code, "default, maintenance" in unclear.err) == (2, True)
    assert daemon.asked[-1].target == "/edge/v1/documents/d1"


# ---- what is there already, tags and dates -------------------------------------------------------------------------


def test_a_file_that_is_there_unchanged_is_not_sent(shell: Shell, tmp_path: Path) -> None:
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text(name, "utf-8")
    there = msgspec.structs.replace(samples.DOCUMENT, name="a.md")
    reply = json_reply(knowledge_protocol.DocumentList(documents=[there]))
    with shell.daemon({"POST /edge/v1/documents/check": reply}) as daemon:
        done = shell.edge("add", "a.md", "b.md", "--tag", "pumps", "--date", "2026-05-01", cwd=tmp_path)
    (asked,) = [asked.json for asked in daemon.asked if asked.target.endswith("/check")]
    assert asked["documents"][0] == {"name": "a.md", "sha256": hashlib.sha256(b"a.md").hexdigest()}
    assert (asked["tags"], asked["date"]) == (["pumps"], "2026-05-01")
    assert sent(daemon) == ["b.md"]
    assert (done.code, done.err.endswith("added 1 documents, 7 passages; 1 unchanged\n")) == (0, True)


def test_tags_and_date_travel_with_the_document(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("x", "utf-8")
    with shell.daemon() as daemon:
        shell.edge("add", tmp_path / "a.md", "--tag", "pumps", "--tag", "hall-2", "--date", "2026-05-01")
    assert (daemon.asked[-1].json["tags"], daemon.asked[-1].json["date"]) == (["pumps", "hall-2"], "2026-05-01")


def test_a_day_that_is_none_is_a_usage_error(shell: Shell, tmp_path: Path) -> None:
    with shell.daemon() as daemon:
        done = shell.edge("add", tmp_path, "--date", "2026-02-30")
    assert (done.code, daemon.asked, "YYYY-MM-DD" in done.err) == (2, [], True)


def test_a_million_small_files_are_asked_about_in_parts(shell: Shell, tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number}.txt").touch()

    def all_there(asked: Asked) -> Script:
        found = [msgspec.structs.replace(samples.DOCUMENT, name=one["name"]) for one in asked.json["documents"]]
        return json_reply(knowledge_protocol.DocumentList(documents=found))

    with shell.daemon({"POST /edge/v1/documents/check": all_there}) as daemon:
        done = shell.edge("add", tmp_path)
    assert sent(daemon) == []
    assert max(len(asked.json["documents"]) for asked in daemon.asked if asked.body) == 64
    assert "300 unchanged" in done.err


def test_a_daemon_that_dies_on_the_way_leaves_word_of_what_was_added_and_how_to_go_on(
    shell: Shell, tmp_path: Path
) -> None:
    (tmp_path / "a.md").write_text("x", "utf-8")
    with shell.daemon({"POST /edge/v1/documents": Script(())}):
        done = shell.edge("add", tmp_path / "a.md")
    assert done.code == 3
    assert "added 0 documents" in done.err
    assert "the same command goes on from there" in done.err


def test_the_index_is_told_in_numbers_that_do_not_round_up(shell: Shell) -> None:
    report = msgspec.structs.replace(samples.INDEX, coverage=0.99996)
    with shell.daemon({"GET /edge/v1/index": json_reply(report)}):
        lines = dict(line.split(maxsplit=1) for line in shell.edge("docs", "--stats").out.splitlines())
    assert (lines["documents"], lines["embedded"]) == ("7", "99.9 % of the text")


def test_compacting_says_what_it_gave_back(shell: Shell) -> None:
    with shell.daemon():
        done = shell.edge("docs", "compact")
    assert (done.code, done.err) == (0, "the index took 5 MiB and takes 2 MiB\n")


def test_documents_are_listed_and_removed_by_tag(shell: Shell) -> None:
    documents = [
        msgspec.structs.replace(samples.DOCUMENT, id=f"d{n}", name=f"{n}.md", tags=["pumps", *(["old"] * (n < 3))])
        for n in range(1, 5)
    ]
    replies = {
        "GET /edge/v1/documents": json_reply(knowledge_protocol.DocumentList(documents=documents)),
        "DELETE /edge/v1/documents/d2": json_reply(knowledge_protocol.Removed(removed=["d2"], purged={})),
    }
    with shell.daemon(replies) as daemon:
        listed = shell.edge("docs", "--tag", "pumps", "--tag", "old")
        removed = shell.edge("rm", "--yes", "--tag", "old")
        nothing = shell.edge("rm", "--yes", "--tag", "new")
        unnamed = shell.edge("rm", "--yes")
    assert [line.split()[0] for line in listed.out.splitlines()] == ["NAME", "1.md", "2.md"]
    assert removed.code == 0
    assert [one.target for one in daemon.asked if one.method == "DELETE"] == [
        f"/edge/v1/documents/d{n}" for n in (1, 2)
    ]
    assert (nothing.code, unnamed.code) == (1, 2)
