"""The engine child's loop: messages in, steps of the model between them, messages out.

What would take longer than a step goes on beside it (:mod:`.preparation`). The loop keeps no state that outlives it but
snapshots: when it dies, ``edged`` starts another.
"""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import msgspec

from edge_runtime import seal
from edge_runtime.engine.generator import Generator, Setting, sequences
from edge_runtime.engine.governor import Governor
from edge_runtime.engine.identity import build
from edge_runtime.engine.inbox import Inbox
from edge_runtime.engine.llama import Llama, Shape
from edge_runtime.engine.messages import (
    Attach,
    Cancel,
    Detach,
    Down,
    Embed,
    Failed,
    FrameError,
    Load,
    Ping,
    Pong,
    Probe,
    Probed,
    Purge,
    Purged,
    Ready,
    Score,
    Shrink,
    Stats,
    Stop,
    Submit,
    Token,
    Up,
    encode,
)
from edge_runtime.engine.preparation import Preparation
from edge_runtime.engine.scheduler import Limits
from edge_runtime.engine.snapshots import Snapshots
from edge_runtime.errors import EdgeError, EngineError, RefusedError, RequestError
from edge_runtime.resident import Resident
from edge_runtime.turn import Turn

LOAD_ID = "load"
_STATS_SECONDS = 0.1
_SIZE_SECONDS = 2.0  # between looks at this process's size, which cost a millisecond


