"""One real ``edged`` whose owner has catalogue entries of his own: their rules reach the writer and the embedder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_runtime.embedding.onnx import Encoder, Reading
from models.store import Store
from tests.box import Box, prepared
from tests.conftest import EMBEDDER, SMALL_WRITER
from tests.edge_runtime.daemon.test_children import entry
from tests.models.entries import own

# No ChatML, no system role, a mode of its own; the texts end in what the model goes on with: numbers.
CHAT = r"""
template = '''
{%- for m in messages %}{% if m.role == "system" %}{{ raise_exception("no system role") }}{% endif %}{% endfor -%}
{%- if enable_thinking is defined and not enable_thinking %}Numbers. {% endif -%}
{%- for m in messages %}{{ m.content }} {% endfor -%}
1 2 3 4 5 6'''
system = false
thinking = false
stop = ["9", "<|endoftext|>"]
"""
PROMPT = 'pooling = "cls"\nwindow = 128\nquery = "What is asked: "\npassage = "What is known: "'
READING = Reading(pooling="cls", window=128, query="What is asked: ", passage="What is known: ")
GREEDY = {"model": "default", "temperature": 0, "max_tokens": 16}


@pytest.fixture(scope="module")
def box(shared_store: Store) -> Iterator[Box]:
    with prepared(shared_store.root) as made:
        own(made.home / "models", SMALL_WRITER, entry(SMALL_WRITER, CHAT))
        own(made.home / "models", EMBEDDER, entry(EMBEDDER, PROMPT, "embedder"))
        yield made.start()


@pytest.fixture(scope="module")
def encoder(embedder_files: tuple[Path, Path]) -> Encoder:
    return Encoder(*embedder_files, threads=1, reading=READING)


def complete(box: Box, prompt: str, **fields: Any) -> tuple[str, str, int]:
    reply = box.post("/v1/completions", {**GREEDY, "prompt": prompt, **fields})
    assert reply.status == 200, reply.body
    choice = reply.json["choices"][0]
    return choice["text"], choice["finish_reason"], reply.json["usage"]["prompt_tokens"]


def chat(box: Box, *turns: tuple[str, str], **fields: Any) -> tuple[str, str, int]:
    messages = [{"role": role, "content": content} for role, content in turns]
    reply = box.post("/v1/chat/completions", {**GREEDY, "messages": messages, **fields})
    assert reply.status == 200, reply.body
    choice = reply.json["choices"][0]
    return choice["message"]["content"], choice["finish_reason"], reply.json["usage"]["prompt_tokens"]


def test_the_owners_template_without_a_system_role_and_its_stop_strings_reach_the_engine(box: Box) -> None:
    written = "Numbers. Count.\n\nUpwards. 1 2 3 4 5 6"
    free, _, length = complete(box, written)
    assert "9" in free
    text, reason, prompt_tokens = chat(box, ("system", "Count."), ("user", "Upwards."))
    assert (text, reason) == (free[: free.index("9")], "stop")
    assert prompt_tokens == length


def test_the_callers_stop_strings_count_beside_the_catalogues(box: Box) -> None:
    text, reason, _ = chat(box, ("system", "Count."), ("user", "Upwards."), stop=["8"])
    assert reason == "stop"
    assert "7" in text
    assert "8" not in text


def test_ignoring_the_end_ignores_the_catalogues_stop_strings(box: Box) -> None:
    text, reason, _ = chat(box, ("system", "Count."), ("user", "Upwards."), ignore_eos=True)
    assert reason == "length"
    assert "9" in text


def test_embeddings_are_those_of_a_passage_read_by_the_owners_rules(box: Box, encoder: Encoder) -> None:
    text = "Close the suction valve first."
    found = box.post("/v1/embeddings", {"model": "default", "input": text}).json["data"][0]["embedding"]
    (expected,) = encoder.encode([piece.ids for piece in encoder.read(text, "passage")])
    assert np.dot(found, expected) > 0.9999


def test_a_search_reads_its_question_as_a_query_and_the_documents_as_passages(box: Box, encoder: Encoder) -> None:
    assert box.add("valve.txt", b"Close the suction valve before the pump is opened.").status == 200
    question = "Which valve is closed?"
    (hit,) = box.post("/edge/v1/search", {"query": question, "mode": "dense", "k": 1}).json["hits"]
    query = encoder.encode([piece.ids for piece in encoder.read(question, "query")])[0]
    passage, other = (
        encoder.encode([piece.ids for piece in encoder.read(text, "passage")])[0] for text in (hit["text"], question)
    )
    assert hit["score"] == pytest.approx(float(query @ passage), abs=2e-3)
    assert hit["score"] != pytest.approx(float(other @ passage), abs=2e-3)


def test_an_index_is_not_read_with_vectors_of_other_rules(box: Box) -> None:
    box.stop()
    (box.home / "models" / "catalog" / f"{EMBEDDER}.toml").unlink()
    box.start(ready=False)
    box.wait(lambda: "holds vectors of" in box.status()["note"])
    assert " cls 'What is known: '" in box.status()["note"]
