"""What the daemon tells its children to load: files from the store, rules from the catalogue."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edge_runtime.config import Config, ModelsConfig
from edge_runtime.daemon.children import ModelFiles
from edge_runtime.errors import ModelFileError
from models.store import Store
from tests.conftest import EMBEDDER, SMALL_WRITER
from tests.models.entries import entry_text, from_path, place

RERANKER = "ms-marco-minilm-l6-v2-int8"


def entry(name: str, rules: str, kind: str = "writer") -> str:
    """An entry whose table [chat] or [prompt] is ``rules``; its files are never fetched."""
    files = ["weights"] if kind == "writer" else ["weights", "tokenizer"]
    text = entry_text(name, [(role, None, from_path(Path("/nowhere"))) for role in files], kind)
    return text.replace('[chat]\nstop = ["<|im_end|>"]\n', f"[chat]\n{rules}\n").replace(
        "[prompt]\n", f"[prompt]\n{rules}\n"
    )


@pytest.fixture
def root(tmp_path: Path, shared_store: Store) -> Path:
    """A store with the installed models' manifests and files, and a catalogue of its own."""
    (tmp_path / "blobs").symlink_to(shared_store.root / "blobs")
    shutil.copytree(shared_store.root / "installed", tmp_path / "installed")
    return tmp_path


def files(root: Path, *, writer: str = SMALL_WRITER, embedder: str = EMBEDDER) -> ModelFiles:
    return ModelFiles(Config(models=ModelsConfig(writer=writer, embedder=embedder)), root)


def test_the_shipped_embedder_is_loaded_as_its_entry_says(root: Path) -> None:
    load = files(root).embedder()
    assert (load.pooling, load.window, load.query, load.passage) == ("mean", 256, "", "")


def test_an_owners_rules_for_the_embedder_are_what_it_is_told(root: Path) -> None:
    place(root, EMBEDDER, entry(EMBEDDER, 'pooling = "cls"\nwindow = 128\nquery = "q: "\npassage = "p: "', "embedder"))
    load = files(root).embedder()
    assert (load.pooling, load.window, load.query, load.passage) == ("cls", 128, "q: ", "p: ")


def test_an_owners_rules_for_the_writer_are_what_it_is_prompted_with(root: Path) -> None:
    place(root, SMALL_WRITER, entry(SMALL_WRITER, 'template = "{{ messages }}"\nsystem = false\nthinking = false'))
    chat = files(root).chat()
    assert (chat.template, chat.system, chat.thinking, chat.stop) == ("{{ messages }}", False, False, ())
    assert files(root).writer().name == SMALL_WRITER


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ('pooling = "score"', r"prompt\.pooling is score"),
        ('pooling = "median"', r"prompt\.pooling"),
        ("window = 100000", r"prompt\.window is 100000"),
    ],
)
def test_a_rule_that_no_embedder_can_follow_is_refused_by_its_name(root: Path, rules: str, why: str) -> None:
    place(root, EMBEDDER, entry(EMBEDDER, rules, "embedder"))
    with pytest.raises(ModelFileError, match=why) as refused:
        files(root).embedder()
    assert "edge model pull" not in refused.value.message


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ('template = "{{ messages"', r"chat\.template .*line 1 is not Jinja"),
        ('template = ""', r"chat\.template is empty"),
        ('thinking = "no"', r"chat\.thinking"),
    ],
)
def test_a_rule_that_no_writer_can_follow_is_refused_by_its_name(root: Path, rules: str, why: str) -> None:
    place(root, SMALL_WRITER, entry(SMALL_WRITER, rules))
    with pytest.raises(ModelFileError, match=why):
        files(root).writer()


@pytest.mark.parametrize("name", [RERANKER, SMALL_WRITER])
def test_a_model_of_another_kind_is_no_embedder(root: Path, name: str) -> None:
    with pytest.raises(ModelFileError, match=rf"models\.embedder is {name}, and kind in its catalogue entry is"):
        files(root, embedder=name).embedder()


def test_a_model_of_another_kind_is_no_writer(root: Path) -> None:
    with pytest.raises(ModelFileError, match=r"models\.writer is .* and kind in its catalogue entry is embedder"):
        files(root, writer=EMBEDDER).writer()


def test_a_model_that_is_not_here_is_answered_with_the_command_that_brings_it(root: Path) -> None:
    with pytest.raises(ModelFileError, match=r"edge model pull qwen3-0\.6b"):
        files(root, writer="qwen3-0.6b").writer()
