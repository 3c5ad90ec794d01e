"""What fields of several groups of settings are made with."""

from collections.abc import Callable

from pydantic import BeforeValidator, PlainValidator


def _in_case(case: Callable[[str], str]) -> BeforeValidator:
    """Return the validator of a setting that may be written in any case."""
    return BeforeValidator(lambda text: case(text) if isinstance(text, str) else text)


LOWER, UPPER = _in_case(str.lower), _in_case(str.upper)


def parsed(parse: Callable[[str], object]) -> PlainValidator:
    """Return the validator of a setting that is a URL. An empty one is none."""
    return PlainValidator(lambda url: parse(url) if url else None)