class Engine:
    """One model, and the requests that came for it."""

    def __init__(self, end: socket.socket, turn: Turn) -> None:
        self._socket = end
        self._turn = turn
        self._generator: Generator | None = None
        self._preparation: Preparation | None = None  # there while the generator is
        self._purges: list[str] = []
        self._told: Stats | None = None
        self._told_at = self._sized_at = 0.0
        self._resident = Resident()
        self._size = 0  # bytes
        self._stopped = False
        self._held: list[Up] = []  # tokens that go out with the next ones
        self._sent_at = 0.0
        self._inbox = Inbox(end, self._peek)

    def run(self) -> None:
        """Serve until :class:`Stop` or the end of the stream.

        Raises:
            FrameError: a frame that announces more than the limit: the stream cannot be followed any further.
        """
        while not self._stopped:
            idle = not self._works
            messages = self._inbox.take(wait=idle)
            if messages is None:
                break
            first = messages[0][0] if messages else 0.0
            if messages:
                self._send([])  # what these ask for may take longer than a step
            while messages:
                for arrived, message in messages:
                    self._take(message, arrived)
                messages = self._inbox.gather(first) if idle and self._works else []
            if idle and self._generator is not None and self._generator.busy:
                self._generator.steps.governor.resume(time.monotonic())
            if self._preparation is not None:
                told, ready = self._preparation.collect()
                if told:
                    self._send(told)
                for request, arrived in ready:
                    self._take(request, arrived)
            if self._generator is not None:
                out = self._generator.step()
                out += [Purged(id=name) for name in self._purges]
                self._purges.clear()
                out += self._news()
                if self._may_wait(out):
                    self._hold(out)
                else:
                    self._send(out)
        self._unload()
        if self._inbox.broken is not None:
            raise self._inbox.broken

    @property
    def _works(self) -> bool:
        return self._generator is not None and self._generator.busy

    def _peek(self, message: Down) -> None:
        """In the inbox's thread: a cancel ends a step that is made for nobody else."""
        generator = self._generator
        if isinstance(message, Cancel) and generator is not None and generator.steps.owners == {message.id}:
            generator.model.abort()

    def _may_wait(self, messages: list[Up]) -> bool:
        """Whether these are tokens that can go out with later ones: a lone stream is faster than anybody reads.

        On two cores, waking edged and a client for every token would cost it a twentieth of its speed.
        """
        return (
            self._generator is not None
            and time.monotonic() - self._sent_at < self._generator.patience
            and all(isinstance(message, Token) and message.tokens > 1 for message in messages)
        )

    def _hold(self, messages: list[Up]) -> None:
        for message in messages:
            before = self._held[-1] if self._held else None
            if isinstance(before, Token) and isinstance(message, Token) and message.logprob is before.logprob is None:
                self._held[-1] = before.then(message)
            else:
                self._held.append(message)

    def _send(self, messages: list[Up]) -> None:
        """Send these, after whatever was held back."""
        self._held += messages
        if not self._held:
            return
        self._socket.sendall(b"".join(map(encode, self._held)))
        self._held.clear()
        self._sent_at = time.monotonic()

    def _take(self, message: Down | Failed, arrived: float) -> None:
        if isinstance(message, Failed):
            self._send([message])
            return
        try:
            self._obey(message, arrived)
        except EdgeError as error:
            name = LOAD_ID if isinstance(message, Load) else getattr(message, "id", "")
            self._send([Failed.of(name, error)])

    def _obey(self, message: Down, arrived: float) -> None:
        match message:
            case Load():
                self._load(message)
            case Submit() | Score():
                self._submit(message, arrived)
            case Cancel(id=name):
                if self._generator is not None and self._preparation is not None:
                    self._send(self._preparation.cancel(name) or self._generator.cancel(name))
            case Probe(id=name):
                attempts = [(one.route, one.refused, one.detail) for one in seal.attempts()]
                self._send([Probed(id=name, attempts=attempts)])
            case Ping(id=name):
                self._send([Pong(id=name)])
            case Purge(id=name):
                if self._generator is None or self._preparation is None:
                    self._send([Purged(id=name)])
                else:
                    self._generator.purge(self._preparation.held)
                    self._purges.append(name)
            case Attach() | Detach():
                self._prepared().fit(message, self._loaded().adapters)
            case Shrink(cache_bytes=size):
                self._loaded().shrink(size)
            case Embed():
                raise RequestError("the engine does not embed; send this to the embedder")
            case Stop():
                self._stopped = True

    def _loaded(self) -> Generator:
        if self._generator is None:
            raise EngineError("no model is loaded yet; ask again in a moment")
        return self._generator

    def _prepared(self) -> Preparation:
        self._loaded()
        assert self._preparation is not None  # noqa: S101 - it is made with the generator
        return self._preparation

    def _submit(self, request: Submit | Score, arrived: float) -> None:
        generator = self._loaded()
        if self._prepared().hold(request, arrived):
            return
        if isinstance(request, Score):
            generator.score(request, arrived)
        else:
            generator.submit(request, arrived)

    def _unload(self) -> None:
        if self._preparation is not None:
            self._preparation.close()
            self._preparation = None
        if self._generator is not None:
            self._generator.close()
            self._generator = None

    def _load(self, load: Load) -> None:
        if (self._generator and self._generator.busy) or (self._preparation and self._preparation.busy):
            raise RefusedError("requests are in flight; cancel them before another model is loaded")
        check_load(load)
        began = time.perf_counter()
        self._unload()
        slots = min(load.slots, load.context)
        batch = min(load.batch, load.context)
        shape = Shape(
            context=load.context,
            threads=load.threads,
            batch=max(batch, sequences(slots)),
            sequences=sequences(slots),
            outputs=sequences(slots),  # llama.cpp wants no fewer
        )
        self._resident = Resident()
        model = Llama(Path(load.path), shape)
        try:
            self._preparation = Preparation(model, self._inbox.wake)
            self._generator = generator = Generator(model, self._setting(load, model, slots, batch))
            generator.steps.probe()
            self._resident.settle(Path(load.path).stat().st_size)
        except EngineError:
            self._generator = self._preparation = None
            model.close()
            raise
        words = model.vocabulary
        ready = Ready(
            name=load.name,
            context=model.context,
            width=model.width,
            template=model.template(),
            bos=words.piece(words.bos, special=True).decode("utf-8", "replace"),
            eos=words.piece(words.eos, special=True).decode("utf-8", "replace"),
            load_ms=(time.perf_counter() - began) * 1e3,
        )
        self._send([ready])

    def _setting(self, load: Load, model: Llama, slots: int, batch: int) -> Setting:
        shelf = None
        if load.snapshots and load.digest:
            identity = f"{load.digest}; {build()}; {model.layout}"
            shelf = Snapshots(Path(load.snapshots), identity, load.snapshot_bytes)
        return Setting(
            limits=Limits(max(batch, slots), load.itl_target_ms),
            slots=slots,
            cache_bytes=load.cache_bytes,
            shelf=shelf,
            turn=self._turn,
            governor=Governor(load.threads, self._turn.others_cpu),
            structures=None if self._preparation is None else self._preparation.grammars,
        )

    def _news(self) -> list[Up]:
        """Say what runs and waits, when that changed, and not too often."""
        if self._generator is None:
            return []
        now, idle = time.monotonic(), not self._generator.busy
        if self._told is not None and now - self._told_at < _STATS_SECONDS and not idle:
            return []
        stats = self._generator.stats()
        if now - self._sized_at > _SIZE_SECONDS or idle:
            self._sized_at = now
            self._size = self._resident.bytes()
        waiting = stats.waiting + len(self._prepared().held)
        stats = msgspec.structs.replace(stats, waiting=waiting, resident=self._size)
        if stats == self._told:
            return []
        self._told, self._told_at = stats, now
        return [stats]


def check_load(load: Load) -> None:
    """
    Raises:
        RequestError: a number that no context can have.
    """
    for name, value in (
        ("context", load.context),
        ("threads", load.threads),
        ("batch", load.batch),
        ("slots", load.slots),
    ):
        if not 0 < value < 2**24:
            raise RequestError(f"{name} is {value}; give a number from 1 to {2**24 - 1}", param=name)
    if load.slots > 128:
        raise RequestError(f"slots is {load.slots}; give a number from 1 to 128", param="slots")


def serve(end: socket.socket, turn: Turn) -> int:
    """Serve on ``end`` until told to stop; the exit code."""
    try:
        Engine(end, turn).run()
    except BrokenPipeError:
        return 0
    except FrameError as error:
        sys.stderr.write(f"engine: {error}; the stream cannot be followed any further\n")
        return 1
    return 0
