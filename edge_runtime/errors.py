"""The error tree of the box, and what each error is on the wire and at the shell.

    EdgeError
    ├── RequestError            400  the request itself is wrong
    │   ├── ContextLengthError  400  the prompt does not fit the model's context
    │   ├── TooLargeError       413  the body or the document is over a limit
    │   ├── HeadTooLargeError   431  a header, or the number of them, is over a limit
    │   ├── TargetTooLongError  414  the path with its query is over a limit
    │   ├── ExpectationError    417  an Expect header that is not 100-continue
    │   ├── MethodError         405  the route is there, for another method
    │   └── SlowRequestError    408  the head or the body did not arrive in time
    ├── NotFoundError           404  no such route, document or request
    │   └── ModelNotFoundError  404  no such model
    ├── AuthenticationError     401  no token, or a wrong one, on the TCP listener
    ├── PermissionDeniedError   403  this peer may not do this
    ├── RefusedError            409  the policy or the state of the box says no
    │   └── StoppedError        409  somebody cancelled the request
    ├── DocumentError           422  a document cannot be read (scan, encrypted, damaged, empty)
    ├── BusyError               429  the queue is full; try again later
    ├── EngineError             503  the engine is not there (crashed, loading); retryable
    ├── DeadlineError           504  the deadline passed
    ├── StorageError            507  a full disk, a damaged database, a database from a newer version
    ├── ModelFileError          500  a model file is missing or damaged
    ├── ConfigError               -  the configuration is wrong
    ├── SealError                 -  the kernel did not grant a part of the seal
    └── UnreachableError          -  the daemon cannot be reached

A message says what happened and, after it, what to do about it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Exit codes of every command of the project."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    DEADLINE = 5
    INTERRUPTED = 130


class EdgeError(Exception):
    """Root of the tree. ``code`` is OpenAI's error code, ``kind`` its error type, ``param`` the field at fault.

    ``retry_after`` is when it may be worth trying again, in seconds (None: nobody can tell); ``reason`` is why an
    admission was refused, in one word for the metrics.
    """

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    exit_code: ClassVar[ExitCode] = ExitCode.FAILED
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, param: str | None = None, retry_after: int | None = None, reason: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.reason = reason


class RequestError(EdgeError):
    status = 400
    kind = "invalid_request_error"
    code = "invalid_request"
    exit_code = ExitCode.USAGE


class ContextLengthError(RequestError):
    code = "context_length_exceeded"
    exit_code = ExitCode.FAILED


class TooLargeError(RequestError):
    status = 413
    code = "request_too_large"
    exit_code = ExitCode.FAILED


class HeadTooLargeError(RequestError):
    status = 431
    code = "request_head_too_large"
    exit_code = ExitCode.FAILED


class TargetTooLongError(RequestError):
    status = 414
    code = "request_target_too_long"
    exit_code = ExitCode.FAILED


class ExpectationError(RequestError):
    status = 417
    code = "expectation_failed"


class MethodError(RequestError):
    status = 405
    code = "method_not_allowed"


class SlowRequestError(RequestError):
    status = 408
    code = "request_timeout"
    exit_code = ExitCode.FAILED


class NotFoundError(EdgeError):
    status = 404
    kind = "invalid_request_error"
    code = "not_found"


class ModelNotFoundError(NotFoundError):
    code = "model_not_found"


class AuthenticationError(EdgeError):
    status = 401
    kind = "authentication_error"
    code = "invalid_api_key"
    exit_code = ExitCode.REFUSED


class PermissionDeniedError(EdgeError):
    status = 403
    kind = "permission_error"
    code = "permission_denied"
    exit_code = ExitCode.REFUSED


class RefusedError(EdgeError):
    status = 409
    kind = "invalid_request_error"
    code = "refused"
    exit_code = ExitCode.REFUSED


class StoppedError(RefusedError):
    code = "cancelled"


class DocumentError(EdgeError):
    status = 422
    kind = "invalid_request_error"
    code = "unreadable_document"


class BusyError(EdgeError):
    status = 429
    kind = "rate_limit_error"
    code = "busy"
    retryable = True


class EngineError(EdgeError):
    status = 503
    code = "engine_unavailable"
    retryable = True


class DeadlineError(EdgeError):
    status = 504
    code = "deadline_exceeded"
    exit_code = ExitCode.DEADLINE


class StorageError(EdgeError):
    status = 507
    code = "storage"


class ModelFileError(EdgeError):
    code = "model_file"


class ConfigError(EdgeError):
    code = "config"
    exit_code = ExitCode.USAGE


class SealError(EdgeError):
    code = "seal"


class UnreachableError(EdgeError):
    status = 503
    code = "daemon_unreachable"
    exit_code = ExitCode.UNREACHABLE


def _tree(root: type[EdgeError]) -> list[type[EdgeError]]:
    return [root, *(leaf for branch in root.__subclasses__() for leaf in _tree(branch))]


def from_wire(code: str | None, message: str, param: str | None = None, *, retry_after: int | None = None) -> EdgeError:
    """The error that the daemon named by ``code``; an unknown code becomes a plain :class:`EdgeError`."""
    for kind in _tree(EdgeError):
        if kind.code == code:
            return kind(message, param=param, retry_after=retry_after)
    return EdgeError(message, param=param, retry_after=retry_after)
