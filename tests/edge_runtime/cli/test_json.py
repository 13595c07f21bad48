"""``--json`` is a contract: what each command writes is compared with a golden file, volatile values masked.

``EDGE_GOLDEN=write pytest tests/edge_runtime/cli/test_json.py`` writes the files anew; look at the difference.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.edge_runtime.cli.conftest import Shell

GOLDEN = Path(__file__).parent / "golden"
COMMANDS = {
    "status": ["status"],
    "ask": ["ask", "What does E17 mean?"],
    "search": ["search", "E17"],
    "docs": ["docs"],
    "rm": ["rm", "--yes", "pump.md"],
    "requests": ["requests"],
    "backup": ["backup"],
    "doctor": ["doctor"],
    "paths": ["paths"],
    "model_list": ["model", "list"],
    "model_show": ["model", "show", "smollm2-135m-instruct"],
    "model_verify": ["model", "verify"],
}


def masked(name: str, value: Any, home: Path) -> Any:
    """Without what differs between machines: paths, and what doctor finds on this one."""
    if name == "paths":
        return {key: path.replace(str(home), "HOME") if key != "build" else "BUILD" for key, path in value.items()}
    if name == "doctor":
        checks = [{**check, "state": "STATE", "detail": "DETAIL", "fix": "FIX"} for check in value["checks"]]
        return {"state": "STATE", "checks": checks}
    return value


def compare(name: str, value: Any) -> None:
    file = GOLDEN / f"{name}.json"
    if os.environ.get("EDGE_GOLDEN") == "write":
        file.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
    assert value == json.loads(file.read_text("utf-8"))


@pytest.mark.parametrize("name", COMMANDS)
def test_json_of_a_command_is_what_was_agreed(name: str, shell: Shell) -> None:
    with shell.daemon():
        done = shell.edge(*COMMANDS[name], "--json")
    assert done.err == "" or name == "rm"
    assert done.code == (1 if name == "doctor" else 0)  # in a home without models, doctor finds that
    compare(name, masked(name, done.json, shell.home))


def test_json_of_add_tells_what_became_of_each_file(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "pump.md").write_text("# Pump", "utf-8")
    with shell.daemon():
        done = shell.edge("add", "pump.md", "missing.md", "--json", cwd=tmp_path)
    assert done.code == 1
    compare("add", done.json)


def test_json_holds_no_control_character_that_a_document_smuggled_in(shell: Shell) -> None:
    import msgspec

    from edge_runtime import protocol
    from tests.edge_runtime import samples
    from tests.edge_runtime.scripted import json_reply

    name = "evil\x1b[2J\x9b31m\u202etxt.md"
    documents = protocol.DocumentList(documents=[msgspec.structs.replace(samples.DOCUMENT, name=name)])
    with shell.daemon({"GET /edge/v1/documents": json_reply(documents)}):
        done = shell.edge("docs", "--json")
    assert done.json["documents"][0]["name"] == name
    assert not {"\x1b", "\x9b", "\u202e"} & set(done.out)
