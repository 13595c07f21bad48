"""What must be there before a request can begin, made beside the steps: the table for structured text, adapters' files.

Requests that need it wait here; everybody else's steps go on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edge_runtime.engine.adapters import Adapters, Checked, check
from edge_runtime.engine.errands import Errands
from edge_runtime.engine.llama import Llama, Vocabulary
from edge_runtime.engine.messages import Attach, Attached, Detach, Done, Failed, Score, Submit, Up
from edge_runtime.engine.sequence import Structure
from edge_runtime.errors import EdgeError, EngineError

if TYPE_CHECKING:
    from edge_runtime.engine.structured import Grammars

Request = Submit | Score


class LateGrammars:
    """Matchers for a model's vocabulary: neither the library nor its table is loaded before :meth:`build`."""

    def __init__(self, model: Llama) -> None:
        self._model = model
        self._made: Grammars | None = None

    @property
    def ready(self) -> bool:
        return self._made is not None

    def build(self) -> None:
        """In any thread, once: up to half a second.

        Raises:
            EngineError: the library is not there, or cannot read this vocabulary.
        """
        try:
            # Imported late: its library and its table of the vocabulary cost more than loading a small model.
            from edge_runtime.engine.structured import Grammars  # noqa: PLC0415

            # A vocabulary of its own: its buffer must not be shared with the steps that go on meanwhile.
            self._made = Grammars(Vocabulary(self._model.model))
        except (ImportError, ValueError, RuntimeError, MemoryError) as error:
            raise EngineError(
                f"structured output is not to be had with this model ({error}); ask without a schema and without tools"
            ) from error

    def __call__(self, text: str) -> Structure:
        if self._made is None:
            raise EngineError("the grammars of this model are not made yet; ask again in a moment")
        return self._made.matcher(text)


class Preparation:
    """For one model; ``wake`` is called, in another thread, when :meth:`collect` has something to say."""

    def __init__(self, model: Llama, wake: Callable[[], None]) -> None:
        self.grammars = LateGrammars(model)
        self._building = Errands("grammars", wake)
        self._fitting = Errands("adapters", wake)
        self._attaching: list[str] = []  # names
        self._held: list[tuple[Request, float]] = []
        self._told: list[Up] = []

    @property
    def held(self) -> frozenset[str]:
        """Ids of the requests that wait."""
        return frozenset(request.id for request, _ in self._held)

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self._held) or self._fitting.busy

    def hold(self, request: Request, arrived: float) -> bool:
        """Keep ``request`` until it can begin; false: it can."""
        if not self._lacks(request):
            return False
        self._held.append((request, arrived))
        return True

    def _lacks(self, request: Request) -> bool:
        if request.adapter and request.adapter in self._attaching:
            return True
        if isinstance(request, Score) or not request.structure or self.grammars.ready:
            return False
        if not self._building.busy:
            self._building.add(self.grammars.build, self._built)
        return True

    def _built(self, error: EdgeError | None) -> None:
        if error is None:
            return
        for request, _ in self._held:
            if isinstance(request, Submit) and request.structure:
                self._fail(request.id, error)
        self._held = [pair for pair in self._held if not (isinstance(pair[0], Submit) and pair[0].structure)]

    def fit(self, message: Attach | Detach, adapters: Adapters) -> None:
        """Attach or detach, after those that came before; :meth:`collect` has the answer."""
        if isinstance(message, Detach):
            self._fitting.add(lambda: None, lambda _: self._detach(message, adapters))
            return
        self._attaching.append(message.name)
        checked: list[Checked] = []

        def read() -> None:
            if not adapters.has(message.name, message.digest):
                checked.append(check(Path(message.path), message.digest))

        self._fitting.add(read, partial(self._attach, message, adapters, checked))

    def _detach(self, message: Detach, adapters: Adapters) -> None:
        adapters.detach(message.name)
        self._told.append(Attached(id=message.id))

    def _attach(self, message: Attach, adapters: Adapters, checked: list[Checked], error: EdgeError | None) -> None:
        self._attaching.remove(message.name)
        if error is not None:
            self._fail(message.id, error)
            return
        try:
            for one in checked:
                adapters.attach(message.name, one)
        except EdgeError as refusal:
            self._fail(message.id, refusal)
            return
        self._told.append(Attached(id=message.id))

    def _fail(self, name: str, error: EdgeError) -> None:
        self._told.append(Failed.of(name, error))

    def cancel(self, name: str) -> list[Up]:
        """The end of a request that waits here, if it does."""
        found = [pair for pair in self._held if pair[0].id == name]
        self._held = [pair for pair in self._held if pair[0].id != name]
        return [
            Done(
                id=name,
                reason="cancelled",
                prompt_tokens=0,
                completion_tokens=0,
                cached_tokens=0,
                prefill_ms=0.0,
                decode_ms=0.0,
            )
            for _ in found
        ]

    def collect(self) -> tuple[list[Up], list[tuple[Request, float]]]:
        """What there is to send, and the requests that can begin now, each with when it arrived."""
        self._building.collect()
        self._fitting.collect()
        held, self._held = self._held, []
        ready = [pair for pair in held if not self.hold(*pair)]
        told, self._told = self._told, []
        return told, ready

    def close(self) -> None:
        """Before the model is: the grammars are made from it. An adapter's file may be read on; nobody looks at it."""
        self._building.close()
