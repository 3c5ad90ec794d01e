"""Models of what a JSON Schema describes (draft 2020-12), as processors have them for params and results."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError as SchemaMisfit
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.json_schema import DEFAULT_REF_TEMPLATE, GenerateJsonSchema, JsonSchemaMode
from pydantic_core import InitErrorDetails, PydanticCustomError
from typing_extensions import override

from app.processing.fitting import JsonModel
from app.processors.base import MakingParams, Params

_OPEN = ConfigDict(extra="allow")
_DEFINITION = "#/$defs/"
_ELSEWHERE = ("$id", "$anchor", "$dynamicRef", "$dynamicAnchor")  # they change what a reference means


class _Described(BaseModel):
    """What a schema describes. Each subclass has one of its own."""

    model_config = _OPEN

    described_by: ClassVar[dict[str, Any]]
    validator: ClassVar[Draft202012Validator]
    takes_defaults: ClassVar[bool] = True

    @model_validator(mode="before")
    @classmethod
    def _fits(cls, given: Any) -> Any:
        """What is given, with the defaults of what was left out. Raises ValidationError, which repeats no value."""
        if not isinstance(given, dict):
            return given
        own = {name: value for name, value in given.items() if name not in cls.model_fields}
        defaults = {name: each["default"] for name, each in _properties(cls.described_by) if "default" in each}
        complete = defaults | own if cls.takes_defaults else own
        try:
            misfit = next(cls.validator.iter_errors(complete), None)
        except RecursionError:
            raise ValueError("has too many levels") from None
        if misfit:
            raise ValidationError.from_exception_data(cls.__name__, [_error_of(misfit)])
        return given | complete

    @override
    @classmethod
    def model_json_schema(
        cls,
        by_alias: bool | None = None,
        ref_template: str = DEFAULT_REF_TEMPLATE,
        schema_generator: type[GenerateJsonSchema] = GenerateJsonSchema,
        mode: JsonSchemaMode = "validation",
        **options: Any,
    ) -> dict[str, Any]:
        """The schema, with the fields that the service itself sees to."""
        own = super().model_json_schema(by_alias, ref_template, schema_generator, mode, **options)
        described: dict[str, Any] = _referring(cls.described_by, ref_template)
        described |= {"type": "object", "title": cls.__name__}
        for part in ("properties", "$defs"):
            if found := described.get(part, {}) | own.get(part, {}):
                described[part] = found
        return described


class DescribedParams(_Described, Params):
    """Params that a schema describes."""

    model_config = _OPEN


class DescribedMakingParams(_Described, MakingParams):
    """Such of a processor that makes documents."""

    model_config = _OPEN


class DescribedResult(_Described, JsonModel):
    """A result's data that a schema describes."""

    takes_defaults = False


def model_of(base: type[Any], name: str, schema: Mapping[str, Any]) -> type[Any]:
    """A model with this name of what the schema describes. Raises ValueError, in one line, for what is none."""
    described = {key: value for key, value in schema.items() if key != "$schema"}
    try:
        Draft202012Validator.check_schema(described)
    except SchemaError as error:
        place = "".join(f"/{step}" for step in error.absolute_path)
        raise ValueError(f"is no JSON Schema{place and f', at {place}'}: {error.validator}") from None
    if described.get("type", "object") != "object":
        raise ValueError("does not describe an object")
    if taken := sorted(described.get("properties", {}).keys() & base.model_fields.keys()):
        raise ValueError(f"describes `{taken[0]}`, which the service itself sees to")
    known = {f"{_DEFINITION}{each}" for each in described.get("$defs", {})}
    for key, value in _members(described):
        if isinstance(value, str) and (key in _ELSEWHERE or (key == "$ref" and value not in known)):
            raise ValueError(f"has a {key} that does not lead to one of its own $defs")
    return type(name, (base,), {"described_by": described, "validator": Draft202012Validator(described)})


def _error_of(misfit: SchemaMisfit) -> InitErrorDetails:
    """The keyword that is violated, and where."""
    keyword = str(misfit.validator or "false")  # a schema that is `false` has no keywords
    reason = PydanticCustomError(keyword, "Does not fit its schema: {keyword}", {"keyword": keyword})
    return {"type": reason, "loc": (*misfit.absolute_path, *_member(misfit)), "input": None}


def _member(misfit: SchemaMisfit) -> list[str]:
    """The member of an object that is missing or too much: the first of them."""
    found: list[str] = []
    if misfit.validator == "required":
        found = [name for name in misfit.validator_value if name not in misfit.instance]
    elif misfit.validator == "additionalProperties" and "patternProperties" not in misfit.schema:
        found = [name for name in misfit.instance if name not in misfit.schema.get("properties", {})]
    return found[:1]


def _properties(schema: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each property and its schema; `true` and `false` are schemas, too, which say nothing of it."""
    return ((name, each) for name, each in schema.get("properties", {}).items() if isinstance(each, dict))


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    """The members of all objects within."""
    if isinstance(value, dict):
        yield from value.items()
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _members(each)


def _referring(value: Any, template: str) -> Any:
    """The same schema, with references by the template."""
    if isinstance(value, list):
        return [_referring(each, template) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: template.format(model=each.removeprefix(_DEFINITION))
        if key == "$ref" and isinstance(each, str)
        else _referring(each, template)
        for key, each in value.items()
    }
