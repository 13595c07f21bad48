"""Structured log lines: one JSON object a line on stderr. A request's or a document's text never goes in.

An unexpected exception is logged by its type and its frames, without its message: messages can quote what a user wrote.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from types import TracebackType
from typing import Any

LOG = logging.getLogger("edged")


class Lines(logging.Formatter):
    """Renders a record, and the dictionary given as ``extra={"fields": ...}``, as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "at": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            line["frames"] = frames(record.exc_info[2])
        return json.dumps(line, ensure_ascii=False, default=str)


def frames(trace: TracebackType | None) -> list[str]:
    """Where an exception went, innermost last: ``file:line function``."""
    return [f"{item.filename}:{item.lineno} {item.name}" for item in traceback.extract_tb(trace)]


def start() -> None:
    """Send every record of this process to stderr as lines of JSON."""
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(Lines())
    root = logging.getLogger()
    root.handlers[:] = [stream]
    root.setLevel(logging.WARNING)
    LOG.setLevel(logging.INFO)
    # The server's own complaints about broken requests quote them; our line for the request says what matters.
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)


def info(event: str, **fields: Any) -> None:
    LOG.info(event, extra={"fields": fields})


def warn(event: str, **fields: Any) -> None:
    LOG.warning(event, extra={"fields": fields})


def error(event: str, **fields: Any) -> None:
    LOG.error(event, extra={"fields": fields})
