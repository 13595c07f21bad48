"""What the commands about models and adapters say, and that they check all names before they change anything."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edge_runtime import adapter_protocol
from tests.edge_runtime import samples
from tests.edge_runtime.cli.conftest import Shell
from tests.edge_runtime.scripted import json_reply
from tests.models.entries import entry_text, from_path, own


def test_an_unknown_model_is_named_with_the_nearest_known_one(shell: Shell) -> None:
    done = shell.edge("model", "show", "smollm2-135m")
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert "smollm2-135m-instruct" in done.err


def test_pulling_an_unknown_model_starts_nothing(shell: Shell) -> None:
    assert shell.edge("model", "pull", "no-such-model").code == 1
    assert not (shell.home / "models").exists()


def test_removing_models_of_which_one_is_not_there_removes_none_and_asks_nothing(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"weights")
    known = from_path(tmp_path / "weights")
    own(shell.home / "models", "tiny", entry_text("tiny", [("weights", b"weights", known)]))
    assert shell.edge("model", "pull", "tiny").code == 0
    done = shell.edge("model", "remove", "tiny", "nope", "--json")
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines() == ["error: nope is not installed", "  `edge model list` shows what is"]
    assert (shell.home / "models" / "installed" / "tiny.json").exists()
    twice = shell.edge("model", "remove", "tiny", "tiny", "--yes", "--json")
    assert [one["name"] for one in twice.json["removed"]] == ["tiny"]


@pytest.mark.parametrize("name", ["", ".", ".."])
@pytest.mark.parametrize("arguments", [["model", "load"], ["model", "pin"], ["cancel"]])
def test_what_cannot_be_a_name_is_refused_before_the_daemon_is_asked(
    shell: Shell, arguments: list[str], name: str
) -> None:
    with shell.daemon() as daemon:
        done = shell.edge(*arguments, name)
    assert (done.code, daemon.asked) == (2, [])
    assert f'error: "{name}" is no name' in done.err


def test_adapters_whose_base_was_removed_are_listed_as_such(shell: Shell) -> None:
    lost = msgspec.structs.replace(samples.LISTED_ADAPTER, name="fans", base="gone", base_installed=False)
    reply = adapter_protocol.AdapterList(adapters=[lost, samples.LISTED_ADAPTER])
    with shell.daemon({"GET /edge/v1/adapters": json_reply(reply)}):
        done = shell.edge("adapter", "list")
    _, first, second = done.out.splitlines()
    assert (first.endswith("base not installed"), second.endswith("MiB")) == (True, True)
    assert "gone is not installed" in done.err
    assert "edge model pull gone" in done.err


def test_removing_adapters_of_which_one_is_not_there_removes_none(shell: Shell) -> None:
    with shell.daemon() as daemon:
        done = shell.edge("adapter", "rm", "pumps", "fans", "--yes")
        assert (done.code, "no adapter is called fans" in done.err) == (1, True)
        assert not [one for one in daemon.asked if one.method == "DELETE"]
        twice = shell.edge("adapter", "rm", "pumps", "pumps", "--yes")
    assert twice.code == 0
    assert [one.target for one in daemon.asked if one.method == "DELETE"] == ["/edge/v1/adapters/pumps"]


@pytest.mark.parametrize("path", ["/dev/zero", "/"])
def test_what_is_no_file_is_not_read_as_an_adapter(shell: Shell, path: str) -> None:
    done = shell.edge("adapter", "add", path, "--name", "pumps")
    assert (done.code, "is no file" in done.err) == (2, True)
