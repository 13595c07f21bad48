"""How likely each of some texts is after one prompt: all of them in a few steps behind the prompt's shared cells.

A choice is cut into tokens by itself, as plain text: it cannot smuggle in a control token, and its first token does not
depend on the prompt's last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_runtime.engine.cells import Cells
from edge_runtime.engine.llama import Llama, Logits, Vocabulary
from edge_runtime.engine.messages import Params, Score, Scored, Submit, Up
from edge_runtime.engine.sampling import log_softmax
from edge_runtime.engine.sequence import Sequence, check_fit
from edge_runtime.errors import RequestError

if TYPE_CHECKING:
    from edge_runtime.engine.generator import Setting

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

    def take_row(self, logits: Logits) -> None:
        """The prompt was read, and this is its last row."""
        first = log_softmax(logits)
        self._sums = [float(first[choice[0]]) for choice in self.choices]

    def finish(self, model: Llama, cells: Cells, setting: Setting) -> list[Up]:
        """Score the choices; there must be cells for the longest one.

        Raises:
            EngineError: llama.cpp refused.
        """
        sums = self._sums
        pending = [number for number, choice in enumerate(self.choices) if len(choice) > 1]
        while pending:
            group: list[int] = []
            size = 0
            while pending and len(group) < FAN:
                rows = len(self.choices[pending[0]]) - 1
                if group and size + rows > min(model.outputs, model.batch, cells.ledger.free):
                    break
                size += rows
                group.append(pending.pop(0))
            self._fan(model, cells, setting, group, sums)
        self.reason = "stop"
        return [
            Scored(
                id=self.id,
                logprobs=sums,
                tokens=[len(choice) for choice in self.choices],
                prompt_tokens=len(self.prompt),
                cached_tokens=self.cached,
                tier=self.tier,
            )
        ]

    def _fan(self, model: Llama, cells: Cells, setting: Setting, group: list[int], sums: list[float]) -> None:
        """Each choice of ``group`` behind the prompt, in a sequence of its own that shares the prompt's cells."""
        length, base = len(self.prompt), setting.slots + 1
        longest = max(len(self.choices[number]) for number in group) - 1
        part = min(model.outputs, model.batch)
        for place in range(len(group)):
            cells.share(self.slot, base + place, length)
        try:
            # Choices longer than a step has rows go through it in parts; there is only one of them then.
            for begin in range(0, longest, part):
                at = 0
                marks: list[tuple[int, int, int]] = []  # row, choice, token
                for place, number in enumerate(group):
                    choice = self.choices[number]
                    tokens = choice[begin : min(begin + part, len(choice) - 1)]
                    rows, end = model.rows, at + len(tokens)
                    rows.tokens[at:end] = tokens
                    rows.positions[at:end] = np.arange(length + begin, length + begin + len(tokens))
                    rows.sequences[at:end] = base + place
                    rows.wanted[at:end] = 1
                    marks += [(at + index, number, choice[begin + index + 1]) for index in range(len(tokens))]
                    at = end
                model.take_abort()  # of somebody else's step
                with setting.turn:
                    model.run(at)
                for row, number, token in marks:
                    sums[number] += float(log_softmax(model.logits(row))[token])
        finally:
            for place in range(len(group)):
                cells.drop(base + place)
