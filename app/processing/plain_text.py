"""The text of a large result, decoded as its JSON arrives: it is never whole in memory."""

import re
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator

import orjson

from app.errors import NotAcceptable, StorageUnavailable

_BEGINNING = '{"text":"'
# What a string has up to its end, or to an escape that is cut off.
_WHOLE = re.compile(r'[^"\\]*+(?:\\(?:u[0-9a-fA-F]{4}|[^u])[^"\\]*+)*+')


def text_in(beginning: str) -> str | None:
    """Return as much of the `text` as there is in the beginning of such JSON, or None if it begins otherwise."""
    found = _WHOLE.match(beginning, len(_BEGINNING)) if beginning.startswith(_BEGINNING) else None
    text: str | None = orjson.loads(f'"{found[0]}"') if found else None
    return text


async def text_of(json: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the value of `text`, in UTF-8, of an object that has it first.

    `json` is as `encoding.encode` makes it, without escaped surrogates, and split anywhere. Raises NotAcceptable if it
    begins otherwise, and StorageUnavailable if it ends midway.
    """
    decoder, rest, begun = getincrementaldecoder("utf-8")(), "", False
    async for chunk in json:
        rest += decoder.decode(chunk)
        if not begun and len(rest) >= len(_BEGINNING):
            if not rest.startswith(_BEGINNING):
                raise NotAcceptable
            rest, begun = rest[len(_BEGINNING) :], True
        if begun:
            found = _WHOLE.match(rest)
            assert found is not None, "it matches nothing, too"
            text: str = orjson.loads(f'"{found[0]}"')
            yield text.encode()
            rest = rest[found.end() :]
            if rest.startswith('"'):
                return
    raise StorageUnavailable if begun else NotAcceptable
