"""An error of the box as a reply in OpenAI's shape."""

from __future__ import annotations

from aiohttp import hdrs, web

from edge_runtime.daemon.call import encode
from edge_runtime.errors import AuthenticationError, EdgeError
from edge_runtime.protocol import ErrorBody, ErrorReply

_RETRY_SECONDS = 2  # where a request may come again and nobody can tell when


def error_reply(error: EdgeError) -> ErrorReply:
    return ErrorReply(error=ErrorBody(message=error.message, type=error.kind, code=error.code, param=error.param))


def error_response(error: EdgeError, key: str) -> web.Response:
    """An error as a reply of its own. A body that was not read makes the connection useless, so it is closed."""
    response = web.Response(
        status=error.status,
        body=encode(error_reply(error)),
        content_type="application/json",
        headers={"X-Request-Id": key},
    )
    retry = error.retry_after or (_RETRY_SECONDS if error.retryable else None)
    if retry is not None:
        response.headers[hdrs.RETRY_AFTER] = str(retry)
    if isinstance(error, AuthenticationError):
        response.headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    if error.status in (408, 413):
        response.force_close()
    return response
