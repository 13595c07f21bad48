"""The engine as the daemon uses it: everything that was admitted is submitted at once, and outlives one death.

Which request goes first, and what must wait for memory, is the engine's own business. A child that dies takes no
request with it but one that killed two: what had no text yet is submitted again, and what had continues after the
tokens that came.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator

import msgspec

from edge_runtime.daemon.admission import Admission, Bid, Limits, Place
from edge_runtime.daemon.child import Child, ChildDiedError
from edge_runtime.daemon.replies import Replies
from edge_runtime.daemon.suspects import Suspects, Trial
from edge_runtime.engine.messages import (
    Cancel,
    Done,
    Down,
    Probe,
    Probed,
    Purge,
    Purged,
    Ready,
    Score,
    Scored,
    Stats,
    Submit,
    Token,
    Up,
)
from edge_runtime.errors import ContextLengthError, EdgeError, EngineError

WAIT_SECONDS = 60.0  # a request waits so long for a child that is starting
DEATHS = 2  # of the engine, after which a request is taken for their cause
PROBE_SECONDS = 60.0
LONGEST_TOKEN = 32  # bytes on average: only text of blanks and the like has tokens that long


class Engine:
    """A writer: prompts in, tokens out."""

    def __init__(self, child: Child, limits: Limits) -> None:
        self.child = child
        self.admission = Admission(limits)
        self._suspects = Suspects()
        # Sees to it that the child has an adapter while a request uses it.
        self.lease: Callable[[str], contextlib.AbstractAsyncContextManager[None]] | None = None

    @property
    def running(self) -> int:
        """Texts that are being written."""
        return sum(self.admission.running().values())

    @property
    def waiting(self) -> int:
        """Texts that were admitted and have no token yet."""
        return sum(self.admission.waiting().values())

    @property
    def ready(self) -> Ready | None:
        return self.child.ready

    @property
    def stats(self) -> Stats | None:
        """What the engine last said of itself; None while there is none."""
        return self.child.stats if self.child.ready is not None else None

    @contextlib.contextmanager
    def admit(self, bid: Bid) -> Iterator[Place]:
        """A place in front of the engine while the block lasts.

        Raises:
            BusyError: no place is left for its class, its user has enough, or memory is short.
            DeadlineError: it would not be done in time.
        """
        place = self.admission.enter(bid, stats=self.stats)
        try:
            yield place
        finally:
            self.admission.leave(place)

    async def generate(
        self, submit: Submit, place: Place, *, on_start: Callable[[], None] | None = None
    ) -> AsyncGenerator[Token | Done, None]:
        """Tokens, and :class:`Done` last; leaving the generator early cancels. ``submit``'s id is chosen here.

        Raises:
            EngineError: the engine is not there, or died twice over this request.
            ContextLengthError: the prompt does not fit.
        """
        received: list[int] = []
        written, deaths, suspect = 0, 0, False
        while True:
            async with self._suspects.trial(suspect=suspect) as trial:
                attempt = self._attempt(msgspec.structs.replace(submit, resume=list(received)), trial)
                try:
                    async with contextlib.aclosing(attempt) as replies:
                        async for reply in replies:
                            trial.end()
                            if isinstance(reply, Done):
                                self._learn(place, reply)
                            elif reply.ids and reply.tokens <= written:
                                continue  # the very last one again: all were here but the word that they are all
                            else:
                                if not written and on_start is not None:
                                    on_start()
                                received += reply.ids
                                self.admission.begin(place, place.written + max(reply.tokens - written, 0))
                                written = reply.tokens
                            yield reply
                except ChildDiedError as death:
                    deaths, suspect = self._blame(trial, death, deaths), True
                    if len(received) != written:
                        raise  # which tokens those were is not known, so they cannot be continued
                else:
                    return

    def _blame(self, trial: Trial, death: ChildDiedError, deaths: int) -> int:
        """How many deaths now count against a request. Raises EngineError where that is one too many."""
        deaths += self._suspects.counts(trial, death.life)
        if trial.on or deaths >= DEATHS:
            raise _given_up(death) from death
        return deaths

    def _learn(self, place: Place, done: Done) -> None:
        self.admission.learn(
            place,
            prompt_tokens=done.prompt_tokens,
            cached_tokens=done.cached_tokens,
            completion_tokens=done.completion_tokens,
            stopped=done.reason == "stop",
        )

    async def _attempt(self, submit: Submit, trial: Trial) -> AsyncGenerator[Token | Done, None]:
        """One submission, to its end or the child's."""
        counted = bool(submit.resume)
        held: Token | None = None
        async with self._exchange(submit, trial) as replies:
            while True:
                match await replies.get():
                    case Token(ids=[]) as rest if counted:
                        # The rest of a text comes without tokens, just before the end. A death between the two makes
                        # it come again, so it counts only with the end.
                        held = rest
                    case Token() as token:
                        counted = counted or bool(token.ids)
                        yield token
                    case Done() as done:
                        if held is not None:
                            yield held
                        yield done
                        return
                    case EdgeError() as error:
                        raise error
                    case other:
                        raise _odd(other)

    async def score(self, score: Score, place: Place) -> Scored:
        """Log-probability of each choice after a prompt; ``score``'s id is chosen here. Raises as :meth:`generate`."""
        deaths, suspect = 0, False
        while True:
            async with self._suspects.trial(suspect=suspect) as trial:
                async with self._exchange(score, trial) as replies:
                    reply = await replies.get()
                match reply:
                    case Scored():
                        self.admission.begin(place, place.written + 1)
                        return reply
                    case ChildDiedError():
                        deaths = self._blame(trial, reply, deaths)
                        suspect = True
                    case EdgeError():
                        raise reply
                    case other:
                        raise _odd(other)

    @contextlib.asynccontextmanager
    async def _exchange(self, request: Submit | Score, trial: Trial) -> AsyncIterator[Replies]:
        """Send ``request``, under a new id, to a child that is ready; what has no end at the block's is cancelled.

        What saw one die waits on for the next, also where a start fails.
        """
        ready = await self.child.wait_ready(WAIT_SECONDS, patient=trial.suspect)
        choices = request.choices if isinstance(request, Score) else ()
        check_size(ready, [request.prompt, max(choices, key=len, default="")], param="prompt")
        trial.life = self.child.life
        leased = self.lease(request.adapter) if request.adapter and self.lease else contextlib.nullcontext()
        key = uuid.uuid4().hex
        async with leased, self.child.exchange(key) as replies:
            self._send(msgspec.structs.replace(request, id=key))
            try:
                yield replies
            finally:
                if not replies.ended:
                    self._send(Cancel(id=key))

    def _send(self, message: Down) -> None:
        # Where nobody listens any more, the child's burial is the reply.
        with contextlib.suppress(EngineError):
            self.child.send(message)

    async def purge(self) -> bool:
        """Forget every cached prompt; an engine that is not there has none. Whether one was there to ask."""
        key = uuid.uuid4().hex
        try:
            return isinstance(await self.child.call(key, Purge(id=key)), Purged)
        except EngineError:
            return False

    async def probe(self) -> list[tuple[str, bool, str]]:
        return await probe(self.child)


