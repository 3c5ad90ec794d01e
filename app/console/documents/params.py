"""Params of processors as the fields of a form, by their JSON Schema, and what was typed into them as JSON."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import orjson
from fastapi import Query

from app.errors import UnknownProcessor, ValidationFailed
from app.processing.schemas import Offered
from app.web.fields import LINE

Chosen = Annotated[str | None, Query(alias="processor", max_length=50, pattern=LINE)]
ChosenAtUpload = Annotated[str | None, Query(alias="process", max_length=50, pattern=LINE)]

_Schema = Mapping[str, Any]


class Field(NamedTuple):
    """A field: `path` leads to its value in the params, whose `kind` is choice, number, text, lines or json.

    A choice is one of its `options`, as JSON. `attributes` are those of its element.
    """

    path: tuple[str, ...]
    kind: str
    description: str
    default: Any
    options: list[Any]
    attributes: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the field in its form, behind the form's own name for params and that of the processor."""
        return ".".join(self.path)

    def value(self, typed: str) -> Any:
        """Return what was typed as a value for JSON. Of what is no such value, the processor's model says why.

        Raises ValueError for what should be JSON and is not.
        """
        if self.kind == "text":
            return typed
        if self.kind == "lines":
            return [line.strip() for line in typed.splitlines() if line.strip()]
        try:
            return orjson.loads(typed)
        except ValueError:
            if self.kind == "json":
                raise
            return typed


class Group(NamedTuple):
    """The fields of a stage of a pipeline; those of a processor by itself have no name."""

    name: str
    fields: list[Field]


class Choice(NamedTuple):
    """Processors to choose from, the one that is chosen, if any, and the fields for its params."""

    offered: Sequence[Offered]
    processor: Offered | None
    groups: list[Group]


def choice(offered: Sequence[Offered], name: str | None, *, first: bool = False) -> Choice:
    """Return the choice of the processor of this name; without a name, that of the `first` or of none.

    Raises UnknownProcessor.
    """
    found = next((each for each in offered if each.name == name or (first and not name)), None)
    if name and not found:
        raise UnknownProcessor(pointer="/query/processor")
    return Choice(offered, found, groups(found.params) if found else [])


def groups(schema: _Schema) -> list[Group]:
    """Return the fields for params of this schema: a property that is an object has a group of its own."""
    own, nested = Group("", []), list[Group]()
    for name, each in schema.get("properties", {}).items():
        described = _whole(schema, each)
        if _is_stage(described):
            inner = {**described, "$defs": schema.get("$defs", {})}
            parts = described["properties"].items()
            nested.append(Group(name, [_field((name, part), _whole(inner, given)) for part, given in parts]))
        else:
            own.fields.append(_field((name,), described))
    return [group for group in (own, *nested) if group.fields]


def typed(offered: Sequence[Offered], fields: Mapping[str, str], processor: str, params: str) -> dict[str, Any]:
    """Return the params that were typed for the processor that the form names. What was left empty is not among them.

    `processor` and `params` are the form's names for both. Raises ValidationFailed.
    """
    found = next((each for each in offered if each.name == fields.get(processor)), None)
    if not found:
        return {}
    values: dict[str, Any] = {}
    for field in _fields(found.params):
        if given := fields.get(f"{params}.{found.name}.{field.name}", "").strip():
            inner = values
            for step in field.path[:-1]:
                inner = inner.setdefault(step, {})
            try:
                inner[field.path[-1]] = field.value(given)
            except ValueError:
                pointer = "/".join(("", params, *field.path))
                raise ValidationFailed(errors=[{"detail": "Invalid JSON", "pointer": pointer}]) from None
    return values


def names(offered: Sequence[Offered], params: str) -> list[str]:
    """Return the names of all fields that a form may have, whichever processor it names."""
    return sorted({f"{params}.{each.name}.{field.name}" for each in offered for field in _fields(each.params)})


def _fields(schema: _Schema) -> Iterator[Field]:
    for group in groups(schema):
        yield from group.fields


def _field(path: tuple[str, ...], schema: _Schema) -> Field:
    kind, attributes, options = "json", dict[str, Any](), _choices(schema)
    match schema:
        case _ if options:
            kind = "choice"
        case {"type": "integer" | "number" as number}:
            kind, attributes = "number", _bounds(schema, whole=number == "integer")
        case {"type": "string"}:
            kind, attributes = "text", {"maxlength": schema.get("maxLength")}
        case {"type": "array", "items": {"type": "string"} | {"enum": _}}:
            kind = "lines"
    given = {name: value for name, value in attributes.items() if value is not None}
    return Field(path, kind, schema.get("description", ""), schema.get("default"), options, given)


def _choices(schema: _Schema) -> list[Any]:
    if schema.get("type") == "boolean":
        return [True, False]
    return list(schema.get("enum", [schema["const"]] if "const" in schema else []))


def _bounds(schema: _Schema, *, whole: bool) -> dict[str, Any]:
    least, most = schema.get("minimum"), schema.get("maximum")
    if whole:  # HTML knows no bound that is left out itself
        least = schema["exclusiveMinimum"] + 1 if "exclusiveMinimum" in schema else least
        most = schema["exclusiveMaximum"] - 1 if "exclusiveMaximum" in schema else most
    return {"min": least, "max": most, "step": schema.get("multipleOf", 1 if whole else "any")}


def _is_stage(schema: _Schema) -> bool:
    return schema.get("type") == "object" and bool(schema.get("properties")) and "anyOf" not in schema


def _whole(root: _Schema, schema: _Schema) -> dict[str, Any]:
    """A property's schema with what it refers to; of one that may be null, that of its other values."""
    found = _followed(root, schema)
    others = [each for each in found.get("anyOf", []) if each.get("type") != "null"]
    if len(others) == 1 and "properties" not in (inner := _whole(root, others[0])):
        del found["anyOf"]
        found = inner | found
    if "items" in found:
        found["items"] = _followed(root, found["items"])
    return found


def _followed(root: _Schema, schema: _Schema) -> dict[str, Any]:
    found = dict(schema)
    while "$ref" in found:
        name = found.pop("$ref").rpartition("/")[2]
        found = root.get("$defs", {}).get(name, {}) | found
    return found
