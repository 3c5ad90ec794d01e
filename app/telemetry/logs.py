"""Structured logs: an event name plus keys. JSON for machines, columns for a developer's terminal.

Every line of a request has its request_id, and the keys that were bound with structlog's context variables: user_id,
document_id, job_id. A job's attempt binds those of the job, including the id of the request that created it.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any, Literal, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, Processor

from app.telemetry import context
from app.telemetry.streams import LogFile, Standard

_NOISY = ("aiobotocore", "aiosqlite", "alembic", "asyncio", "botocore", "python_multipart")
_SILENT = ("aio_pika", "aiormq")  # they log each attempt to reach a broker; `broker.away` is logged once


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


def configure(
    level: str, *, as_json: bool, to: Literal["stdout", "stderr"] = "stdout", file: Path | None = None
) -> None:
    """Write the lines of structlog and of the standard library to a stream, or a file, in one format."""
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
                colors=file is None and getattr(sys, to).isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    )

    def notice(error: OSError) -> str:
        event: Any = {"event": "log.file_failed", "file": str(file), "reason": error.strerror}
        for processor in (*shared[2:], *rendering):
            event = processor(None, "error", event)
        return f"{event}\n"

    stream = cast("TextIO", Standard(to) if file is None else LogFile(file, notice))
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
