"""A generator over the real small writer, driven step by step in the test's own process."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edge_runtime.engine.generator import Generator, Setting
from edge_runtime.engine.governor import Governor
from edge_runtime.engine.llama import Llama
from edge_runtime.engine.messages import Done, Failed, Params, Score, Scored, Submit, Token, Up
from edge_runtime.engine.scheduler import Limits
from edge_runtime.turn import Turn

BATCH = 128
SLOTS = 6
_WORDS = (
    "water",
    "light",
    "stone",
    "river",
    "house",
    "green",
    "field",
    "small",
    "large",
    "heavy",
    "garden",
    "winter",
    "summer",
    "paper",
    "letter",
    "music",
    "simple",
    "number",
    "market",
    "window",
    "silver",
    "bridge",
    "forest",
    "doctor",
    "school",
    "engine",
    "record",
    "people",
    "story",
    "island",
)


@dataclass(slots=True)
class Answer:
    """All that came for one request."""

    tokens: list[Token] = field(default_factory=list)
    end: Done | Scored | Failed | None = None

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    @property
    def ids(self) -> list[int]:
        return [one for token in self.tokens for one in token.ids]

    @property
    def logprobs(self) -> list[float | None]:
        return [token.logprob for token in self.tokens if token.ids]

    @property
    def done(self) -> Done:
        assert isinstance(self.end, Done), self.end
        return self.end

    @property
    def scored(self) -> Scored:
        assert isinstance(self.end, Scored), self.end
        return self.end


class Driver:
    """A fresh generator on ``model``, which outlives it."""

    def __init__(self, model: Llama, *, slots: int = SLOTS, threads: int = 1, cache: int = 2**30, **more: Any) -> None:
        model.clear()
        self.model = model
        self.generator = Generator(
            model,
            Setting(
                limits=Limits(BATCH, more.pop("targets", {})),
                slots=slots,
                cache_bytes=cache,
                shelf=more.pop("shelf", None),
                turn=Turn.free(),
                governor=Governor(threads),
                **more,
            ),
        )
        self.generator.steps.probe()
        self.answers: dict[str, Answer] = {}

    def submit(self, name: str, prompt: str, count: int = 8, **more: Any) -> None:
        mine = {key: more.pop(key) for key in list(more) if key in Params.__struct_fields__}
        params = msgspec.convert({"max_tokens": count, "ignore_eos": True, **mine}, Params)
        self.answers[name] = Answer()
        self.generator.submit(Submit(id=name, prompt=prompt, params=params, **{"domain": "uid:1", **more}))

    def score(self, name: str, prompt: str, choices: list[str], **more: Any) -> None:
        self.answers[name] = Answer()
        self.generator.score(Score(id=name, prompt=prompt, choices=choices, **{"domain": "uid:1", **more}))

    def cancel(self, name: str) -> None:
        self._sort(self.generator.cancel(name))

    def step(self) -> None:
        self._sort(self.generator.step())

    def drain(self) -> dict[str, Answer]:
        while self.generator.busy:
            self.step()
        return self.answers

    def ask(self, prompt: str, count: int = 8, **more: Any) -> Answer:
        self.submit("a", prompt, count, **more)
        return self.drain()["a"]

    def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            assert self.generator.busy
            self.step()

    @property
    def prefilled(self) -> int:
        return self.generator.stats().prefilled

    @property
    def used(self) -> int:
        return self.generator.stats().cells_used

    def close(self) -> None:
        self.generator._lane.close()
        self.generator.steps.governor.close()

    def _sort(self, messages: list[Up]) -> None:
        for message in messages:
            match message:
                case Token():
                    answer = self.answers[message.id]
                    assert answer.end is None
                    answer.tokens.append(message)
                case Done() | Scored() | Failed():
                    assert self.answers[message.id].end is None
                    self.answers[message.id].end = message


def words(model: Llama, tokens: int, seed: int = 0) -> str:
    """A text of so many tokens; a longer one of the same seed begins with it."""
    chance = random.Random(seed)
    text = "".join(" " + chance.choice(_WORDS) for _ in range(tokens))
    assert len(model.vocabulary.tokens(text)) == tokens
    return text
