"""What the service expects of a processor, whoever wrote it."""

import re
from collections.abc import Callable, Iterable, Iterator
from inspect import iscoroutinefunction, signature
from math import inf
from typing import Any

from pydantic import BaseModel

from app.files.models import ContentType
from app.processors.base import Params, Processor

_NAME = "[a-z0-9-]{1,50}"
_VERSION = "[!-~]{1,50}"
_REQUIRED = ("name", "version", "description", "at_once", "params", "result", "run")


def content_types(processor: Processor) -> list[ContentType]:
    """Return the content types of the documents that it reads."""
    return [ContentType(each) for each in _stated_types(processor)]


def _stated_types(processor: Any) -> Iterable[str]:
    return getattr(processor, "content_types", None) or ContentType


def makes_files(processor: Processor) -> bool:
    """Whether it is to be given `outputs`."""
    return "outputs" in signature(processor.run).parameters


def runs_elsewhere(processor: Processor) -> bool:
    """Whether its jobs are claimed by workers elsewhere, and by no process of the service."""
    return getattr(processor, "runs_elsewhere", False)


def violation(processor: Any) -> str | None:
    """Say why no job of this processor could work, or return None if nothing speaks against it."""
    lacking = [name for name in _REQUIRED if not hasattr(processor, name)]
    return f"it has no {lacking[0]}" if lacking else next(_violations(processor), None)


def _violations(processor: Any) -> Iterator[str]:
    if not isinstance(processor.name, str) or not re.fullmatch(_NAME, processor.name):
        yield "its name is not 1 to 50 of a-z, 0-9 and -"
    if not isinstance(processor.version, str) or not re.fullmatch(_VERSION, processor.version):
        yield "its version is not text of 1 to 50 printable characters without spaces"
    if not isinstance(processor.description, str) or not processor.description:
        yield "its description is no text"
    if processor.at_once is not None and not (isinstance(processor.at_once, int) and processor.at_once > 0):
        yield "its at_once is neither None nor a number from 1 on"
    weight = getattr(processor, "weight", 1)
    if not isinstance(weight, int | float) or not 0 < weight < inf:
        yield "its weight is no number above 0"
    if not iscoroutinefunction(getattr(processor, "needed", _needed)):
        yield "its needed is no `async def`"
    if unknown := sorted(set(_stated_types(processor)) - set(ContentType)):
        yield f"there are no documents of its content type {unknown[0]!r:.100}"
    yield from _of_run(processor.run)
    yield from _of_models(processor.params, processor.result)


async def _needed() -> None:
    """In the place of a `needed` that a processor does not have."""


def _of_run(run: Callable[..., Any]) -> Iterator[str]:
    if not iscoroutinefunction(run):
        yield "its run is no `async def`"
    try:
        taken = signature(run)
        taken.bind("source", "params", "report", *(["outputs"] if "outputs" in taken.parameters else []))
    except TypeError as error:
        yield f"its run does not take (source, params, report): {error}"


def _of_models(params: Any, result: Any) -> Iterator[str]:
    if not isinstance(params, type) or not issubclass(params, Params):
        yield "its params are no subclass of Params"
    if not isinstance(result, type) or not issubclass(result, BaseModel):
        yield "its result is no subclass of BaseModel"
    try:
        params()
    except Exception:  # noqa: BLE001 - its validators may raise anything
        yield "a param has no default, or one that is not valid"
    try:
        params.model_json_schema()
        result.model_json_schema(mode="serialization")
    except Exception as error:  # noqa: BLE001 - so may what the fields are made of
        yield f"its params or its result have no JSON Schema: {error}"
