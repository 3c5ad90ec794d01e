"""Whether a processor's output fits the model of its result."""

from collections.abc import Iterator, Mapping
from typing import Any

import structlog
from pydantic import BaseModel, TypeAdapter, ValidationError

from app.processing.encoding import encode, limited
from app.processors.base import LongList, LongText, Permanent

log = structlog.get_logger()


class JsonModel(BaseModel):
    """A model of JSON's own types only. Its data is validated as it is, and need not be written as JSON for that."""


class Misfit(Permanent):
    """Data that does not fit. `where`: the steps to it. Of these the detail has only the name of a field, because the
    rest may quote the file."""

    def __init__(self, detail: str, where: tuple[int | str, ...]) -> None:
        super().__init__("result-invalid", detail)
        self.where = where


def require_fit(model: type[BaseModel], json: bytes) -> None:
    """Raise Misfit unless the JSON of the data fits the model. Types are not converted."""
    try:
        model.model_validate_json(json, strict=True)
    except ValidationError as error:
        raise _misfit(model, error.errors(include_url=False, include_input=False)[0]) from None


def fitting(model: type[BaseModel], data: Mapping[Any, Any], max_bytes: int) -> dict[Any, Any]:
    """Return the data if what is not long in it fits the model, and has at most `max_bytes` of JSON.

    Of a LongList each item is checked as it is made. Neither it nor a LongText is ever whole in memory, so that what
    the model says of the list or the text as a whole, such as its length, is not checked. Raises Misfit, and what
    `encode` raises.
    """
    rest = {key: value for key, value in data.items() if not isinstance(value, LongText | LongList)}
    try:
        if issubclass(model, JsonModel):
            model.model_validate(rest, strict=True)
        else:
            model.model_validate_json(b"".join(limited(encode(rest), max_bytes)), strict=True)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        # What is long is missing from the rest.
        if wrong := [each for each in found if each["type"] != "missing" or each["loc"][0] not in data.keys() - rest]:
            raise _misfit(model, wrong[0]) from None
    return {key: _checked(model, key, each) if isinstance(each, LongList) else each for key, each in data.items()}


def _checked(model: type[BaseModel], key: Any, items: LongList) -> LongList:
    if (field := model.model_fields.get(key)) is None or field.annotation is None:
        return items
    fits = TypeAdapter[Any](field.annotation).validate_python

    def make() -> Iterator[dict[str, Any]]:
        for item in items:
            try:
                fits([item])
            except ValidationError as error:
                reason = error.errors(include_url=False, include_input=False)[0]["type"]
                raise _misfit(model, {"loc": (key,), "type": reason}) from None
            yield item

    return LongList(make)


def _misfit(model: type[BaseModel], error: Mapping[str, Any]) -> Misfit:
    """The failure for one of Pydantic's errors."""
    where, reason = error["loc"], error["type"]
    log.warning("job.result_invalid", model=model.__name__, where=str(where)[:200], reason=reason)
    known = model.model_json_schema().get("properties", {})
    place = "".join(f", at `{field}`" for field in where[:1] if field in known)
    return Misfit(f"The processor returned what does not fit its own description{place}: {reason}.", where)
