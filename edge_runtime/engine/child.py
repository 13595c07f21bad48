"""The engine child's loop: messages in, one request at a time through the model, messages out.

Between two steps of the model it looks at its socket, so that a cancel, a probe or a further request never waits for
more than one ``llama_decode``. It keeps no state that outlives it: when it dies, ``edged`` starts another.
"""

from __future__ import annotations

import socket
import sys
import time
from collections import deque
from pathlib import Path

import msgspec

from edge_runtime import seal
from edge_runtime.engine.generation import Generation, Job, Prefix, Scoring, Steps
from edge_runtime.engine.llama import Llama, Shape
from edge_runtime.engine.messages import (
    Cancel,
    Down,
    Embed,
    Failed,
    FrameError,
    Frames,
    Load,
    Probe,
    Probed,
    Purge,
    Purged,
    Ready,
    Score,
    Stats,
    Stop,
    Submit,
    Up,
    decode_down,
    encode,
)
from edge_runtime.errors import EdgeError, EngineError, RefusedError, RequestError

_READ = 1 << 16  # bytes
LOAD_ID = "load"


class Link:
    """The child's end of the socket pair."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._frames = Frames()

    def receive(self, *, wait: bool) -> list[bytes] | None:
        """The frames that are there; with ``wait``, sleeps until something is. None: the other side is gone.

        Raises:
            FrameError: a frame that announces more than the limit: the stream cannot be followed any further.
        """
        try:
            data = self._socket.recv(_READ, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            return None
        return list(self._frames.feed(data)) if data else None

    def send(self, message: Up) -> None:
        self._socket.sendall(encode(message))


class Engine:
    """One model, its KV cells, and the requests that wait for it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._model: Llama | None = None
        self._prefix: Prefix | None = None
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._steps: Steps = iter(())
        self._purges: list[str] = []
        self._told: Stats | None = None
        self._stopped = False

    def run(self) -> None:
        """Serve until :class:`Stop` or the end of the stream."""
        while not self._stopped:
            busy = self._running is not None or bool(self._waiting) or bool(self._purges)
            frames = self._link.receive(wait=not busy)
            if frames is None:
                return
            for frame in frames:
                self._take(frame)
            if frames and busy:
                continue  # read all that is there before the next step
            self._advance()
            self._tell()

    def _take(self, frame: bytes) -> None:
        try:
            message = decode_down(frame)
        except FrameError as error:
            self._link.send(
                Failed(id=_id_of(frame), code=RequestError.code, message=f"{error}; send one of the protocol")
            )
            return
        try:
            self._obey(message)
        except EdgeError as error:
            name = LOAD_ID if isinstance(message, Load) else getattr(message, "id", "")
            self._link.send(Failed(id=name, code=error.code, message=error.message))

    def _obey(self, message: Down) -> None:
        match message:
            case Load():
                self._load(message)
            case Submit():
                self._waiting.append(Generation(message, *self._loaded()))
            case Score():
                self._waiting.append(Scoring(message, *self._loaded()))
            case Cancel(id=name):
                self._cancel(name)
            case Probe(id=name):
                attempts = [(one.route, one.refused, one.detail) for one in seal.attempts()]
                self._link.send(Probed(id=name, attempts=attempts))
            case Purge(id=name):
                self._purges.append(name)
            case Embed():
                raise RequestError("the engine does not embed; send this to the embedder")
            case Stop():
                self._stopped = True

    def _loaded(self) -> tuple[Llama, Prefix]:
        if self._model is None or self._prefix is None:
            raise EngineError("no model is loaded yet; ask again in a moment")
        return self._model, self._prefix

    def _load(self, load: Load) -> None:
        if self._running or self._waiting:
            raise RefusedError("requests are in flight; cancel them before another model is loaded")
        for name, value in (("context", load.context), ("threads", load.threads), ("batch", load.batch)):
            if not 0 < value < 2**24:
                raise RequestError(f"{name} is {value}; give a number from 1 to {2**24 - 1}", param=name)
        began = time.perf_counter()
        if self._model is not None:
            self._model.close()
            self._model = self._prefix = None
        shape = Shape(context=load.context, threads=load.threads, batch=min(load.batch, load.context))
        model = Llama(Path(load.path), shape)
        try:
            model.warm_up()
        except EngineError:
            model.close()
            raise
        self._model, self._prefix = model, Prefix(model)
        words = model.vocabulary
        self._link.send(
            Ready(
                name=load.name,
                context=model.context,
                width=model.width,
                template=model.template(),
                bos=words.piece(words.bos, special=True).decode("utf-8", "replace"),
                eos=words.piece(words.eos, special=True).decode("utf-8", "replace"),
                load_ms=(time.perf_counter() - began) * 1e3,
            )
        )

    def _cancel(self, name: str) -> None:
        """A request that is not here has ended already: its last message is on the way."""
        if self._running is not None and self._running.id == name:
            self._link.send(self._running.done("cancelled"))
            self._end()
            return
        for job in self._waiting:
            if job.id == name:
                self._waiting.remove(job)
                self._link.send(job.done("cancelled"))
                return

    def _advance(self) -> None:
        """One step of the running request; where none runs, forget what was to be forgotten and begin the next."""
        if self._running is None:
            for name in self._purges:
                if self._prefix is not None:
                    self._prefix.clear()
                self._link.send(Purged(id=name))
            self._purges.clear()
            if not self._waiting:
                return
            self._running = self._waiting.popleft()
            self._steps = self._running.steps()
        try:
            message = next(self._steps)
        except StopIteration:
            self._end()
        except EdgeError as error:
            self._link.send(Failed(id=self._running.id, code=error.code, message=error.message))
            self._end()
        else:
            if message is not None:
                self._link.send(message)

    def _end(self) -> None:
        self._running = None
        self._steps = iter(())

    def _tell(self) -> None:
        """Say what runs and waits, when that changed."""
        if self._told and (self._told.running, self._told.waiting) == (
            int(self._running is not None),
            len(self._waiting),
        ):
            return
        self._told = Stats(
            running=int(self._running is not None),
            waiting=len(self._waiting),
            cells_used=len(self._prefix) if self._prefix is not None else 0,
            cells_total=self._model.context if self._model is not None else 0,
        )
        self._link.send(self._told)


def _id_of(frame: bytes) -> str:
    """The id inside a frame that is no message of ours, as far as there is one."""
    try:
        body = msgspec.msgpack.decode(frame)
    except msgspec.MsgspecError:
        return ""
    found = body.get("id") if isinstance(body, dict) else None
    return found if isinstance(found, str) else ""


def serve(end: socket.socket) -> int:
    """Serve on ``end`` until told to stop; the exit code."""
    try:
        Engine(Link(end)).run()
    except BrokenPipeError:
        return 0
    except FrameError as error:
        sys.stderr.write(f"engine: {error}; the stream cannot be followed any further\n")
        return 1
    return 0
