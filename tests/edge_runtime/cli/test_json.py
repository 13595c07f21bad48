"""``--json`` is a contract: what each command writes is compared with a golden file, volatile values masked.

``EDGE_GOLDEN=write pytest tests/edge_runtime/cli/test_json.py`` writes the files anew; look at the difference.
"""

from __future__ import annotations

import base64
import io
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from edge_runtime import knowledge_protocol, protocol
from edge_runtime.cli.main import edge
from models.machine import fingerprint
from models.store import Store
from tests.conftest import SMALL_WRITER
from tests.edge_runtime import samples
from tests.edge_runtime.cli.conftest import Shell
from tests.edge_runtime.cli.golden import compare
from tests.edge_runtime.scripted import json_reply
from tests.models.entries import entry_text, from_path, own

README = Path(protocol.__file__).parent / "cli" / "README.md"
# Why they have none: edge_runtime/cli/README.md.
WITHOUT = {"chat", "completion", "demo", "events"}
COMMANDS = {
    "status": ["status"],
    "ask": ["ask", "What does E17 mean?"],
    "search": ["search", "E17"],
    "docs": ["docs"],
    "rm": ["rm", "--yes", "pump.md"],
    "requests": ["requests"],
    "score": ["score", "The gland leaks.", "--choice", "mechanical", "--choice", "electrical"],
    "top": ["top"],
    "cancel": ["cancel", "req-1"],
    "backup": ["backup"],
    "doctor": ["doctor"],
    "paths": ["paths"],
    "adapter_list": ["adapter", "list"],
    "adapter_rm": ["adapter", "rm", "--yes", "pumps"],
    "index_export": ["index", "export", "site"],
    "index_mounts": ["index", "mounts"],
    "index_unmount": ["index", "unmount", "--yes", "vendor"],
    "index_report": ["index", "report"],
    "index_reembed": ["index", "reembed"],
    "model_list": ["model", "list"],
    **{f"model_{verb}": ["model", verb, SMALL_WRITER] for verb in ("load", "unload", "pin", "unpin")},
    "model_show": ["model", "show", SMALL_WRITER],
    "model_verify": ["model", "verify"],
}
# `model tune` has its golden file in tests/edge_runtime/engine/test_tuning.py, where one is measured.
APART = {
    "adapter add",
    "add",
    "eval",
    "index mount",
    "restore",
    "uninstall",
    "model pull",
    "model remove",
    "model tune",
}


