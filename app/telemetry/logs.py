"""Structured logs: an event name plus keys. JSON for machines, columns for a developer's terminal.

Every line of a request has its request_id, and the keys that were bound with structlog's context variables: user_id,
document_id, job_id. A job's attempt binds those of the job, including the id of the request that created it.
"""

import logging
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, Processor

from app.telemetry import context

_NOISY = ("aiobotocore", "aiosqlite", "alembic", "asyncio", "botocore", "python_multipart")
_SILENT = ("aio_pika", "aiormq")  # they log each attempt to reach a broker; `broker.away` is logged once


class _Stdout:
    """Standard output without errors: a full disk or a closed pipe must not fail the operation that is logged."""

    @staticmethod
    def write(text: str) -> None:
        with suppress(OSError):
            sys.stdout.write(text)

    @staticmethod
    def flush() -> None:
        with suppress(OSError):
            sys.stdout.flush()


def _dumps(event: EventDict, **_: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


def _add_request_id(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Add the id of the current request, unless the line names another."""
    if request_id := context.request_id.get():
        event.setdefault("request_id", request_id)
    return event


def configure(level: str, *, as_json: bool) -> None:
    """Write the lines of structlog and of the standard library to stdout, in one format."""
    stdout = cast("TextIO", _Stdout)
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
            structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.WriteLoggerFactory(stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stdout)
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
    for silent in _SILENT:
        logging.getLogger(silent).setLevel(logging.CRITICAL)
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
