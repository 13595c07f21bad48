"""The client over a real Unix socket, against replies that a daemon should and should not give."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_runtime import errors, knowledge_protocol, openai_protocol, protocol
from edge_runtime.client import Client, connect_sync
from edge_runtime.engine_protocol import ScoreRequest
from edge_runtime.errors import BusyError
from edge_runtime.protocol import Urgency
from tests.edge_runtime.samples import ANSWER, CHAT, CHUNKS, DOCUMENT, ENGINE, SCORES, SENTENCES, SOURCES, STATUS
from tests.edge_runtime.scripted import Asked, Script, ScriptedDaemon, error_reply, json_reply, stream_reply

ASK = [("sources", SOURCES), *(("sentence", sentence) for sentence in SENTENCES), ("done", ANSWER)]
CHAT_REQUEST = openai_protocol.ChatRequest(model="m", messages=[openai_protocol.Message(role="user", content="hi")])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "edged.sock"


def read_status(path: Path, silence_s: float | None = None) -> protocol.Status:
    with connect_sync(path, silence_s=silence_s) as box:
        return box.status()


def ask_all(path: Path) -> list[object]:
    with connect_sync(path) as box:
        return list(box.ask_stream("why?"))


# ---- what works ----------------------------------------------------------------------------------------------------


def test_a_status_is_read_whole(path: Path) -> None:
    with ScriptedDaemon(path, {"GET /edge/v1/status": json_reply(STATUS)}) as daemon, connect_sync(path) as box:
        assert box.status() == STATUS
    assert daemon.asked[0].headers["connection"] == "close"


def test_an_answer_streams_as_sources_sentences_and_the_whole(path: Path) -> None:
    with ScriptedDaemon(path, {"POST /edge/v1/ask": stream_reply(ASK)}) as daemon:
        assert ask_all(path) == [SOURCES, *SENTENCES, ANSWER]
    assert daemon.asked[0].json == {
        "question": "why?",
        "collection": "default",
        "mode": "auto",
        "assembly": "auto",
        "filter": None,
        "stream": True,
        "edge": None,
    }


def test_events_that_a_newer_daemon_adds_are_passed_over(path: Path) -> None:
    events = [("sources", SOURCES), ("hint", {"new": 1}), ("done", ANSWER)]
    with ScriptedDaemon(path, {"POST /edge/v1/ask": stream_reply(events)}):
        assert ask_all(path) == [SOURCES, ANSWER]


def test_chat_chunks_come_in_order_and_end_at_done(path: Path) -> None:
    script = stream_reply([*((None, chunk) for chunk in CHUNKS), (None, "[DONE]")])
    with ScriptedDaemon(path, {"POST /v1/chat/completions": script}) as daemon, connect_sync(path) as box:
        assert list(box.chat_stream(CHAT_REQUEST)) == CHUNKS
    assert daemon.asked[0].json["stream"] is True


def test_a_whole_chat_is_asked_for_without_a_stream(path: Path) -> None:
    with ScriptedDaemon(path, {"POST /v1/chat/completions": json_reply(CHAT)}) as daemon, connect_sync(path) as box:
        assert box.chat(CHAT_REQUEST) == CHAT
    assert daemon.asked[0].json["stream"] is False


def test_a_document_travels_as_base64_and_its_passage_comes_back(path: Path) -> None:
    added = knowledge_protocol.DocumentAdded(document=DOCUMENT, unchanged=False)
    passage = knowledge_protocol.Passage(document="a b.md", document_id="d/1", start=2, end=5, text="ump")
    replies = {
        "POST /edge/v1/documents": json_reply(added),
        "GET /edge/v1/documents/d%2F1/text": json_reply(passage),
    }
    with ScriptedDaemon(path, replies) as daemon, connect_sync(path) as box:
        assert box.add_document("a b.md", b"\x00pump") == added
        assert box.document_text("d/1", 2, 5) == passage
    assert daemon.asked[0].json["content"] == "AHB1bXA="
    assert daemon.asked[1].target.endswith("?start=2&end=5")


def test_choices_are_scored_and_the_engine_is_looked_at(path: Path) -> None:
    request = ScoreRequest(prompt="Trouble:", choices=["mechanical", "electrical"], edge=Urgency(priority="batch"))
    replies = {"POST /edge/v1/score": json_reply(SCORES), "GET /edge/v1/engine": json_reply(ENGINE)}
    with ScriptedDaemon(path, replies) as daemon, connect_sync(path) as box:
        assert box.score(request) == SCORES
        assert box.engine() == ENGINE
    assert msgspec.convert(daemon.asked[0].json, ScoreRequest) == request


def test_a_question_carries_its_urgency(path: Path) -> None:
    with ScriptedDaemon(path, {"POST /edge/v1/ask": json_reply(ANSWER)}) as daemon, connect_sync(path) as box:
        box.ask("Which torque?", edge=Urgency(priority="realtime", deadline_ms=900))
    assert daemon.asked[0].json["edge"] == {"priority": "realtime", "deadline_ms": 900}


def test_a_refusal_tells_when_to_come_back(path: Path) -> None:
    (refused,) = error_reply(429, "busy", "no place is left; try again in 7 s").pieces
    script = Script((refused.replace(b"\r\n\r\n", b"\r\nRetry-After: 7\r\n\r\n", 1),))
    with ScriptedDaemon(path, {"GET /edge/v1/engine": script}), connect_sync(path) as box:
        with pytest.raises(BusyError) as busy:
            box.engine()
        assert busy.value.retry_after == 7


def test_interim_replies_are_passed_over(path: Path) -> None:
    whole = json_reply(STATUS).pieces[0]
    script = Script((b"HTTP/1.1 100 Continue\r\n\r\n", whole))
    with ScriptedDaemon(path, {"GET /edge/v1/status": script}), connect_sync(path) as box:
        assert box.status() == STATUS


def test_one_client_serves_many_calls_at_once(path: Path) -> None:
    async def crowd() -> list[protocol.Status]:
        client = Client(path)
        return list(await asyncio.gather(*(client.status() for _ in range(50))))

    with ScriptedDaemon(path, {"GET /edge/v1/status": json_reply(STATUS)}):
        assert asyncio.run(crowd()) == [STATUS] * 50


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_chunked_stream_reads_the_same_however_it_is_cut(path: Path, data: st.DataObject) -> None:
    stream = b"".join(stream_reply(ASK).pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = tuple(stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if a < b)
    with ScriptedDaemon(path, {"POST /edge/v1/ask": Script(pieces)}):
        assert ask_all(path) == [SOURCES, *SENTENCES, ANSWER]


def test_a_chunked_stream_cut_at_every_byte_reads_the_same(path: Path) -> None:
    stream = b"".join(stream_reply(ASK).pieces)
    pieces = tuple(stream[i : i + 1] for i in range(len(stream)))
    with ScriptedDaemon(path, {"POST /edge/v1/ask": Script(pieces)}):
        assert ask_all(path) == [SOURCES, *SENTENCES, ANSWER]


# ---- leaving early -------------------------------------------------------------------------------------------------


def test_leaving_a_stream_closes_its_connection(path: Path) -> None:
    with ScriptedDaemon(path, {"POST /edge/v1/ask": stream_reply(ASK[:2], hold=True)}) as daemon:
        with connect_sync(path) as box:
            for event in box.ask_stream("why?"):
                assert event == SOURCES
                break
        assert daemon.left.wait(10)


def test_cancelling_the_task_closes_its_connection(path: Path) -> None:
    async def leave() -> None:
        async def read() -> None:
            async with aclosing(Client(path).ask_stream("why?")) as events:
                async for _ in events:
                    arrived.set()

        arrived = asyncio.Event()
        reading = asyncio.create_task(read())
        await arrived.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    with ScriptedDaemon(path, {"POST /edge/v1/ask": stream_reply(ASK[:1], hold=True)}) as daemon:
        asyncio.run(leave())
        assert daemon.left.wait(10)


def test_ctrl_c_in_a_blocking_call_closes_the_connection_and_the_client_goes_on(path: Path) -> None:
    replies = {
        "POST /edge/v1/ask": stream_reply(ASK[:1], hold=True),
        "GET /edge/v1/status": json_reply(STATUS),
    }
    with ScriptedDaemon(path, replies) as daemon, connect_sync(path) as box:
        stream = box.ask_stream("why?")
        assert next(stream) == SOURCES
        main = threading.get_ident()
        threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            next(stream)
        assert daemon.left.wait(10)
        assert box.status() == STATUS


# ---- what the daemon refuses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.RequestError),
        (404, errors.NotFoundError),
        (403, errors.PermissionDeniedError),
        (422, errors.DocumentError),
        (429, errors.BusyError),
        (503, errors.EngineError),
        (507, errors.StorageError),
    ],
)
def test_an_error_of_the_daemon_is_raised_as_itself(path: Path, status: int, kind: type[errors.EdgeError]) -> None:
    script = error_reply(status, kind.code, "what; and what to do")
    with ScriptedDaemon(path, {"GET /edge/v1/status": script}), connect_sync(path) as box:
        with pytest.raises(kind, match="what to do") as raised:
            box.status()
        assert type(raised.value) is kind


def test_an_error_before_a_stream_is_raised(path: Path) -> None:
    with ScriptedDaemon(path, {"POST /edge/v1/ask": error_reply(429, "busy", "full")}), pytest.raises(errors.BusyError):
        ask_all(path)


@pytest.mark.parametrize("name", ["error", None])
def test_an_error_inside_a_stream_is_raised(path: Path, name: str | None) -> None:
    failed = protocol.ErrorReply(error=protocol.ErrorBody(message="gone", type="x", code="engine_unavailable"))
    script = stream_reply([("sources", SOURCES), (name, failed)])
    with ScriptedDaemon(path, {"POST /edge/v1/ask": script}), pytest.raises(errors.EngineError, match="gone"):
        ask_all(path)


def test_a_refusal_before_the_body_was_read_is_heard(path: Path) -> None:
    refusal = error_reply(413, "request_too_large", "too large")
    script = Script(refusal.pieces, read_body=False)
    daemon = ScriptedDaemon(path, {"POST /edge/v1/documents": script})
    with daemon, connect_sync(path) as box, pytest.raises(errors.TooLargeError):
        box.add_document("big.bin", b"x" * 30_000_000)


def test_an_error_without_a_reason_still_tells_its_status(path: Path) -> None:
    script = Script((b"HTTP/1.1 502 Bad\r\nContent-Length: 4\r\n\r\noops",))
    with ScriptedDaemon(path, {"GET /edge/v1/status": script}), pytest.raises(errors.EdgeError, match="502"):
        read_status(path)


# ---- what no daemon should do --------------------------------------------------------------------------------------


def test_a_missing_socket_says_how_to_start_the_daemon(path: Path) -> None:
    with connect_sync(path) as box, pytest.raises(errors.UnreachableError, match=r"no daemon at .*edge demo"):
        box.status()


def test_a_socket_that_nobody_serves_is_no_daemon(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with connect_sync(path) as box, pytest.raises(errors.UnreachableError, match="no daemon"):
        box.status()


def test_a_path_too_long_for_a_socket_is_an_error_of_ours(tmp_path: Path) -> None:
    with connect_sync(tmp_path / ("x" * 200)) as box, pytest.raises(errors.UnreachableError, match="EDGE_SOCKET"):
        box.status()


@pytest.mark.parametrize("garbage", [b"\x00\xff\x00 garbage\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"])
def test_a_server_that_speaks_no_http_is_named_as_such(path: Path, garbage: bytes) -> None:
    with (
        ScriptedDaemon(path, {"GET /edge/v1/status": Script((garbage,), hold=True)}),
        pytest.raises(errors.UnreachableError, match="does not speak HTTP"),
    ):
        read_status(path)


def test_a_reply_cut_anywhere_is_an_error_and_never_half_an_answer(path: Path) -> None:
    whole = json_reply(STATUS).pieces[0]
    for cut in (0, 5, 40, len(whole) - 1):
        with (
            ScriptedDaemon(path, {"GET /edge/v1/status": Script((whole[:cut],))}),
            pytest.raises(errors.UnreachableError),
        ):
            read_status(path)


@pytest.mark.parametrize("end", [True, False])
def test_a_stream_that_ends_before_it_is_done_is_an_error(path: Path, end: bool) -> None:
    script = stream_reply(ASK[:2], end=end)
    with ScriptedDaemon(path, {"POST /edge/v1/ask": script}), pytest.raises(errors.UnreachableError, match="ended"):
        ask_all(path)


def test_a_silent_daemon_is_given_up_after_the_time_allowed(path: Path) -> None:
    with ScriptedDaemon(path, {"GET /edge/v1/status": Script((), hold=True)}) as daemon:
        with connect_sync(path, silence_s=0.2) as box, pytest.raises(errors.DeadlineError, match="said nothing"):
            box.status()
        assert daemon.left.wait(10)


def test_a_body_of_another_shape_is_an_error_that_names_the_field(path: Path) -> None:
    with (
        ScriptedDaemon(path, {"GET /edge/v1/status": json_reply({"ready": "yes"})}),
        pytest.raises(errors.EdgeError, match="one version"),
    ):
        read_status(path)


@pytest.fixture
def crowded(path: Path) -> Iterator[Path]:
    """A socket whose backlog is full."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        waiting = []
        while True:
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            waiting.append(client)
            try:
                client.connect(str(path))
            except BlockingIOError:
                break
        yield path
        for client in waiting:
            client.close()


def test_a_daemon_with_a_full_backlog_is_busy(crowded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_runtime.http1._CONNECT_SECONDS", 0.2)
    with connect_sync(crowded) as box, pytest.raises(errors.BusyError):
        box.status()


def test_no_descriptor_is_left_open(path: Path) -> None:
    def many(_: Asked) -> Script:
        return json_reply(STATUS)

    with ScriptedDaemon(path, {"GET /edge/v1/status": many}), connect_sync(path) as box:
        box.status()
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(20):
            box.status()
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2  # the server's own end may still be closing