def commands(group: click.Group = edge, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def test_every_command_has_json_and_a_golden_file_or_is_a_documented_exception() -> None:
    switched = {name for name, command in commands() if any("--json" in one.opts for one in command.params)}
    assert {name for name, _ in commands()} - switched == WITHOUT
    assert switched == APART | {name.replace("_", " ") for name in COMMANDS}
    (told,) = [line for line in README.read_text("utf-8").split("\n- ") if line.startswith("stdout is data")]
    assert all(f"`{name}`" in told for name in WITHOUT)


def masked(name: str, value: Any, home: Path) -> Any:
    """Without what differs between machines: paths, and what doctor finds on this one."""
    if name == "paths":
        return {key: path.replace(str(home), "HOME") if key != "build" else "BUILD" for key, path in value.items()}
    if name == "doctor":
        checks = [{**check, "state": "STATE", "detail": "DETAIL", "fix": "FIX"} for check in value["checks"]]
        return {"state": "STATE", "checks": checks}
    return value


@pytest.mark.parametrize("name", COMMANDS)
def test_json_of_a_command_is_what_was_agreed(name: str, shell: Shell) -> None:
    with shell.daemon():
        done = shell.edge(*COMMANDS[name], "--json")
    assert done.err == "" or name == "rm"
    assert done.code == (1 if name == "doctor" else 0)  # in a home without models, doctor finds that
    compare(name, masked(name, done.json, shell.home))


def test_json_of_adding_an_adapter_tells_what_it_is_and_its_bytes_travel(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "pumps.gguf").write_bytes(b"GGUF and more")
    with shell.daemon() as daemon:
        done = shell.edge("adapter", "add", tmp_path / "pumps.gguf", "--name", "pumps", "--json")
    assert (done.code, done.err) == (0, "")
    compare("adapter_add", done.json)
    (asked,) = [one for one in daemon.asked if one.method == "POST"]
    assert asked.json == {"name": "pumps", "content": base64.b64encode(b"GGUF and more").decode(), "base": None}


def test_json_of_pulling_and_removing_a_model_tells_its_bytes(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    known = from_path(tmp_path / "weights")
    own(shell.home / "models", "tiny", entry_text("tiny", [("weights", b"weights", known)]))
    own(shell.home / "models", "unrecorded", entry_text("unrecorded", [("weights", None, known)]))
    pulled = shell.edge("model", "pull", "tiny", "unrecorded", "--json")
    assert pulled.code == 0, pulled.err
    compare("model_pull", {**pulled.json, "store": pulled.json["store"].replace(str(shell.home), "HOME")})
    removed = shell.edge("model", "remove", "tiny", "unrecorded", "--yes", "--json")
    assert removed.code == 0, removed.err
    compare("model_remove", removed.json)


def test_json_of_a_tuning_that_this_machine_needs_no_more_names_the_form(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    own(shell.home / "models", "tiny", entry_text("tiny", [("weights", b"weights", from_path(tmp_path / "weights"))]))
    assert shell.edge("model", "pull", "tiny").code == 0
    (tmp_path / "variant").write_bytes(b"variant")
    store = Store(shell.home / "models", 2**30)
    store.add_variant("tiny", tmp_path / "variant", "Q8_0", figures={"limit": 0.02}, machine=fingerprint())
    done = shell.edge("model", "tune", "tiny", "--if-needed", "--json")
    assert done.code == 0, done.err
    compare("model_tune_already", done.json)


def test_json_of_a_restoring_tells_where_what_was_there_is_kept(shell: Shell, tmp_path: Path) -> None:
    archive = tmp_path / "box.tar"
    manifest = {"format": 1, "program": "0.1.0", "created": 0.0, "files": []}
    with tarfile.open(archive, "w") as tar:
        text = msgspec.json.encode(manifest)
        member = tarfile.TarInfo("manifest.json")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    done = shell.edge("restore", archive, "--json")
    assert (done.code, done.err) == (0, "")
    told = {key: path.replace(str(shell.home), "HOME") for key, path in done.json.items()}
    compare("restore", {"restored": Path(told["restored"]).name, "kept": re.sub(r"\d[\d-]+", "WHEN", told["kept"])})
    archive.write_bytes(b"no backup")
    failed = shell.edge("restore", archive, "--json", "--yes")
    assert (failed.code, failed.out, failed.err.startswith(f"error: {archive} ")) == (1, "", True)


def test_json_of_an_uninstalling_tells_what_was_removed_and_what_stays(shell: Shell) -> None:
    (shell.home / "index.db").write_bytes(b"index")
    (shell.home / "notes of mine.txt").write_text("keep", "utf-8")
    unasked = shell.edge("uninstall", "--json")
    assert (unasked.code, unasked.out, (shell.home / "index.db").exists()) == (2, "", True)
    done = shell.edge("uninstall", "--yes", "--json")
    assert done.code == 0
    compare("uninstall", msgspec.json.decode(done.out.replace(str(shell.home), "HOME")))
    nothing = shell.edge("uninstall", "--yes", "--json")
    assert (nothing.code, nothing.json["removed"]) == (0, [])


def test_json_of_add_tells_what_became_of_each_file(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "pump.md").write_text("# Pump", "utf-8")
    with shell.daemon():
        done = shell.edge("add", "pump.md", "missing.md", "--json", cwd=tmp_path)
    assert done.code == 1
    compare("add", done.json)


def test_json_holds_no_control_character_that_a_document_smuggled_in(shell: Shell) -> None:
    name = "evil\x1b[2J\x9b31m\u202etxt.md"
    documents = knowledge_protocol.DocumentList(documents=[msgspec.structs.replace(samples.DOCUMENT, name=name)])
    with shell.daemon({"GET /edge/v1/documents": json_reply(documents)}):
        done = shell.edge("docs", "--json")
    assert done.json["documents"][0]["name"] == name
    assert not {"\x1b", "\x9b", "\u202e"} & set(done.out)
