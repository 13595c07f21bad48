"""One generation, its logits made up: a function of what was written so far, and the same in every process."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from edge_runtime.engine import structure
from edge_runtime.engine.llama import Llama, Logits, Vocabulary
from edge_runtime.engine.messages import Params, Submit, Token
from edge_runtime.engine.sequence import Sequence
from edge_runtime.engine.structure import Document
from edge_runtime.engine.structured import Grammars

REQUIRED = ["city", "parts", "warm"]
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "parts": {"type": "array", "items": {"type": "integer"}, "maxItems": 9},
        "warm": {"type": "boolean"},
    },
    "required": REQUIRED,
    "additionalProperties": False,
}
PROMPT = "A warm city, as JSON: "


@pytest.fixture(scope="module")
def grammars(writer: Llama) -> Grammars:
    return Grammars(writer.vocabulary)


def _logits(vocabulary: Vocabulary, one: Sequence) -> Logits:
    """Some thirty tokens stand out of the rest, now and then those of the schema's own text."""
    written = one.tokens[len(one.prompt) :]
    random = np.random.default_rng([7, *written])
    row: Logits = random.normal(size=vocabulary.width).astype(np.float32)
    usual = vocabulary.tokens('{"city": "Rome", "parts": [1, 2, 31], "warm": true}', bos=False)
    row[random.choice(usual, len(usual) // 2)] += 12
    return row


def _write(grammars: Grammars, seed: int, limit: int, *, resume: list[int]) -> tuple[list[int], str, int]:
    """Its tokens, its text, and how many of the tokens were not the first ones drawn."""
    text = structure.encode(Document(schema=SCHEMA))
    params = Params(max_tokens=limit, temperature=1.0, top_k=0, seed=seed)
    request = Submit(id="1", domain="uid:1", prompt=PROMPT, params=params, structure=text, resume=resume)
    vocabulary, form = grammars.vocabulary, grammars.matcher(text)
    one = Sequence(request, vocabulary, context=512, adapter="", structure=form)
    out: list[Token] = []
    refused = 0
    while one.reason is None:
        row = _logits(vocabulary, one)
        refused += not form.allows(int(row.argmax()))
        out += [message for message in one.take(row) if isinstance(message, Token)]
    return [token for message in out for token in message.ids], "".join(message.text for message in out), refused


@pytest.mark.parametrize(("seed", "limit"), [(1, 80), (2, 60), (3, 36), (4, 28)])
def test_a_seeded_document_goes_on_the_same_wherever_an_engine_died(grammars: Grammars, seed: int, limit: int) -> None:
    ids, whole, refused = _write(grammars, seed, limit, resume=[])
    assert set(json.loads(whole)) == set(REQUIRED)
    assert refused > 3
    for count in range(1, len(ids)):
        rest, _, _ = _write(grammars, seed, limit, resume=ids[:count])
        assert ids[:count] + rest == ids, count


@dataclass
class Diary:
    """A structure that lets everything through, and writes down what it was asked and told."""

    finished: bool = False
    asked: list[tuple[str, int]] = field(default_factory=list)

    def allows(self, token: int) -> bool:
        return token >= 0

    def masked(self, logits: Logits, remaining: int) -> Logits:
        raise AssertionError(f"nothing was refused with {remaining} tokens left of {len(logits)}")

    def closing(self, remaining: int) -> bool:
        self.asked.append(("closing", remaining))
        return False

    def accept(self, token: int) -> None:
        self.asked.append(("accept", token))


def test_a_structure_is_asked_for_its_end_at_the_same_tokens_when_a_text_is_taken_up_again(writer: Llama) -> None:
    def start(diary: Diary, resume: list[int]) -> Sequence:
        request = Submit(id="1", domain="uid:1", prompt=PROMPT, params=Params(max_tokens=12), resume=resume)
        return Sequence(request, writer.vocabulary, context=512, adapter="", structure=diary)

    first, second = Diary(), Diary()
    one = start(first, [])
    for _ in range(5):
        one.take(_logits(writer.vocabulary, one))
    start(second, one.tokens[len(one.prompt) :])
    assert second.asked == first.asked
