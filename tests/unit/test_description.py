"""The API's description, as generators of clients read it: nothing has to be given a made-up name."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from app.main import app

DESCRIPTION = app.openapi()
SCHEMAS = DESCRIPTION["components"]["schemas"]
OPERATIONS = [operation for path in DESCRIPTION["paths"].values() for operation in path.values()]


def nodes(of: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in the description but examples, and where it is."""
    if isinstance(of, dict):
        yield place, of
        for name, each in of.items():
            if name not in {"example", "examples"}:
                yield from nodes(each, f"{place}/{name}")
    elif isinstance(of, list):
        for number, each in enumerate(of):
            yield from nodes(each, f"{place}/{number}")


INLINE = [each for name, schema in SCHEMAS.items() for each in nodes(schema, name) if each[0] != name]
INLINE += nodes(DESCRIPTION["paths"])


def test_each_operation_has_an_id_of_its_own() -> None:
    assert set(Counter(operation["operationId"] for operation in OPERATIONS).values()) == {1}


def test_each_enum_has_a_name() -> None:
    assert [place for place, schema in INLINE if "enum" in schema] == []


def test_each_object_with_known_fields_has_a_name() -> None:
    assert [place for place, schema in INLINE if isinstance(schema.get("properties"), dict)] == []


@pytest.mark.parametrize("kind", ["anyOf", "oneOf", "allOf"])
def test_the_alternatives_that_are_objects_have_names(kind: str) -> None:
    members = [(place, each) for place, schema in nodes(DESCRIPTION) for each in schema.get(kind, [])]
    assert [place for place, each in members if each.get("type") == "object"] == []


def test_values_that_are_no_names_have_some() -> None:
    for name, schema in SCHEMAS.items():
        names = schema.get("x-enum-varnames", schema.get("enum", []))
        assert len(names) == len(schema.get("enum", [])), name
        assert all(each.replace(".", "_").replace("-", "_").isidentifier() for each in names), name


def test_no_field_of_a_model_has_a_default() -> None:
    """Generated clients would send it, and so erase what is there, or require the field."""
    assert [place for place, each in nodes(SCHEMAS) if "default" in each and not place.endswith("/properties")] == []
    seconds = SCHEMAS["SimulatedParams"]["properties"]["seconds"]
    assert seconds["description"] == "How long the work takes. Default: 1."


def test_what_is_always_answered_is_required() -> None:
    assert set(SCHEMAS["TokenPair"]["required"]) == set(SCHEMAS["TokenPair"]["properties"])
    assert set(SCHEMAS["Upload"]["required"]) == set(SCHEMAS["Upload"]["properties"])


def test_no_query_has_a_parameter_that_may_be_null() -> None:
    parameters = [each for operation in OPERATIONS for each in operation.get("parameters", [])]
    assert parameters
    assert [each["name"] for each in parameters if {"type": "null"} in each["schema"].get("anyOf", [])] == []


def test_bytes_are_of_a_type_that_generators_know() -> None:
    found = [schema for _, schema in nodes(DESCRIPTION["paths"]) if "application/octet-stream" in schema]
    assert len(found) == 11, (
        "what is downloaded, whole or in part, by owners, operators and workers, what is drawn and what is sent"
    )
