"""How likely each of some texts is after one prompt: all of them in a few steps behind the prompt's shared cells.

A choice is cut into tokens by itself, as plain text: it cannot smuggle in a control token, and its first token does not
depend on the prompt's last.
"""

from __future__ import annotations

import numpy as np

from edge_runtime.engine.adapters import Adapters
from edge_runtime.engine.cells import Cells
from edge_runtime.engine.llama import AbortedError, Llama, Logits, Vocabulary
from edge_runtime.engine.messages import CLASSES, Failed, Params, Score, Scored, Submit, Up
from edge_runtime.engine.roster import Roster
from edge_runtime.engine.sampling import log_softmax
from edge_runtime.engine.scheduler import WIDE, victim
from edge_runtime.engine.sequence import Sequence, check_fit
from edge_runtime.engine.steps import Steps
from edge_runtime.errors import EdgeError, RequestError

FAN = 16  # choices in one step


class Scoring(Sequence):
    """One ``score``: its prompt is read as any other, and then its choices.

    Raises (on construction):
        RequestError: no choices, or an empty one.
        ContextLengthError: the prompt with its longest choice does not fit.
    """

    def __init__(self, request: Score, vocabulary: Vocabulary, *, context: int, adapter: str) -> None:
        self.choices = [vocabulary.tokens(text, bos=False, special=False) for text in request.choices]
        if not self.choices or not all(self.choices):
            raise RequestError("a score needs a prompt and choices that are not empty; send some text", param="choices")
        submit = Submit(
            id=request.id,
            prompt=request.prompt,
            params=Params(max_tokens=1),
            add_bos=request.add_bos,
            priority=request.priority,
            domain=request.domain,
            public=request.public,
            adapter=request.adapter,
        )
        super().__init__(submit, vocabulary, context=context, adapter=adapter, structure=None)
        self.limit = max(map(len, self.choices))
        check_fit(len(self.prompt) + self.limit, context)
        self._sums: list[float] = []
        self._pending: list[int] = []
        self._group: list[int] = []  # choices that are evaluated now, each in a sequence of its own
        self._done = 0  # tokens of each of them that are

    @property
    def headroom(self) -> int:
        return self.limit

    def take_row(self, logits: Logits) -> None:
        """The prompt was read, and this is its last row."""
        first = log_softmax(logits)
        self._sums = [float(first[choice[0]]) for choice in self.choices]
        self._pending = [number for number, choice in enumerate(self.choices) if len(choice) > 1]

    def fan(self, steps: Steps, cells: Cells, *, base: int, most: int) -> list[Up]:
        """One step over some choices, of at most ``most`` rows; the result with the last of them.

        The sequences from ``base`` on are the choices'. There must be cells for the longest choice.

        Raises:
            EngineError: llama.cpp refused.
        """
        model = steps.model
        if not self._group and self._pending:
            self._gather(cells, base=base, most=most)
        if self._group:
            marks = self._fill(model, base=base, most=most)
            try:
                steps.run(len(marks), sum(len(self.prompt) + self._done for _ in marks))
            except AbortedError:
                return []  # meant for somebody else's step
            for place, number in enumerate(self._group):
                cells.ledger.grow(base + place, sum(number == other for other, _ in marks))
            for row, (number, token) in enumerate(marks):
                self._sums[number] += float(log_softmax(model.logits(row))[token])
            self._done += most
            if self._done >= max(len(self.choices[number]) for number in self._group) - 1:
                self.release(cells, base=base)
        if self._group or self._pending:
            return []
        self.reason = "stop"
        return [
            Scored(
                id=self.id,
                logprobs=self._sums,
                tokens=[len(choice) for choice in self.choices],
                prompt_tokens=len(self.prompt),
                cached_tokens=self.cached,
                tier=self.tier,
            )
        ]

    def release(self, cells: Cells, *, base: int) -> None:
        """Give back the cells of the choices that are evaluated now."""
        for place in range(len(self._group)):
            cells.drop(base + place)
        self._group, self._done = [], 0

    def _gather(self, cells: Cells, *, base: int, most: int) -> None:
        """As many of the choices left as fit in a step and into the cells, at least one; they share the prompt's."""
        size = 0
        while self._pending and len(self._group) < FAN:
            rows = len(self.choices[self._pending[0]]) - 1
            if self._group and size + rows > min(most, cells.ledger.free):
                break
            size += rows
            self._group.append(self._pending.pop(0))
        for place in range(len(self._group)):
            cells.share(self.slot, base + place, len(self.prompt))

    def _fill(self, model: Llama, *, base: int, most: int) -> list[tuple[int, int]]:
        """The next rows of the group: for each, its choice and the token whose probability it tells.

        A choice that is longer than a step goes through it in parts; it is alone then.
        """
        marks: list[tuple[int, int]] = []
        rows, start = model.rows, len(self.prompt) + self._done
        for place, number in enumerate(self._group):
            choice = self.choices[number]
            tokens = choice[self._done : min(self._done + most, len(choice) - 1)]
            at, end = len(marks), len(marks) + len(tokens)
            rows.tokens[at:end] = tokens
            rows.positions[at:end] = np.arange(start, start + len(tokens))
            rows.sequences[at:end] = base + place
            rows.wanted[at:end] = 1
            marks += [(number, choice[self._done + index + 1]) for index in range(len(tokens))]
        return marks


class Scores:
    """The scores of a generator whose prompts are read; the sequences from ``base`` on are their choices'."""

    def __init__(self, cells: Cells, roster: Roster, steps: Steps, adapters: Adapters, *, base: int) -> None:
        self._those: list[Scoring] = []
        self._cells = cells
        self._roster = roster
        self._steps = steps
        self._adapters = adapters
        self._base = base

    def __bool__(self) -> bool:
        return bool(self._those)

    def add(self, one: Scoring) -> None:
        self._those.append(one)

    def drop(self, name: str) -> None:
        """Take out the one of this id, if it is here."""
        for one in [one for one in self._those if one.id == name]:
            self._end(one)

    def clear(self) -> None:
        for one in list(self._those):
            self._end(one)

    def step(self) -> list[Up]:
        """One step over the choices of the score whose turn it is; a narrow one while others write."""
        one = min(self._those, key=lambda score: CLASSES.index(score.priority))
        ledger = self._cells.ledger
        while ledger.free < one.limit:
            slot = victim(self._roster.streams(), least=1, most_urgent=one.priority)
            if slot is None:
                break
            self._roster.park(self._roster.running[slot])
        if ledger.free < one.limit and self._roster.streams():
            # All who hold cells are more urgent: it makes room itself, and begins again when there is some.
            self._end(one)
            self._roster.park(one)
            return []
        most = WIDE if self._roster.streams() else self._steps.model.outputs
        try:
            self._adapters.use(one.request.adapter)
            out = one.fan(self._steps, self._cells, base=self._base, most=most)
        except EdgeError as error:
            out = [Failed.of(one.id, error)]
            one.reason = "cancelled"
        if one.reason is not None:
            self._end(one)
            self._roster.leave(one)
        return out

    def _end(self, one: Scoring) -> None:
        one.release(self._cells, base=self._base)
        self._those.remove(one)
