"""Long JSON, decoded while others get their turn: a decoder that is one call keeps the interpreter to itself, even in a
thread."""

import json
from math import isfinite
from typing import Any

_LEAST, _MOST = -(2**63), 2**64 - 1


def decoded(body: bytes) -> Any:
    """What the JSON says. Each object and each number in it is a call of Python, at which other threads may go on: that
    takes three to nine times as long. A lone surrogate in a text is left for whoever encodes it.

    Raises json.JSONDecodeError.
    """
    try:
        return json.loads(
            body.decode(), object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_refused
        )
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise json.JSONDecodeError(type(error).__name__, "", 0) from None


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    "".join(found).encode()  # names are told in errors, which are encoded, too
    return found


def _integer(digits: str) -> int | float:
    number = int(digits)
    return number if _LEAST <= number <= _MOST else _number(digits)  # as orjson has it


def _number(digits: str) -> float:
    if not isfinite(number := float(digits)):
        raise ValueError(digits)
    return number


def _refused(constant: str) -> None:
    raise ValueError(constant)
