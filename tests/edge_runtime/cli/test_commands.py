"""What the commands say and with which code they exit, before a scripted daemon or none."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from edge_runtime import knowledge_protocol, protocol
from edge_runtime.cli.main import COMMANDS, edge
from tests.edge_runtime import samples
from tests.edge_runtime.cli.conftest import PATIENCE, Shell
from tests.edge_runtime.scripted import Script, error_reply, json_reply, stream_reply

EVERY = [name for section in COMMANDS.values() for name in section]
OF_MODEL = ["list", "show", "pull", "remove", "verify", "tune", "load", "unload", "pin", "unpin"]
OF_ADAPTER = ["add", "list", "rm"]


# ---- the program ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [*EVERY, *(f"model {one}" for one in OF_MODEL), *(f"adapter {one}" for one in OF_ADAPTER)]
)
def test_every_command_has_help_with_an_example(name: str) -> None:
    context = edge.make_context("edge", ["--help"], resilient_parsing=True)
    command = edge.get_command(context, name.split(maxsplit=1)[0])
    for part in name.split()[1:]:
        command = command.get_command(context, part)  # type: ignore[union-attr]
    assert command is not None
    shown = command.get_help(context)
    assert "Example:" in shown
    assert f"edge {name}" in shown


def test_the_list_of_commands_says_what_each_command_says_of_itself() -> None:
    context = edge.make_context("edge", ["--help"], resilient_parsing=True)
    for section in COMMANDS.values():
        for name, (_, text) in section.items():
            command = edge.get_command(context, name)
            assert command is not None
            assert command.short_help == text


@pytest.mark.parametrize("arguments", [["--help"], ["status"], ["docs"], ["--version"]])
def test_quick_commands_import_nothing_heavy(shell: Shell, arguments: list[str]) -> None:
    program = (
        "import sys; from edge_runtime.cli.main import run; run(sys.argv[1:]);"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    with shell.daemon():
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], env=shell.world, capture_output=True, text=True, check=True
        )
    heavy = {"rich", "textual", "llama_cpp", "numpy", "prompt_toolkit", "onnxruntime", "apsw", "aiohttp", "httpx2"}
    assert heavy.isdisjoint(done.stderr.split())


def test_edge_alone_shows_help_examples_and_the_state_of_the_daemon(shell: Shell) -> None:
    stopped = shell.edge()
    assert (stopped.code, stopped.out.count("    edge ")) == (0, 3)
    assert "no daemon at" in stopped.err
    with shell.daemon():
        assert "The daemon is ready: 1 documents" in shell.edge().err


def test_version_names_four_things(shell: Shell) -> None:
    lines = shell.edge("--version").out.splitlines()
    assert [line.split()[0] for line in lines] == ["edge", "protocol", "llama-cpp-python", "sqlite-vec"]


def test_an_unknown_command_is_a_usage_error(shell: Shell) -> None:
    done = shell.edge("frobnicate")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: No such command")


@pytest.mark.parametrize("group", ["model", "adapter"])
def test_a_group_without_a_command_shows_its_help_as_it_is_and_is_a_usage_error(shell: Shell, group: str) -> None:
    done = shell.edge(group)
    assert (done.code, done.out) == (2, "")
    assert done.err == shell.edge(group, "--help").out


@pytest.mark.parametrize("arguments", [["status"], ["ask", "x"], ["docs"], ["search", "x"], ["add", "."], ["events"]])
def test_without_a_daemon_a_command_exits_3_and_says_how_to_start_one(shell: Shell, arguments: list[str]) -> None:
    done = shell.edge(*arguments)
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("error: no daemon at ")
    assert "\n  start it: " in done.err


def test_a_reader_that_leaves_early_ends_the_command_quietly(shell: Shell) -> None:
    documents = [msgspec.structs.replace(samples.DOCUMENT, name=f"{n}.md") for n in range(20_000)]
    with shell.daemon({"GET /edge/v1/documents": json_reply(knowledge_protocol.DocumentList(documents=documents))}):
        command = f"{sys.executable} -m edge_runtime.cli docs | head -n 1"
        done = subprocess.run(command, shell=True, env=shell.world, capture_output=True, text=True)
    assert (done.stdout.split()[0], done.stderr) == ("NAME", "")


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: Shell, name: str) -> None:
    assert "_EDGE_COMPLETE" in shell.edge("completion", name).out


def test_completion_completes_commands(shell: Shell) -> None:
    shell.environment = {"_EDGE_COMPLETE": "bash_complete", "COMP_WORDS": "edge sta", "COMP_CWORD": "1"}
    assert "status" in shell.edge().out


# ---- status, requests, events --------------------------------------------------------------------------------------


def test_a_daemon_that_is_not_ready_gives_exit_code_1(shell: Shell) -> None:
    loading = msgspec.structs.replace(samples.STATUS, ready=False, detail="the engine is starting")
    with shell.daemon({"GET /edge/v1/status": json_reply(loading)}):
        plain, data = shell.edge("status"), shell.edge("status", "--json")
    assert (plain.code, data.code, data.json["ready"]) == (1, 1, False)
    assert "not ready: the engine is starting" in plain.out


def test_a_refusal_of_the_daemon_gives_exit_code_4_and_its_fix(shell: Shell) -> None:
    refusal = error_reply(403, "permission_denied", "uid 7 may not look; join the group edge")
    with shell.daemon({"GET /edge/v1/requests": refusal}):
        done = shell.edge("requests")
    assert (done.code, done.err) == (4, "error: uid 7 may not look\n  join the group edge\n")


@pytest.mark.parametrize("arguments", [["status"], ["ask", "x"], ["ask", "x", "--json"], ["search", "x"]])
def test_a_deadline_that_passed_in_the_daemon_gives_exit_code_5(shell: Shell, arguments: list[str]) -> None:
    late = error_reply(504, "deadline_exceeded", "it took over 2 s; ask for less")
    replies = {"GET /edge/v1/status": late, "POST /edge/v1/ask": late, "POST /edge/v1/search": late}
    with shell.daemon(replies):
        done = shell.edge(*arguments)
    assert (done.code, done.out, done.err) == (5, "", "error: it took over 2 s\n  ask for less\n")


def test_a_deadline_in_the_middle_of_an_answer_gives_exit_code_5(shell: Shell) -> None:
    failed = protocol.ErrorReply(
        error=protocol.ErrorBody(message="late; ask again", type="x", code="deadline_exceeded")
    )
    events = [("sources", samples.SOURCES), ("sentence", samples.SENTENCES[0]), ("error", failed)]
    with shell.daemon({"POST /edge/v1/ask": stream_reply(events)}):
        done = shell.edge("ask", "x")
    assert (done.code, done.out) == (5, "E17 means low suction pressure. [1]\n")


@pytest.mark.parametrize("arguments", [["events"], ["ask", "x"], ["ask", "x", "--json"]])
def test_ctrl_c_exits_with_130_and_the_daemon_hears_of_it(shell: Shell, arguments: list[str]) -> None:
    # A test runner in the background may have handed down an ignored SIGINT: env gives it back.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "edge_runtime.cli", *arguments]
    held = stream_reply([], hold=True)
    with shell.daemon({"GET /edge/v1/events": held, "POST /edge/v1/ask": held}) as daemon:
        following = subprocess.Popen(
            command, env=shell.world, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with following:
            end = time.monotonic() + PATIENCE
            while not daemon.asked and time.monotonic() < end:
                time.sleep(0.01)
            following.send_signal(signal.SIGINT)
            out, err = following.communicate(timeout=PATIENCE)
        assert daemon.left.wait(PATIENCE)
    assert (following.returncode, out, err.strip()) == (130, "", "interrupted")


def test_cancel_names_the_request_to_the_daemon(shell: Shell) -> None:
    with shell.daemon() as daemon:
        assert shell.edge("cancel", "req-1").code == 0
        missing = shell.edge("cancel", "req-2")
    assert (daemon.asked[0].method, missing.code) == ("DELETE", 1)


def test_events_are_one_json_object_a_line(shell: Shell) -> None:
    events = [protocol.Event(kind="document.added", at=1.0, fields={"name": f"a\n{n}"}) for n in range(3)]
    with shell.daemon({"GET /edge/v1/events": stream_reply([(event.kind, event) for event in events])}):
        done = shell.edge("events")
    assert [msgspec.json.decode(line, type=protocol.Event) for line in done.out.splitlines()] == events
    assert "the daemon stopped" in done.err


# ---- ask -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--no-stream"]])
def test_an_answer_shows_sentences_and_then_the_quotes_they_rest_on(shell: Shell, options: list[str]) -> None:
    with shell.daemon():
        done = shell.edge("ask", "What does E17 mean?", *options)
    assert (done.code, done.err) == (0, "")
    answer, _, quotes = done.out.partition("\n\n")
    if not options:
        assert answer == "E17 means low suction pressure. [1] A blocked strainer was the cause once. [2] [1]"
    assert quotes == (
        "[1] pump.md, Alarms\n"
        '    "E17: low suction pressure at the pump."\n'
        "[2] log [2026].pdf, page 3\n"
        '    "The strainer was blocked when E17 came up."\n'
    )


def test_a_question_that_the_documents_do_not_answer_is_said_so(shell: Shell) -> None:
    script = stream_reply([("done", samples.DECLINED)])
    with shell.daemon({"POST /edge/v1/ask": script}):
        done = shell.edge("ask", "What is the price?")
    assert (done.code, done.out) == (0, "The documents do not say.\n")


@pytest.mark.parametrize("arguments", [["ask", "x"], ["ask", "x", "--json"], ["search", "x"]])
def test_an_unknown_collection_is_answered_with_those_that_there_are(shell: Shell, arguments: list[str]) -> None:
    unknown = error_reply(404, "not_found", "there is no collection pumps; make it first")
    documents = [
        msgspec.structs.replace(samples.DOCUMENT, collection=name) for name in ("winches", "manuals", "winches")
    ]
    replies = {
        "POST /edge/v1/ask": unknown,
        "POST /edge/v1/search": unknown,
        "GET /edge/v1/documents": json_reply(knowledge_protocol.DocumentList(documents=documents)),
    }
    with shell.daemon(replies):
        done = shell.edge(*arguments, "--collection", "pumps")
    assert (done.code, done.out) == (1, "")
    assert done.err == "error: there is no collection pumps\n  collections that hold documents: manuals, winches\n"


@pytest.mark.parametrize(("confidence", "near"), [(0.4, True), (0.01, False)])
def test_a_declined_question_shows_what_is_near_it_and_nothing_else(
    shell: Shell, *, confidence: float, near: bool
) -> None:
    declined = msgspec.structs.replace(
        samples.DECLINED, citations=samples.ANSWER.citations, confidence=confidence
    )  # fmt: skip
    with shell.daemon({"POST /edge/v1/ask": json_reply(declined)}):
        done = shell.edge("ask", "why?", "--no-stream")
    assert done.out.startswith("The documents do not say.\n")
    assert ("The nearest that they say:" in done.out) is near
    assert ("[1]" in done.out) is near


def test_steps_stand_on_lines_of_their_own_and_their_quotes_are_not_repeated(shell: Shell) -> None:
    steps = ["1. Open valve V2.", "2. Press the green button."]
    citations = [msgspec.structs.replace(samples.CITATION, quote=step) for step in steps]
    events = [
        ("sources", knowledge_protocol.Sources(id="a", citations=citations)),
        *(("sentence", knowledge_protocol.Sentence(text=step, citations=[n])) for n, step in enumerate(steps)),
        ("done", samples.ANSWER),
    ]
    with shell.daemon({"POST /edge/v1/ask": stream_reply(events)}):
        done = shell.edge("ask", "How?")
    assert done.out == (
        "1. Open valve V2. [1]\n2. Press the green button. [2]\n\n[1] to [2] pump.md, Alarms, word for word\n"
    )


def test_escapes_in_an_answer_and_its_sources_are_made_visible(shell: Shell) -> None:
    citation = msgspec.structs.replace(samples.CITATION, document="a\x1b]0;x\x07.md", quote="q\x1b[2Jq \u202eabc")
    events = [
        ("sources", knowledge_protocol.Sources(id="a", citations=[citation])),
        ("sentence", knowledge_protocol.Sentence(text="[bold]red\x1b[31m[/bold]\x9b5m", citations=[0])),
        ("done", samples.ANSWER),
    ]
    with shell.daemon({"POST /edge/v1/ask": stream_reply(events)}):
        done = shell.edge("ask", "x")
    assert "[bold]red\\x1b[31m[/bold]\\x9b5m [1]" in done.out
    assert "a\\x1b]0;x\\x07.md" in done.out
    assert "q\\x1b[2Jq \\u202eabc" in done.out
    assert not {"\x1b", "\x9b", "\x07", "\u202e"} & set(done.out)


def test_an_error_in_the_middle_of_an_answer_keeps_what_came_and_exits_1(shell: Shell) -> None:
    failed = protocol.ErrorReply(
        error=protocol.ErrorBody(message="it crashed; ask again", type="x", code="engine_unavailable")
    )
    events = [("sources", samples.SOURCES), ("sentence", samples.SENTENCES[0]), ("error", failed)]
    with shell.daemon({"POST /edge/v1/ask": stream_reply(events)}):
        done = shell.edge("ask", "x")
    assert (done.code, done.out) == (1, "E17 means low suction pressure. [1]\n")
    assert done.err == "error: it crashed\n  ask again\n"


def test_a_terminal_without_unicode_gets_escapes_instead_of_a_crash(shell: Shell) -> None:
    shell.environment = {"PYTHONIOENCODING": "ascii"}
    answer = msgspec.structs.replace(samples.DECLINED, answer="25 N·m, größer")
    with shell.daemon({"POST /edge/v1/ask": stream_reply([("done", answer)])}):
        assert shell.edge("ask", "x").out == "25 N\\xb7m, gr\\xf6\\xdfer\n"


# ---- add, docs, rm -------------------------------------------------------------------------------------------------


def test_chat_answers_each_line_of_stdin(shell: Shell) -> None:
    with shell.daemon() as daemon:
        done = shell.edge("chat", given="What is E17?\n\n/docs\n/model\n/sources\nAgain?\n/quit\nnever asked\n")
    asked = [one.json["question"] for one in daemon.asked if one.method == "POST"]
    assert (done.code, asked) == (0, ["What is E17?", "Again?"])
    assert done.out.count("E17 means low suction pressure. [1]") == 2
    assert "writer    smollm2-135m-instruct" in done.out


def test_chat_shows_where_a_source_stands(shell: Shell) -> None:
    passage = knowledge_protocol.Passage(
        document="pump.md", document_id="d1", start=0, end=560, text="before E17: low. after"
    )
    with shell.daemon({"GET /edge/v1/documents/d1/text": json_reply(passage)}) as daemon:
        done = shell.edge("chat", given="What is E17?\n/sources 1\n/sources 9\n/nothing\n")
    assert "before E17: low. after" in done.out
    assert "start=0&end=560" in daemon.asked[-1].target
    assert "the last answer has 2 sources" in done.err
    assert "there is no command /nothing" in done.err


def test_chat_goes_on_after_an_error_and_exits_with_its_code(shell: Shell) -> None:
    answers = iter([error_reply(429, "busy", "full; try again"), usual_answer()])
    with shell.daemon({"POST /edge/v1/ask": lambda _: next(answers)}):
        done = shell.edge("chat", given="one\ntwo\n")
    assert done.code == 1
    assert "error: full\n  try again" in done.err
    assert "E17 means low" in done.out


def usual_answer() -> Script:
    sentences = [("sentence", sentence) for sentence in samples.SENTENCES]
    return stream_reply([("sources", samples.SOURCES), *sentences, ("done", samples.ANSWER)])


# ---- paths, backup, uninstall --------------------------------------------------------------------------------------


def test_backup_moves_the_file_where_it_is_wanted(shell: Shell, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.write_bytes(b"backup")
    reply = json_reply(protocol.BackupReply(path=str(made), size=6, files=["index.db"]))
    with shell.daemon({"POST /edge/v1/backup": reply}):
        done = shell.edge("backup", tmp_path / "mine")
        again = shell.edge("backup", tmp_path / "mine")
    assert (done.code, (tmp_path / "mine").read_bytes(), made.exists()) == (0, b"backup", False)
    assert (again.code, "already there" in again.err) == (1, True)


def test_uninstalling_removes_what_is_the_boxs_and_nothing_else(shell: Shell) -> None:
    (shell.home / "models" / "blobs").mkdir(parents=True)
    (shell.home / "models" / "blobs" / "x").write_bytes(b"x" * 2048)
    (shell.home / "models" / "blobs").chmod(0o500)
    for name in ("index.db", "index.db-wal", "journal.db"):
        (shell.home / name).write_bytes(b"x")
    (shell.home / "notes of mine.txt").write_text("keep", "utf-8")
    unasked = shell.edge("uninstall")
    assert (unasked.code, (shell.home / "index.db").exists()) == (2, True)
    assert f"2 KiB  {shell.home}/models" in unasked.out
    done = shell.edge("uninstall", "--yes")
    assert done.code == 0
    assert [path.name for path in shell.home.iterdir()] == ["notes of mine.txt"]
    assert "still holds: notes of mine.txt" in done.err


def test_uninstalling_a_box_that_is_only_ours_removes_its_home(shell: Shell) -> None:
    (shell.home / "index.db").write_bytes(b"x")
    assert shell.edge("uninstall", "--yes").code == 0
    assert not shell.home.exists()


def test_uninstalling_is_refused_while_the_daemon_runs(shell: Shell) -> None:
    import fcntl

    (shell.home / "run").mkdir()
    (shell.home / "index.db").write_bytes(b"x")
    with (shell.home / "run" / "edged.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = shell.edge("uninstall", "--yes")
    assert (done.code, (shell.home / "index.db").exists()) == (4, True)
    assert "stop it first" in done.err
