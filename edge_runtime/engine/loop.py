"""The engine child's loop: messages in, steps of the model between them, messages out.

A thread reads the socket, so that a cancel reaches even a step that has just begun. The loop keeps no state that
outlives it but snapshots: when it dies, ``edged`` starts another.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge_runtime import seal
from edge_runtime.engine.generator import Generator, Setting, sequences
from edge_runtime.engine.governor import Governor
from edge_runtime.engine.identity import build
from edge_runtime.engine.llama import Llama, Shape
from edge_runtime.engine.messages import (
    Attach,
    Attached,
    Cancel,
    Detach,
    Down,
    Embed,
    Failed,
    FrameError,
    Frames,
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
    Up,
    decode_down,
    encode,
)
from edge_runtime.engine.scheduler import Limits
from edge_runtime.engine.sequence import Structure
from edge_runtime.engine.snapshots import Snapshots
from edge_runtime.errors import EdgeError, EngineError, RefusedError, RequestError
from edge_runtime.resident import Resident
from edge_runtime.turn import Turn

LOAD_ID = "load"
_READ = 1 << 16  # bytes
_STATS_SECONDS = 0.1
_GATHER = 0.002  # seconds without another message, after which an idle engine begins
_GATHER_MOST = 0.012  # and at most
_SIZE_SECONDS = 2.0  # between looks at this process's size, which cost a millisecond


class Inbox:
    """What came over the socket, read by a thread of its own; ``peek`` sees each message at once, in that thread."""

    def __init__(self, end: socket.socket, peek: Callable[[Down], None]) -> None:
        self._socket = end
        self._peek = peek
        self._frames: deque[tuple[float, Down | Failed]] = deque()
        self._ready = threading.Condition()
        self._ended = False
        self.broken: FrameError | None = None
        threading.Thread(target=self._listen, name="inbox", daemon=True).start()

    def take(self, *, wait: bool) -> list[tuple[float, Down | Failed]] | None:
        """All that has come, and when; with ``wait``, sleeps until something has, and a little for what comes with it.

        None: the other side is gone.
        """
        with self._ready:
            if wait:
                self._ready.wait_for(lambda: self._frames or self._ended)
                latest = time.perf_counter() + _GATHER_MOST
                while not self._ended and time.perf_counter() < latest:
                    known = len(self._frames)
                    if not self._ready.wait_for(lambda: len(self._frames) > known or self._ended, _GATHER):  # noqa: B023
                        break
            if self._ended and not self._frames:
                return None
            found = list(self._frames)
            self._frames.clear()
            return found

    def _listen(self) -> None:
        frames = Frames()
        try:
            while data := self._socket.recv(_READ):
                now = time.perf_counter()
                messages = [_decode(body) for body in frames.feed(data)]
                with self._ready:
                    self._frames.extend((now, message) for message in messages)
                    self._ready.notify()
                for message in messages:
                    if not isinstance(message, Failed):
                        self._peek(message)
        except OSError:
            pass
        except FrameError as error:
            self.broken = error
        with self._ready:
            self._ended = True
            self._ready.notify()


class Engine:
    """One model, and the requests that came for it."""

    def __init__(self, end: socket.socket, turn: Turn) -> None:
        self._socket = end
        self._turn = turn
        self._generator: Generator | None = None
        self._purges: list[str] = []
        self._told: Stats | None = None
        self._told_at = self._sized_at = 0.0
        self._resident = Resident()
        self._size = 0  # bytes
        self._stopped = False
        self._inbox = Inbox(end, self._peek)

    def run(self) -> None:
        """Serve until :class:`Stop` or the end of the stream.

        Raises:
            FrameError: a frame that announces more than the limit: the stream cannot be followed any further.
        """
        while not self._stopped:
            generator = self._generator
            messages = self._inbox.take(wait=generator is None or not generator.busy)
            if messages is None:
                break
            for arrived, message in messages:
                self._take(message, arrived)
            if self._generator is not None:
                out = self._generator.step()
                out += [Purged(id=name) for name in self._purges]
                self._purges.clear()
                self._send(out + self._news())
        if self._generator is not None:
            self._generator.close()
        if self._inbox.broken is not None:
            raise self._inbox.broken

    def _peek(self, message: Down) -> None:
        """In the inbox's thread: a cancel ends a step that is made for nobody else."""
        generator = self._generator
        if isinstance(message, Cancel) and generator is not None and generator.steps.owners == {message.id}:
            generator.model.abort()

    def _send(self, messages: list[Up]) -> None:
        if messages:
            self._socket.sendall(b"".join(map(encode, messages)))

    def _take(self, message: Down | Failed, arrived: float) -> None:
        if isinstance(message, Failed):
            self._send([message])
            return
        try:
            self._obey(message, arrived)
        except EdgeError as error:
            name = LOAD_ID if isinstance(message, Load) else getattr(message, "id", "")
            self._send([Failed(id=name, code=error.code, message=error.message)])

    def _obey(self, message: Down, arrived: float) -> None:
        match message:
            case Load():
                self._load(message)
            case Submit():
                self._loaded().submit(message, arrived)
            case Score():
                self._loaded().score(message, arrived)
            case Cancel(id=name):
                if self._generator is not None:
                    self._send(self._generator.cancel(name))
            case Probe(id=name):
                attempts = [(one.route, one.refused, one.detail) for one in seal.attempts()]
                self._send([Probed(id=name, attempts=attempts)])
            case Ping(id=name):
                self._send([Pong(id=name)])
            case Purge(id=name):
                if self._generator is None:
                    self._send([Purged(id=name)])
                else:
                    self._generator.purge()
                    self._purges.append(name)
            case Attach(id=name):
                self._loaded().adapters.attach(message.name, Path(message.path), message.digest)
                self._send([Attached(id=name)])
            case Detach(id=name):
                self._loaded().adapters.detach(message.name)
                self._send([Attached(id=name)])
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

    def _load(self, load: Load) -> None:
        if self._generator is not None and self._generator.busy:
            raise RefusedError("requests are in flight; cancel them before another model is loaded")
        check_load(load)
        began = time.perf_counter()
        if self._generator is not None:
            self._generator.close()
            self._generator = None
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
            self._generator = generator = Generator(model, self._setting(load, model, slots, batch))
            generator.steps.probe()
            self._resident.settle(Path(load.path).stat().st_size)
        except EngineError:
            self._generator = None
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
            structures=_structures(model),
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
        stats = msgspec.structs.replace(stats, resident=self._size)
        if stats == self._told:
            return []
        self._told, self._told_at = stats, now
        return [stats]


def _structures(model: Llama) -> Callable[[str], Structure]:
    """Matchers for the model's vocabulary; what makes them is loaded when the first is wanted."""
    kept: list[Callable[[str], Structure]] = []

    def make(text: str) -> Structure:
        if not kept:
            # Imported late: its library and its table of the vocabulary cost more than loading a small model.
            from edge_runtime.engine.structured import Grammars  # noqa: PLC0415

            kept.append(Grammars(model.vocabulary).matcher)
        return kept[0](text)

    return make


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


def _decode(body: bytes) -> Down | Failed:
    try:
        return decode_down(body)
    except FrameError as error:
        return Failed(id=_id_of(body), code=RequestError.code, message=f"{error}; send one of the protocol")


def _id_of(frame: bytes) -> str:
    """The id inside a frame that is no message of ours, as far as there is one."""
    try:
        body = msgspec.msgpack.decode(frame)
    except msgspec.MsgspecError:
        return ""
    found = body.get("id") if isinstance(body, dict) else None
    return found if isinstance(found, str) else ""


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
