"""Models of what a JSON Schema describes (draft 2020-12), as processors have them for params and results."""

from typing import Any, ClassVar, Self

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from pydantic import BaseModel, ConfigDict, model_validator

from app.processors.base import MakingParams, Params

_OPEN = ConfigDict(extra="allow")


class _Described(BaseModel):
    """What a schema describes. Each subclass has one of its own."""

    model_config = _OPEN

    schema_of_it: ClassVar[dict[str, Any]]
    validator: ClassVar[Draft202012Validator]

    @model_validator(mode="before")
    @classmethod
    def _fits(cls, given: Any) -> Any:
        """What is given, with the defaults of what was left out. Raises ValueError, which repeats no value."""
        if not isinstance(given, dict):
            return given
        own = {name: value for name, value in given.items() if name not in cls.model_fields}
        defaults = {name: each["default"] for name, each in _properties(cls.schema_of_it) if "default" in each}
        complete = defaults | own
        if error := best_match(cls.validator.iter_errors(complete)):
            place = "/".join(str(step) for step in error.absolute_path)
            raise ValueError(f"does not fit its schema at /{place}: {error.validator}"[:200])
        return {**given, **complete}

    @classmethod
    def model_json_schema(cls, *args: Any, **options: Any) -> dict[str, Any]:
        """The schema, with the fields that the service itself sees to."""
        own = super().model_json_schema(*args, **options)
        own.pop("additionalProperties", None)
        fields = {name: each for name, each in _properties(own) if name in cls.model_fields}
        described = cls.schema_of_it | {"title": cls.__name__}
        if fields:
            described["properties"] = described.get("properties", {}) | fields
        return described | ({"$defs": own["$defs"]} if "$defs" in own else {})


class DescribedParams(_Described, Params):
    """Params that a schema describes."""

    model_config = _OPEN


class DescribedMakingParams(_Described, MakingParams):
    """Such of a processor that makes documents."""

    model_config = _OPEN


class DescribedResult(_Described):
    """A result's data that a schema describes."""


def model_of(base: type[Any], name: str, schema: dict[str, Any]) -> type[Any]:
    """A model with this name of what the schema describes. Raises jsonschema's SchemaError."""
    Draft202012Validator.check_schema(schema)
    return type(name, (base,), {"schema_of_it": schema, "validator": Draft202012Validator(schema)})


def _properties(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(schema.get("properties", {}).items())
