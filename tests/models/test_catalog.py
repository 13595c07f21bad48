"""The shipped catalogue, and what an entry may say."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import catalog
from models.catalog import Hub, Packages
from models.errors import CatalogError, ModelError, UnknownModelError
from tests.models.entries import entry_text, from_hub, from_path, own

_GOOD = entry_text("tiny", [("weights", b"bytes", from_hub("a/b", "c.gguf"))])


def test_every_shipped_entry_can_be_read_and_the_starter_set_is_there() -> None:
    entries = catalog.load()

    assert {"qwen2.5-coder-0.5b-instruct", "smollm2-135m-instruct", "all-minilm-l6-v2-int8"} <= set(entries)
    assert {entry.kind for entry in entries.values()} == {"writer", "embedder", "reranker"}


def test_the_starter_set_can_be_had_without_a_hub_and_its_digests_are_known() -> None:
    for name in ("qwen2.5-coder-0.5b-instruct", "smollm2-135m-instruct", "all-minilm-l6-v2-int8"):
        for file in catalog.find(name).files:
            assert isinstance(file.sources[-1], Packages)
            assert file.sha256 is not None
            assert file.size is not None


def test_the_hub_is_tried_before_packages_everywhere() -> None:
    for entry in catalog.load().values():
        for file in entry.files:
            kinds = [type(source) for source in file.sources]
            assert Hub not in kinds[1:], f"{entry.name}: {file.name}"


def test_no_digest_stands_without_where_it_comes_from() -> None:
    for entry in catalog.load().values():
        for file in entry.files:
            assert (file.sha256 is None) == (file.digest_source is None), entry.name
            # The shipped ones were all computed from the bytes; hearsay is no record.
            assert file.digest_source is None or file.digest_source.startswith("computed from "), entry.name
        for loss in entry.losses:
            assert loss.source_sha256 == entry.file("weights").sha256, entry.name


def test_an_unknown_name_is_answered_with_the_nearest_ones() -> None:
    with pytest.raises(UnknownModelError, match=r"smollm2-135m-instruct"):
        catalog.find("smollm-135m-instruct")


def test_an_owners_entry_replaces_the_shipped_one_of_its_name(tmp_path: Path) -> None:
    own(
        tmp_path, "smollm2-135m-instruct", entry_text("smollm2-135m-instruct", [("weights", None, from_path(tmp_path))])
    )

    assert catalog.find("smollm2-135m-instruct", tmp_path / "catalog").parameters == 1000
    assert catalog.find("smollm2-135m-instruct").parameters > 1000


def test_an_owners_entry_under_another_file_name_is_refused(tmp_path: Path) -> None:
    own(tmp_path, "other", _GOOD)

    with pytest.raises(CatalogError, match=r"name the file tiny\.toml"):
        catalog.load(tmp_path / "catalog")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('kind = "writer"', 'kind = "poet"', "poet"),
        ('title = "tiny"\n', "", "title"),
        ('title = "tiny"', "title = 7", "title"),
        ('good_at = "tests"', 'good_at = "tests"\ncolour = "red"', "colour"),
        ('name = "tiny"', 'name = "../tiny"', "lower-case letters"),
        ('role = "weights"', 'role = "tokenizer"', "one file with role weights"),
        ('digest_source = "test"\n', "", "belong together"),
        ('sha256 = "', 'sha256 = "Z', "64 lower-case"),
        ('name = "weights.bin"', 'name = "../../etc/passwd"', "plain file name"),
        ("[chat]\n", "[prompt]\n", "stop"),
        ("context = 512", "context = [", "not a catalogue entry"),
    ],
)
def test_a_wrong_entry_is_refused_with_what_is_wrong(old: str, new: str, why: str) -> None:
    assert old in _GOOD
    with pytest.raises(CatalogError, match=why):
        catalog.parse(_GOOD.replace(old, new, 1))


_EMBEDDER = entry_text(
    "tiny", [("weights", None, from_hub("a/b", "c.onnx")), ("tokenizer", None, from_hub("a/b", "t.json"))], "embedder"
)


@pytest.mark.parametrize(
    ("text", "old", "new", "why"),
    [
        (_GOOD, "[chat]\n", '[chat]\ntemplate = " "\n', r"chat\.template is empty"),
        (_GOOD, "[chat]\nstop = [", '[chat]\nstop = ["", ', r"chat\.stop holds an empty string"),
        (_EMBEDDER, "[prompt]\n", '[prompt]\npooling = "score"\n', r"prompt\.pooling is score"),
        (_EMBEDDER, "[prompt]\n", "[prompt]\nwindow = 0\n", r"prompt\.window is 0"),
        (_EMBEDDER, "[prompt]\n", "[prompt]\nwindow = 513\n", r"prompt\.window is 513.*context of 512"),
    ],
)
def test_a_prompt_rule_that_cannot_be_is_refused_by_its_name(text: str, old: str, new: str, why: str) -> None:
    catalog.parse(text)
    assert old in text
    with pytest.raises(CatalogError, match=why):
        catalog.parse(text.replace(old, new, 1))


def test_an_entry_is_found_while_another_one_is_wrong(tmp_path: Path) -> None:
    own(tmp_path, "tiny", _GOOD)
    (tmp_path / "catalog" / "broken.toml").write_text("name = ", "utf-8")

    assert catalog.find("tiny", tmp_path / "catalog").parameters == 1000
    assert catalog.find("smollm2-135m-instruct", tmp_path / "catalog").kind == "writer"
    with pytest.raises(CatalogError, match=r"broken\.toml"):
        catalog.find("broken", tmp_path / "catalog")
    with pytest.raises(CatalogError, match=r"broken\.toml"):
        catalog.load(tmp_path / "catalog")


@given(st.text(max_size=300) | st.builds(lambda cut: _GOOD[:cut], st.integers(0, len(_GOOD))))
def test_whatever_the_text_parsing_gives_an_entry_or_a_model_error(text: str) -> None:
    try:
        entry = catalog.parse(text)
    except ModelError:
        return
    assert tomllib.loads(text)["name"] == entry.name


def test_a_recorded_loss_is_found_by_format_and_source() -> None:
    loss = f"""
[[losses]]
format = "Q4_0"
source_sha256 = "{"a" * 64}"
sha256 = "{"b" * 64}"
mean_kl = 0.1
same_top = 0.9
perplexity_change = 0.05
tokens = 4096
"""
    entry = catalog.parse(_GOOD + loss)

    found = entry.loss("Q4_0", "a" * 64)
    assert found is not None
    assert found.mean_kl == 0.1
    assert entry.loss("Q4_0", "c" * 64) is None
    assert entry.loss("Q8_0", "a" * 64) is None
