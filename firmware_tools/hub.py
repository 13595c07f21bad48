"""One file from a model hub over HTTPS, resumed by ranges (RFC 9110 section 14). Checks no digest."""

from __future__ import annotations

import http.client
import os
import queue
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http import HTTPStatus

from firmware_tools.errors import SourceError
from models.catalog import Hub
from models.partial import Partial, State

DEFAULT_HUB = "https://huggingface.co"
REACH_SECONDS = 5.0  # a hub that has not answered by then counts as unreachable
STALL_SECONDS = 30.0  # a download that brings nothing for so long is resumed
_RETRIES = 4  # resumptions in a row that bring nothing
_BLOCK = 1 << 18


class Downloads:
    """Downloads from the hub at ``base``. One that could not be reached is not asked again in this run."""

    def __init__(self, base: str = DEFAULT_HUB, *, reach_seconds: float = REACH_SECONDS) -> None:
        self._base = base.rstrip("/")
        self._reach_seconds = reach_seconds
        self._unreachable: str | None = None

    def gather(self, source: Hub, partial: Partial, size: int | None, step: Callable[[int, int | None], None]) -> None:
        """Bring ``source`` into ``partial``. ``step`` is told the bytes so far and in all.

        Raises:
            SourceError: the hub cannot be reached, has no such file, wants a licence accepted, or sent something else.
            StoreError: the file does not fit.
        """
        if self._unreachable is not None:
            raise SourceError(self._unreachable)
        fruitless = 0
        while fruitless <= _RETRIES:
            before = partial.size
            try:
                if self._continue(source, partial, size, step):
                    return
            except (OSError, http.client.HTTPException) as error:
                reason: object = error
            else:
                reason = "the connection ended early"
            fruitless = 0 if partial.size > before else fruitless + 1
        raise SourceError(
            f"{source}: the download broke off {_RETRIES} times in a row ({reason}); try again to resume it"
        )

    def _continue(
        self, source: Hub, partial: Partial, size: int | None, step: Callable[[int, int | None], None]
    ) -> bool:
        """One request; True when the file is whole."""
        state, offset = partial.state, partial.size
        if state.total is not None and offset == state.total:
            return True
        request = urllib.request.Request(self._address(source))  # noqa: S310 - the scheme is the hub's, chosen by the owner
        request.add_header("User-Agent", "edge-firmware")
        token = os.environ.get("HF_TOKEN")
        if token:
            # Not sent on to where the hub redirects.
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        if offset and state.tag:
            request.add_header("Range", f"bytes={offset}-")
            request.add_header("If-Range", state.tag)
        with self._open(request, source) as response:
            resumed = response.status == HTTPStatus.PARTIAL_CONTENT
            offset = offset if resumed else 0
            length = response.headers.get("Content-Length")
            total = offset + int(length) if length and length.isdecimal() else None
            if size is not None and total is not None and total != size:
                raise SourceError(f"{source} is {total} bytes long, and the catalogue knows {size}: it is another file")
            # A weak tag promises no equal bytes (RFC 9110 section 8.8.1), so such a download starts anew.
            tag = response.headers.get("ETag")
            partial.expect(State(total=total, tag=None if tag and tag.startswith("W/") else tag), str(source))
            with partial.append_at(offset) as file:
                while block := response.read1(_BLOCK):
                    file.write(block)
                    file.flush()  # what a kill must not take back
                    offset += len(block)
                    step(offset, total)
        if total is None:
            partial.expect(State(total=offset, tag=tag), str(source))
            return True
        return offset == total

    def _address(self, source: Hub) -> str:
        revision, file = urllib.parse.quote(source.revision, safe=""), urllib.parse.quote(source.file)
        return f"{self._base}/{source.repository}/resolve/{revision}/{file}"

    def _open(self, request: urllib.request.Request, source: Hub) -> http.client.HTTPResponse:
        # Name resolution takes no timeout: the whole way to the answer's head runs on a thread that can be left behind.
        answer: queue.SimpleQueue[http.client.HTTPResponse | Exception] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answer.put(urllib.request.urlopen(request, timeout=STALL_SECONDS))  # noqa: S310
            except (OSError, http.client.HTTPException, ValueError) as error:
                answer.put(error)

        threading.Thread(target=ask, daemon=True).start()
        host = urllib.parse.urlsplit(request.full_url).netloc
        try:
            found = answer.get(timeout=self._reach_seconds)
        except queue.Empty:
            self._unreachable = f"the hub at {host} did not answer within {self._reach_seconds:g} seconds"
            raise SourceError(self._unreachable) from None
        match found:
            case urllib.error.HTTPError(code=code):
                raise SourceError(_refusal(code, source, host)) from found
            case urllib.error.URLError(reason=reason):
                self._unreachable = f"the hub at {host} cannot be reached ({reason})"
                raise SourceError(self._unreachable) from found
            case Exception():
                raise SourceError(f"{source}: the hub at {host} gave no usable answer ({found})") from found
        return found


def _refusal(code: int, source: Hub, host: str) -> str:
    match code:
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return (
                f"{source}: {host} gives it only to accounts that accepted its licence; accept it there, put an access "
                "token into HF_TOKEN and try again"
            )
        case HTTPStatus.NOT_FOUND:
            return f"{source}: {host} has no such file"
        case _:
            return f"{source}: {host} answered {code}"
