"""Texts that a grammar holds: whatever the model or chance says, what comes out is what was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from benchmarks.schemas import Case, varied
from edge_runtime.engine import structure
from edge_runtime.engine.llama import Llama, Logits, Shape
from edge_runtime.engine.schemas import narrow
from edge_runtime.engine.structure import Calls, Document, Function, Structure
from edge_runtime.engine.structured import Grammars, Matcher
from edge_runtime.errors import RequestError

PROMPT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
FLAG = {
    "type": "object",
    "properties": {"on": {"$ref": "#/$defs/b"}},
    "required": ["on"],
    "$defs": {"b": {"type": "boolean"}},
}


@pytest.fixture(scope="module")
def llama(small_writer: Path) -> Iterator[Llama]:
    model = Llama(small_writer, Shape(context=512, threads=1))
    yield model
    model.close()


@pytest.fixture(scope="module")
def grammars(llama: Llama) -> Grammars:
    return Grammars(llama.vocabulary)


def _matcher(grammars: Grammars, form: Structure) -> Matcher:
    return grammars.matcher(structure.encode(form))


def _calls(**more: Any) -> Calls:
    functions = [Function(name="weather", parameters=CITY), Function(name="pump", parameters=FLAG)]
    return Calls(functions=functions, **more)


def _write(
    matcher: Matcher, grammars: Grammars, rows: Callable[[list[int]], Logits], limit: int
) -> tuple[list[int], str]:
    """The loop that the engine runs: sample, ask, and only where it says no sample from what is allowed."""
    words = grammars.vocabulary
    taken: list[int] = []
    while len(taken) < limit and not matcher.finished:
        row, remaining = rows(taken), limit - len(taken)
        token = int(row.argmax())
        if matcher.closing(remaining) or not matcher.allows(token):
            token = int(matcher.masked(row, remaining).argmax())
        assert matcher.allows(token)
        matcher.accept(token)
        if words.ends(token):
            break
        taken.append(token)
    return taken, b"".join(map(words.piece, taken)).decode()


def _chance(width: int, seed: int) -> Callable[[list[int]], Logits]:
    """Rows of noise: they try everything that a model would not."""
    noise = np.random.default_rng(seed).normal(size=(8, width)).astype(np.float32)
    return lambda taken: noise[(len(taken) * 5 + seed) % 8]


def _model(llama: Llama, prompt: str) -> Callable[[list[int]], Logits]:
    tokens = llama.vocabulary.tokens(PROMPT.format(prompt))

    def row(taken: list[int]) -> Logits:
        if taken:
            llama.decode([taken[-1]], len(tokens) + len(taken) - 1)
        else:
            llama.clear()
            llama.decode(tokens, 0)
        return llama.logits()

    return row


def _check(case: Case, text: str) -> None:
    kind = jsonschema.Draft202012Validator
    kind(case.schema, format_checker=kind.FORMAT_CHECKER).validate(json.loads(text))


def test_what_chance_writes_is_whole_and_valid_for_every_varied_schema(grammars: Grammars) -> None:
    for number, case in enumerate(varied()):
        matcher = _matcher(grammars, narrow(case.schema, tokens=256))
        _, text = _write(matcher, grammars, _chance(grammars.width, number), 256)
        assert matcher.complete, (case.name, text)
        _check(case, text)


def test_what_the_small_writer_writes_is_whole_and_valid_even_when_it_rambles(llama: Llama, grammars: Grammars) -> None:
    cases = {case.name: case for case in varied()}
    for name in (
        "flat-5",
        "open_lists-2",
        "recursive-1",
        "nullable-3",
        "tagged-2",
        "unicode-0",
        "maps-1",
        "anything-0",
    ):
        case = cases[name]
        matcher = _matcher(grammars, narrow(case.schema, tokens=100))
        _, text = _write(matcher, grammars, _model(llama, case.prompt), 100)
        assert matcher.complete, (name, text)
        _check(case, text)


def test_the_fewest_tokens_that_can_do_are_enough(grammars: Grammars) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": {}}, "b": {}}, "required": ["a", "b"]}
    form = narrow(schema, tokens=40)
    for limit in range(14, 40):
        matcher = _matcher(grammars, form)
        taken, text = _write(matcher, grammars, _chance(grammars.width, limit), limit)
        assert len(taken) <= limit
        jsonschema.validate(json.loads(text), schema)


def test_a_pattern_that_long_words_lead_astray_is_ended_too(grammars: Grammars) -> None:
    form = narrow({"type": "string", "pattern": "^[a-z]+@[a-z]+[.]org$"}, tokens=60)
    _, text = _write(_matcher(grammars, form), grammars, _chance(grammars.width, 1), 60)
    assert json.loads(text).endswith(".org")


def test_a_finished_document_takes_nothing_but_an_end(grammars: Grammars) -> None:
    words = grammars.vocabulary
    matcher = _matcher(grammars, Document(schema={"enum": [True]}))
    for token in words.tokens("true", bos=False):
        matcher.accept(token)
    assert matcher.finished
    assert not matcher.allows(words.tokens(" ", bos=False)[0])


def test_a_number_may_end_or_go_on(grammars: Grammars) -> None:
    words = grammars.vocabulary
    matcher = _matcher(grammars, Document(schema={"type": "integer", "minimum": 1, "maximum": 99}))
    assert not matcher.allows(words.eos)
    (one,) = words.tokens("1", bos=False)
    matcher.accept(one)
    assert matcher.complete
    assert not matcher.finished
    assert matcher.allows(one)
    assert matcher.allows(words.eos)


def test_a_token_that_no_vocabulary_has_is_not_allowed(grammars: Grammars) -> None:
    matcher = _matcher(grammars, Document(schema={}))
    assert not matcher.allows(-1)
    assert not matcher.allows(grammars.width)


def test_control_tokens_are_no_text_of_a_string(grammars: Grammars) -> None:
    words = grammars.vocabulary
    matcher = _matcher(grammars, Document(schema={"type": "string"}))
    for token in words.tokens('"a', bos=False):
        matcher.accept(token)
    mask = matcher.mask()
    assert not any(mask[token] for token in range(words.width) if words.is_control(token))


def test_a_matcher_goes_on_where_earlier_tokens_ended(grammars: Grammars) -> None:
    form = narrow(CITY, tokens=60)
    first = _matcher(grammars, form)
    taken, text = _write(first, grammars, _chance(grammars.width, 3), 60)
    again = grammars.matcher(structure.encode(form), taken[:5])
    for token in taken[5:]:
        assert again.allows(token)
        again.accept(token)
    assert again.finished
    with pytest.raises(RequestError, match="do not follow"):
        grammars.matcher(structure.encode(form), taken[1:5])
    assert json.loads(text)


def test_two_texts_of_one_schema_do_not_see_each_other(grammars: Grammars) -> None:
    form = Document(schema={"enum": ["ab", "cd"]})
    one, other = _matcher(grammars, form), _matcher(grammars, form)
    for token in grammars.vocabulary.tokens('"ab"', bos=False):
        one.accept(token)
    assert one.finished
    assert not other.complete


def test_a_token_that_is_not_allowed_is_an_error_and_not_the_end_of_the_process(grammars: Grammars) -> None:
    matcher = _matcher(grammars, Document(schema={"enum": [True]}))
    with pytest.raises(RequestError, match="cannot go on"):
        matcher.accept(grammars.vocabulary.tokens("x", bos=False)[0])


@pytest.mark.parametrize("text", ["", "{", '{"kind":"other"}', '{"kind":"document"}', "[" * 100_000])
def test_a_structure_that_is_none_is_refused(grammars: Grammars, text: str) -> None:
    with pytest.raises(RequestError, match="cannot be read"):
        grammars.matcher(text)


def test_a_pattern_that_the_library_does_not_know_is_refused(grammars: Grammars) -> None:
    with pytest.raises(RequestError, match="no grammar can be made"):
        _matcher(grammars, narrow({"type": "string", "pattern": r"[z-a]\p{Nonsense}"}, tokens=9))


def test_a_demanded_call_is_one_call_with_right_arguments(llama: Llama, grammars: Grammars) -> None:
    matcher = _matcher(grammars, _calls(required=True))
    _, text = _write(matcher, grammars, _model(llama, "Switch the pump on."), 60)
    assert matcher.finished
    assert text.startswith("<tool_call>\n")
    call = json.loads(text.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"))
    jsonschema.validate(call["arguments"], {"weather": CITY, "pump": FLAG}[call["name"]])


def test_plain_text_is_free_where_a_call_may_come(llama: Llama, grammars: Grammars) -> None:
    matcher = _matcher(grammars, _calls(many=True))
    free = _model(llama, "Hello")
    taken, text = _write(matcher, grammars, free, 12)
    bare: list[int] = []
    for _ in taken:
        bare.append(int(free(bare).argmax()))
    assert taken == bare
    assert matcher.free
    assert text


@pytest.mark.parametrize("many", [False, True])
def test_a_call_that_begins_in_free_text_is_held_to_its_schema(grammars: Grammars, *, many: bool) -> None:
    words = grammars.vocabulary
    matcher = _matcher(grammars, _calls(many=many))
    for token in words.tokens("Let me see.\n<tool_call>", bos=False):
        assert matcher.allows(token)
        matcher.accept(token)
    assert not matcher.free
    _, text = _write(matcher, grammars, _chance(grammars.width, 2), 60)
    call = json.loads(text.removesuffix("\n</tool_call>").rpartition("<tool_call>")[2])
    jsonschema.validate(call["arguments"], {"weather": CITY, "pump": FLAG}[call["name"]])


@pytest.mark.parametrize("open_with", ["```json\n", ""])
def test_a_call_without_marks_is_held_to_its_schema_too(grammars: Grammars, open_with: str) -> None:
    words = grammars.vocabulary
    for seed in range(5):
        matcher = _matcher(grammars, _calls(many=True))
        for token in words.tokens(open_with + '{\n  "name": "weather",\n  "arguments":', bos=False):
            assert matcher.allows(token)
            matcher.accept(token)
        assert not matcher.free
        _, text = _write(matcher, grammars, _chance(grammars.width, seed), 60)
        assert matcher.complete
        arguments, _ = json.JSONDecoder().raw_decode(text.strip())
        jsonschema.validate(arguments, CITY)
