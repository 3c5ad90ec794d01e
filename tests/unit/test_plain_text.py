"""The text of a result is found in its JSON wherever that is split, and nowhere else."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.errors import NotAcceptable, StorageUnavailable
from app.processing.encoding import encode
from app.processing.plain_text import text_in, text_of

TEXT = 'a"b\\c/\x00\n\x1f\u00e9\u20ac\U0001f600\\u0041\\'


def decoded(json: bytes, size: int) -> str:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(json), size):
            yield json[start : start + size]

    async def collected() -> bytes:
        return b"".join([piece async for piece in text_of(chunks())])

    return asyncio.run(collected()).decode()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
@pytest.mark.parametrize("text", ["", TEXT, TEXT * 50])
def test_wherever_it_is_split(text: str, size: int) -> None:
    assert decoded("".join(encode({"text": text, "more": "x"})).encode(), size) == text


def test_of_a_beginning_there_is_a_beginning() -> None:
    json = "".join(encode({"text": TEXT, "more": "x"}))
    found = [text_in(json[:length]) for length in range(len(json) + 1)]
    assert (found[8], found[9], found[-1]) == (None, "", TEXT)
    assert all(TEXT.startswith(each) for each in found if each is not None)
    assert text_in('{"size":1}') is None


@pytest.mark.parametrize("json", [b'{"text":"', b'{"text":"abc', b'{"text":"abc\\u00'])
def test_one_that_is_cut_off_is_told_of(json: bytes) -> None:
    with pytest.raises(StorageUnavailable):
        decoded(json, 4)


@pytest.mark.parametrize("json", [b"{}", b'{"text":1}', b'{"texts":"a"}', b'{"size":1,"text":"a"}', b""])
def test_where_there_is_none(json: bytes) -> None:
    with pytest.raises(NotAcceptable):
        decoded(json, 4)
