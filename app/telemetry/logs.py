"""Structured logs: an event name plus keys. JSON for machines, columns for a developer's terminal.

Every line of a request has its request_id, and the keys that were bound with structlog's context variables: user_id,
document_id, job_id. A job's attempt binds those of the job, including the id of the request that created it.
"""

import json
import logging
import sys
from contextlib import suppress
from typing import Any, Literal, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, Processor

from app.telemetry import context

_NOISY = ("aiobotocore", "aiosqlite", "alembic", "asyncio", "botocore", "python_multipart")
_SILENT = ("aio_pika", "aiormq")  # they log each attempt to reach a broker; `broker.away` is logged once


class _Stream:
    """A standard stream without errors: a full disk, a closed pipe or a file's name that is no text must not fail the
    operation that is logged."""

    def __init__(self, name: Literal["stdout", "stderr"]) -> None:
        self._name = name

    def write(self, text: str) -> None:
        stream = getattr(sys, self._name)
        with suppress(OSError):
            try:
                stream.write(text)
            except UnicodeEncodeError:
                stream.write(text.encode("ascii", "backslashreplace").decode())

    def flush(self) -> None:
        with suppress(OSError):
            getattr(sys, self._name).flush()


def _dumps(event: EventDict, **_: Any) -> str:
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a lone surrogate, as in a file's name that is no text
        return json.dumps(event, default=str)


def _add_request_id(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Add the id of the current request, unless the line names another."""
    if request_id := context.request_id.get():
        event.setdefault("request_id", request_id)
    return event


def configure(level: str, *, as_json: bool, to: Literal["stdout", "stderr"] = "stdout") -> None:
    """Write the lines of structlog and of the standard library to a stream, in one format."""
    stream = cast("TextIO", _Stream(to))
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_request_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_dumps)]
        if as_json
        else [
            # rich's traceback would print local variables: passwords, tokens.
            structlog.dev.ConsoleRenderer(
                colors=getattr(sys, to).isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    logging.captureWarnings(capture=True)
    # web/middleware.py writes the access log.
    logging.getLogger("uvicorn.access").disabled = True
    # uvicorn's name for all that it logs, which alarms whoever searches for errors.
    logging.getLogger("uvicorn.error").name = "uvicorn"
    for silent in _SILENT:
        logging.getLogger(silent).setLevel(logging.CRITICAL)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
