"""One child process of ``edged``: started over a socket pair, loaded, listened to, and started again when it dies.

Requests in flight at its death get an error; how they are admitted and outlive it is the business of :mod:`.engine`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Literal

from edge_runtime.daemon import logs
from edge_runtime.daemon.events import Events
from edge_runtime.daemon.link import Link
from edge_runtime.daemon.replies import Replies
from edge_runtime.daemon.watchdog import Watchdog
from edge_runtime.engine.messages import (
    Down,
    Failed,
    FrameError,
    Load,
    Pong,
    Ready,
    Stats,
    Stop,
    Up,
    encode,
)
from edge_runtime.errors import EdgeError, EngineError
from edge_runtime.protocol import ChildStatus
from edge_runtime.turn import Turn

ChildName = Literal["engine", "embedder", "reranker"]
State = Literal["starting", "ready", "failed", "stopped"]

_FIRST_DELAY = 0.2  # seconds before a second start in a row that failed; doubled up to the next
_LONGEST_DELAY = 10.0
_RECHECK = 1.0  # seconds between looks for a model that is not there
_STOP_SECONDS = 3.0
# Rounds that an idle OpenMP thread spins before it sleeps, about half a millisecond. With libgomp's default, seconds
# pass for one token beside a busy neighbour; without any spinning (OMP_WAIT_POLICY=passive) every token is slower.
# Where llama.cpp was built without OpenMP nobody reads this.
_SPIN_ROUNDS = 10_000
# Bytes from which glibc maps what is allocated, and gives it back when it is freed: by itself it raises this limit
# with every large block, and prefixes that were let go would stay in the heap.
_MAPPED = 1 << 20
_MARK_SECONDS = 0.02  # between notes of our own CPU time; the governor looks every 0.06 s
_OPENMP = ("OMP_", "GOMP_", "KMP_")


class ChildDiedError(EngineError):
    """The process that worked on a request is gone; ``what`` says how it ended, ``life`` which start it was."""

    def __init__(self, what: str, life: int = 0) -> None:
        super().__init__(f"{what} during this request; send it again", retry_after=2)
        self.what = what
        self.life = life


class Child:
    """Runs ``python -m MODULE --fd N``; ``find`` names the model to load, or raises what is wrong with it.

    With ``silence_seconds`` one that has requests and says nothing for so long, not even to a ping, is killed.
    """

    def __init__(
        self,
        name: ChildName,
        module: str,
        *,
        options: Sequence[str],
        find: Callable[[], Load],
        events: Events,
        silence_seconds: float | None = None,
        turn: Turn | None = None,
    ) -> None:
        self.name: ChildName = name
        self.ready: Ready | None = None
        self.stats: Stats | None = None
        self.state: State = "starting"
        self.detail = ""
        self._module = module
        self._find = find
        self._events = events
        self.loaded: Load | None = None
        self._options = options
        self._watchdog = Watchdog(silence_seconds)
        self._cpu = turn or Turn.free()
        self._marked = 0.0
        self.life = 0  # how often it was started
        self._begun: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._link: Link | None = None
        self._changed = asyncio.Event()
        self._open: dict[str, Replies] = {}

    @property
    def status(self) -> ChildStatus:
        return ChildStatus(
            name=self.name,
            state=self.state,
            pid=self._process.pid if self._process is not None else None,
            restarts=max(0, self.life - 1),
            model=self.loaded.name if self.loaded is not None else None,
            detail=self.detail,
        )

    @property
    def busy(self) -> bool:
        """Whether it has loaded its model and owes somebody a reply."""
        return self.ready is not None and bool(self._open)

    def begin(self) -> None:
        """Start the process before there is an event loop; :meth:`supervise` goes on from there, or says why not."""
        with contextlib.suppress(EdgeError):
            self.loaded = self._find()
            self._begun = self._spawn(self.loaded)

    async def supervise(self) -> None:
        """Keep the child alive until cancelled; then stop it."""
        delay = 0.0
        try:
            while True:
                link, self._begun = self._begun, None
                if link is None:
                    try:
                        self.loaded = await asyncio.to_thread(self._find)
                    except EdgeError as error:
                        self._turn("failed", error.message)
                        await asyncio.sleep(_RECHECK)
                        continue
                    await asyncio.sleep(delay)
                    link = self._spawn(self.loaded)
                was_ready = await self._live(link)
                delay = 0.0 if was_ready else min(max(_FIRST_DELAY, delay * 2), _LONGEST_DELAY)
        finally:
            self._turn("stopped", "")
            await self._end()

    async def come(self) -> Ready:
        """The loaded model, however long it takes."""
        while self.ready is None:
            self._changed.clear()
            await self._changed.wait()
        return self.ready

    async def wait_ready(self, seconds: float, *, patient: bool = False) -> Ready:
        """The loaded model, waiting while the child starts; ``patient``: after a start that failed, for the next one.

        Raises:
            EngineError: it failed, or is not there within ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while self.ready is None:
            if self.state == "stopped" or (self.state == "failed" and not patient):
                raise EngineError(f"the {self.name} is not available: {self.detail or self.state}")
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), deadline - time.monotonic())
            except TimeoutError:
                raise EngineError(f"the {self.name} is still starting; try again in some seconds") from None
        return self.ready

    @contextlib.asynccontextmanager
    async def exchange(self, key: str) -> AsyncIterator[Replies]:
        """The replies that carry ``key``; an :class:`EdgeError` among them is the last."""
        self._open[key] = replies = Replies()
        try:
            yield replies
        finally:
            self._open.pop(key, None)

    def send(self, message: Down) -> None:
        """Raises EngineError where no child listens."""
        if self._link is None or not self._link.is_open:
            raise EngineError(f"the {self.name} has just died; try again in some seconds")
        self._link.send(message)

    async def call(self, key: str, message: Down) -> Up:
        """Send one message and wait for its one reply.

        Raises:
            EdgeError: what the child said, or that it died.
        """
        async with self.exchange(key) as replies:
            self.send(message)
            reply = await replies.get()
        if isinstance(reply, EdgeError):
            raise reply
        return reply

    def kill(self) -> None:
        """End a child that does not answer; it is started again."""
        if self._process is not None:
            self._process.kill()

    def _spawn(self, load: Load) -> socket.socket:
        """Start the process (posix_spawn: 2 ms) and tell it what to load; our end of the pair."""
        self.life += 1
        ours, theirs = socket.socketpair()
        shared = () if self._cpu.descriptor is None else (self._cpu.descriptor,)
        options = [part for number in shared for part in ("--turn", str(number))]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", self._module, "--fd", str(theirs.fileno()), *options, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *shared),
                env=environment(os.environ),
            )
        # One that is dead already is noticed where its replies are awaited.
        with contextlib.suppress(OSError):
            ours.sendall(encode(load))
        return ours

    async def _live(self, end: socket.socket) -> bool:
        """One life of the process, from its start to its death; whether it ever was ready."""
        if self.state != "failed":
            self._turn("starting", "")
        self._link = await Link.open(end, self._receive)
        self._publish("child.started", pid=self.status.pid)
        watch = asyncio.ensure_future(self._watchdog.watch(self))
        try:
            await self._link.ended
        except (ConnectionError, FrameError) as error:
            logs.warn("child.broken", child=self.name, reason=str(error))
        finally:
            watch.cancel()
        return await self._bury()

    def _receive(self, message: Up) -> None:
        self._watchdog.hear()
        if (now := time.monotonic()) - self._marked > _MARK_SECONDS:
            # The engine's governor then takes our own work for ours.
            self._marked = now
            self._cpu.mark()
        match message:
            case Pong():
                pass
            case Ready():
                self.ready = message
                self._turn("ready", "")
                self._publish("child.ready", load_ms=round(message.load_ms, 1))
            case Stats():
                self.stats = message
            case Failed(id="load", message=text):
                self._turn("failed", text)
                self.kill()
            case Failed(id=key):
                self._hand(key, message.error)
            case other:
                self._hand(other.id, other)

    def _hand(self, key: str, reply: Up | EdgeError) -> None:
        # A reply to a request that has been given up is nobody's.
        if (replies := self._open.get(key)) is not None:
            replies.put(reply)

    async def _bury(self) -> bool:
        """After the stream's end: reap the process, and tell whoever waited for it. Whether it ever was ready."""
        was_ready, self.ready = self.ready is not None, None
        self.stats = None
        if self._link is not None:
            self._link.close()
            self._link = None
        code = await self._reap(0.5)
        if was_ready:
            self._turn("starting", f"it ended with {describe(code)} and is being started again")
        elif self.state != "failed":
            self._turn("failed", f"it ended with {describe(code)} while loading its model; run: edge doctor")
        logs.warn("child.died", child=self.name, model=self.status.model, reason=describe(code))
        self._publish("child.died", reason=describe(code))
        for replies in self._open.values():
            replies.put(ChildDiedError(f"the {self.name} process died ({describe(code)})", self.life))
        return was_ready

    async def _reap(self, patience: float) -> int:
        if (process := self._process) is None:
            return 0
        try:
            return await asyncio.to_thread(process.wait, patience)
        except subprocess.TimeoutExpired:
            process.kill()
            return await asyncio.to_thread(process.wait)

    async def _end(self) -> None:
        """Ask the child to leave, and see to it that it does; one that is still loading does not hear."""
        loading, self.ready, self.stats = self.ready is None, None, None
        if self._link is not None:
            self._link.send(Stop())
            self._link.close()
            self._link = None
        if loading:
            self.kill()
        await self._reap(_STOP_SECONDS)

    def _publish(self, kind: str, **fields: str | float | bool | None) -> None:
        self._events.publish(kind, child=self.name, model=self.status.model, **fields)

    def _turn(self, state: State, detail: str) -> None:
        if (state, detail) != (self.state, self.detail) and detail:
            logs.warn("child.state", child=self.name, state=state, detail=detail)
        self.state, self.detail = state, detail
        self._changed.set()


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """What a child starts with: ours, but how its threads wait for each other is decided here alone."""
    kept = {name: value for name, value in inherited.items() if not name.startswith(_OPENMP)}
    # GGML starts a debugger when an assertion fails; here the assertion alone must end the process.
    fixed = {"GOMP_SPINCOUNT": str(_SPIN_ROUNDS), "GGML_NO_BACKTRACE": "1", "MALLOC_MMAP_THRESHOLD_": str(_MAPPED)}
    return {**kept, **fixed}


def describe(code: int) -> str:
    """An exit status in words."""
    return f"signal {-code}" if code < 0 else f"exit status {code}"