def check_size(ready: Ready, texts: Iterable[str], *, param: str) -> None:
    """Refuse what the engine would only refuse after it cut all of it into tokens, with everybody else waiting.

    Raises:
        ContextLengthError: so many bytes fit no context of that many tokens.
    """
    size, most = sum(len(text.encode("utf-8", "replace")) for text in texts), ready.context * LONGEST_TOKEN
    if size > most:
        raise ContextLengthError(
            f"the {param} has {size} bytes, and at most {most} are read into {ready.context} tokens of context; "
            "send less",
            param=param,
        )


def _given_up(death: ChildDiedError) -> EngineError:
    return EngineError(
        f"{death.what}, and once before, while it worked on this request; send it again in some seconds, "
        "or a shorter one if that does not help"
    )


def _odd(reply: Up) -> EngineError:
    return EngineError(f"the engine answered with {type(reply).__name__}; send the request again")


async def probe(child: Child) -> list[tuple[str, bool, str]]:
    """Have a child try the ways out of the seal: route, refused, detail."""
    key = uuid.uuid4().hex
    async with asyncio.timeout(PROBE_SECONDS):
        await child.wait_ready(WAIT_SECONDS)
        reply = await child.call(key, Probe(id=key))
    if not isinstance(reply, Probed):
        raise EngineError(f"the {child.name} did not probe; ask again")
    return reply.attempts
