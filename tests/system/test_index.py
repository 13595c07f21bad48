"""The index as a thing to carry and to look after, on a real box: export, mount, another embedder, compaction."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.store import Store
from tests.box import PATIENCE, Box, prepared, running
from tests.conftest import EMBEDDER

PUMP = "# Pump P{n}\n\nAlarm E{n} means low suction pressure of pump P{n}. Tighten its gland bolts to {n}5 Nm.\n"


@pytest.fixture(scope="module")
def box(shared_store: Store) -> Iterator[Box]:
    with running(shared_store.root) as started:
        for number in range(1, 5):
            assert started.add(f"{number}.md", PUMP.format(n=number).encode(), "pumps").status == 200
        assert started.add("v.md", b"# Valve\n\nThe valve V3 closes in 4 seconds.\n", "valves").status == 200
        yield started


def edge(box: Box, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "edge_runtime.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "EDGE_HOME": str(box.home)},
        timeout=PATIENCE,
    )
    assert done.returncode == code, (done.stdout, done.stderr, box.log[-2000:])
    return done


def told(box: Box, *arguments: str | Path) -> Any:
    return json.loads(edge(box, *arguments, "--json").stdout)


def first(box: Box, query: str, **fields: Any) -> str:
    reply = box.post("/edge/v1/search", {"query": query, "k": 1, **fields})
    assert reply.status == 200, reply.body
    name: str = reply.json["hits"][0]["document"]
    return name


def test_an_exported_index_answers_on_another_box_beside_its_own(box: Box, shared_store: Store, tmp_path: Path) -> None:
    file = tmp_path / "site.index"
    written = told(box, "index", "export", "site", "-o", file)
    assert (written["path"], written["collections"], written["documents"]) == (str(file), ["pumps", "valves"], 5)
    assert list((box.home / "exports").iterdir()) == []
    with running(shared_store.root) as other:
        other.add("own.md", b"# Own\n\nAlarm E3 means that the own door is open.\n")
        mounted = told(other, "index", "mount", file, "--name", "site", "--sha256", written["sha256"])
        assert mounted["collections"] == ["site-pumps", "site-valves"]
        assert first(other, "gland bolts of pump P3", collection="site-pumps") == "3.md"
        assert first(other, "alarm E3") == "own.md"
        answer = other.post("/edge/v1/ask", {"question": "What does alarm E3 mean?", "collection": "site-pumps"}).json
        assert answer["grounded"]
        assert "low suction pressure" in answer["answer"]
        cited = answer["citations"][0]
        place = f"start={cited['locator']['start']}&end={cited['locator']['end']}"
        passage = other.get(f"/edge/v1/documents/{cited['document_id']}/text?{place}").json
        assert passage["text"] == cited["quote"]
        assert other.stop() == 0
        other.start()
        other.wait(lambda: [one["trouble"] for one in told(other, "index", "mounts")["mounts"]] == [""])
        assert first(other, "gland bolts of pump P3", collection="site-pumps") == "3.md"
        told(other, "index", "unmount", "site", "--yes")
        assert other.post("/edge/v1/search", {"query": "pump", "collection": "site-pumps"}).status == 404
        assert list((other.home / "mounts").iterdir()) == []


def test_a_mounted_collection_cannot_be_changed_here(box: Box, tmp_path: Path) -> None:
    told(box, "index", "export", "valves", "--collection", "valves", "-o", tmp_path / "v.index")
    told(box, "index", "mount", tmp_path / "v.index", "--name", "vendor")
    added = box.add("more.md", b"# More\n\nMore of it.\n", "vendor")
    assert (added.status, added.error["code"]) == (409, "refused")
    hit = box.post("/edge/v1/search", {"query": "valve", "collection": "vendor"}).json["hits"][0]
    removed = box.delete(f"/edge/v1/documents/{hit['document_id']}")
    assert (removed.status, removed.error["code"]) == (409, "refused")
    lowered = box.post("/edge/v1/collections", {"name": "vendor", "sensitivity": "public"})
    assert (lowered.status, lowered.error["code"]) == (409, "refused")
    raised = box.post("/edge/v1/collections", {"name": "vendor", "sensitivity": "secret", "uids": [4711]})
    assert raised.json == {"name": "vendor", "sensitivity": "secret", "uids": [4711], "gids": [], "mounted": True}
    assert first(box, "valve", collection="vendor") == "v.md"
    told(box, "index", "unmount", "vendor", "--yes")


def test_what_cannot_be_mounted_is_refused_and_leaves_nothing_in_the_home(box: Box, tmp_path: Path) -> None:
    told(box, "index", "export", "whole", "-o", tmp_path / "whole.index")
    data = (tmp_path / "whole.index").read_bytes()
    for name, content in {
        "cut": data[:20_000],
        "text": b"words",
        "empty": b"",
        "plain": data[:16] + bytes(8176),
    }.items():
        (tmp_path / name).write_bytes(content)
        failed = edge(box, "index", "mount", tmp_path / name, "--name", "bad", code=1)
        assert f"error: {name} is " in failed.stderr
    edge(box, "index", "mount", tmp_path / "missing", "--name", "bad", code=1)
    edge(box, "index", "mount", tmp_path, "--name", "bad", code=2)
    edge(box, "index", "mount", tmp_path / "whole.index", "--name", "bad", "--sha256", "0" * 64, code=1)
    edge(box, "index", "mount", tmp_path / "whole.index", "--name", "../bad", code=2)
    assert list((box.home / "mounts").iterdir()) == []
    assert told(box, "index", "mounts") == {"mounts": []}
    assert box.status()["ready"]


def test_an_export_under_a_name_that_is_taken_is_refused(box: Box, tmp_path: Path) -> None:
    (tmp_path / "x.index").touch()
    assert "already there" in edge(box, "index", "export", "x", "-o", tmp_path / "x.index", code=4).stderr
    told(box, "index", "export", "x")
    assert "there already" in edge(box, "index", "export", "x", code=4).stderr
    assert "those are: pumps, valves" in edge(box, "index", "export", "y", "--collection", "z", code=1).stderr
    assert [path.name for path in (box.home / "exports").iterdir()] == ["x.index"]
    (box.home / "exports" / "x.index").unlink()


def test_doctor_tells_of_a_mounted_file_that_is_gone(box: Box, tmp_path: Path) -> None:
    told(box, "index", "export", "v", "--collection", "valves", "-o", tmp_path / "v.index")
    told(box, "index", "mount", tmp_path / "v.index", "--name", "vendor")
    next((box.home / "mounts").glob("*.index")).unlink()
    (check,) = [one for one in told(box, "doctor")["checks"] if one["id"] == "mounts"]
    assert check["state"] == "warn"
    assert "vendor" in check["detail"]
    failed = box.post("/edge/v1/search", {"query": "valve", "collection": "vendor"})
    assert (failed.status, failed.error["code"]) == (507, "storage")
    assert first(box, "valve", collection="valves") == "v.md"
    told(box, "index", "unmount", "vendor", "--yes")


# ---- another embedder ----------------------------------------------------------------------------------------------


def rename(home: Path, name: str) -> None:
    """The embedder under another name of the catalogue: another model, as far as the box can tell."""
    (home / "models" / "catalog").mkdir(exist_ok=True)
    entry = Path(__import__("models").__path__[0]) / "catalog" / f"{EMBEDDER}.toml"
    text = entry.read_text("utf-8").replace(f'name = "{EMBEDDER}"', f'name = "{name}"')
    (home / "models" / "catalog" / f"{name}.toml").write_text(text, "utf-8")
    record = home / "models" / "installed" / f"{EMBEDDER}.json"
    named = record.read_text("utf-8").replace(f'"name": "{EMBEDDER}"', f'"name": "{name}"')
    (home / "models" / "installed" / f"{name}.json").write_text(named, "utf-8")


def choose(home: Path, name: str) -> None:
    settings = (home / "edge.toml").read_text("utf-8")
    former = next(line for line in settings.splitlines() if line.startswith("embedder"))
    (home / "edge.toml").write_text(settings.replace(former, f'embedder = "{name}"'), "utf-8")


@pytest.mark.parametrize("former_stays", [True, False])
def test_after_a_change_of_the_embedder_the_old_index_answers_until_the_new_one_is_there(
    shared_store: Store, former_stays: bool
) -> None:
    with prepared(shared_store.root) as box:
        rename(box.home, "another")
        choose(box.home, "another")
        box.start()
        for number in range(1, 4):
            assert box.add(f"{number}.md", PUMP.format(n=number).encode()).status == 200
        ids = {one["name"]: one["id"] for one in box.get("/edge/v1/documents").json["documents"]}
        assert box.stop() == 0
        choose(box.home, EMBEDDER)
        if not former_stays:
            (box.home / "models" / "installed" / "another.json").unlink()
        box.start()
        assert "edge index reembed" in box.status()["note"]
        refused = box.add("4.md", b"# More\n\nMore.\n")
        assert (refused.status, refused.error["code"]) == (409, "refused")
        assert first(box, "gland bolts of pump P3") == "3.md"
        assert box.post("/edge/v1/search", {"query": "pump", "mode": "dense"}).status == (200 if former_stays else 409)
        question = {"question": "What does alarm E2 mean?"}
        assert box.post("/edge/v1/ask", question).status == (200 if former_stays else 409)
        done = told(box, "index", "reembed")
        assert (done["embedder"], done["reembedded"], done["note"]) == (done["embedder_now"], None, "")
        assert done["coverage"] == 1.0
        assert box.status()["note"] == ""
        assert box.post("/edge/v1/ask", question).json["grounded"]
        assert {one["name"]: one["id"] for one in box.get("/edge/v1/documents").json["documents"]} == ids
        assert box.add("4.md", b"# More\n\nMore of pump P4.\n").status == 200
        assert first(box, "more of pump P4", mode="dense") == "4.md"
        assert not (box.home / "index.next.db").exists()
        again = box.post("/edge/v1/index/reembed")
        assert (again.status, again.error["code"]) == (409, "refused")


def test_embedding_anew_goes_on_after_a_kill(shared_store: Store) -> None:
    with prepared(shared_store.root) as box:
        rename(box.home, "another")
        box.start()
        for number in range(1, 13):
            text = " ".join(PUMP.format(n=number * 100 + part) for part in range(15))
            assert box.add(f"{number}.md", text.encode()).status == 200
        assert box.stop() == 0
        choose(box.home, "another")
        box.start()
        assert box.post("/edge/v1/index/reembed").json["documents"] == 12
        box.wait(lambda: (box.get("/edge/v1/index").json["reembedded"] or 0) > 0.2)
        box.stop(signal.SIGKILL)
        assert (box.home / "index.next.db").exists()
        box.start()
        box.wait(lambda: box.get("/edge/v1/index").json["embedder"].startswith("another@"))
        assert len(box.get("/edge/v1/documents").json["documents"]) == 12
        assert first(box, "gland bolts of pump P905", mode="dense") == "9.md"


# ---- space ---------------------------------------------------------------------------------------------------------


def test_compacting_gives_back_what_removed_documents_took(shared_store: Store) -> None:
    with running(shared_store.root) as box:
        kept = box.add("kept.md", PUMP.format(n=1).encode()).json["document"]["id"]
        for number in range(2, 8):
            text = " ".join(PUMP.format(n=number * 100 + part) for part in range(20))
            assert box.add(f"{number}.md", text.encode()).status == 200
        for one in box.get("/edge/v1/documents").json["documents"]:
            if one["id"] != kept:
                assert box.delete(f"/edge/v1/documents/{one['id']}").status == 200
        done = box.post("/edge/v1/index/compact").json
        assert done["after_bytes"] <= done["before_bytes"]
        report = box.get("/edge/v1/index").json
        assert (report["documents"], report["free_bytes"]) == (1, 0)
        assert first(box, "alarm E1") == "kept.md"


def test_everyone_who_may_look_sees_the_report_and_the_rest_is_the_owner_s(box: Box) -> None:
    report = box.get("/edge/v1/index").json
    assert (report["documents"], report["coverage"]) == (5, 1.0)
    assert report["embedder"] == report["embedder_now"]
    assert report["embedder"].startswith(f"{EMBEDDER}@sha256-")
