"""Decoding of long JSON that lets other threads run meanwhile: orjson holds the interpreter's lock to its end."""

import json
from math import isfinite
from typing import Any

_LEAST, _MOST = -(2**63), 2**64 - 1


def decoded(body: bytes) -> Any:
    """Return what the JSON says. Other threads get their turn at each object and number, since each calls Python. It
    takes three to nine times as long as orjson. Unlike that, it lets lone surrogates in texts pass.

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
