"""Chunks, for any text, size and overlap; and where they end."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from app.processors.base import LongText
from app.processors.text.chunks import Chunking, chunks
from app.processors.text.processor import TextParams, TextProcessor
from tests.support.factories import DOCX_TYPE, PDF_TYPE, docx, pdf
from tests.unit.test_text_processor import source

texts = st.text(st.sampled_from("ab .!?\n\f\t。é😀"), max_size=2000)
sizes = st.integers(100, 400).flatmap(
    lambda size: st.builds(Chunking, size=st.just(size), overlap=st.integers(0, size // 2))
)


def cut(text: str, settings: Chunking, pieces: int = 1000, **pages: Any) -> list[dict[str, Any]]:
    whole = [text[start : start + pieces] for start in range(0, len(text), pieces)]
    return list(chunks(whole, settings, **{"pages": None, "between": 1} | pages))


@given(texts, sizes, st.integers(1, 500))
def test_chunks_without_their_overlaps_are_the_text(text: str, settings: Chunking, pieces: int) -> None:
    made = cut(text, settings, pieces)
    assert "".join(each["text"][max(0, done - each["start"]) :] for each, done in with_ends(made)) == text
    assert [each["number"] for each in made] == list(range(1, len(made) + 1))
    for each, done in with_ends(made):
        assert each["text"] == text[each["start"] : each["end"]]
        assert 0 < len(each["text"]) <= settings.size
        assert 0 <= done - each["start"] <= settings.overlap
        assert each["end"] > done
    assert made == cut(text, settings, len(text) or 1), "how the text comes in pieces must not matter"
    assert len(made) <= 1 + 2 * len(text) / (settings.size - settings.overlap - 1)


def with_ends(made: list[dict[str, Any]]) -> list[tuple[dict[str, Any], int]]:
    """Each chunk, and where the one before it ends."""
    return list(zip(made, [0, *(each["end"] for each in made)], strict=False))


@given(st.lists(st.integers(0, 300), max_size=20), sizes, st.sampled_from([1, 2]))
def test_pages_are_those_with_text_in_the_chunk(lengths: list[int], settings: Chunking, between: int) -> None:
    text = ("\n" * between).join("x" * length for length in lengths)
    starts = [sum(lengths[:index]) + between * index for index in range(len(lengths))]
    for each in cut(text, settings, pages=lengths, between=between):
        on = [
            number
            for number, (start, length) in enumerate(zip(starts, lengths, strict=True), 1)
            if max(start, each["start"]) < min(start + length, each["end"])
        ]
        assert each["pages"] == on


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("word " * 10 + "x" * 19 + "\n\nA sentence. Another " + "y" * 99, "word " * 10 + "x" * 19 + "\n\n"),
        ("word " * 12 + "A sentence. Another one is here\nand on" + "y" * 99, "word " * 12 + "A sentence. "),
        ("word " * 12 + "no sentence\nhere " + "y" * 99, "word " * 12 + "no sentence\n"),
        ("word " * 15 + "y" * 99, "word " * 15),
        ("x" * 300, "x" * 100),
        ("字" * 70 + "。" + "字" * 200, "字" * 70 + "。"),
    ],
)
def test_the_best_end_is_taken(text: str, first: str) -> None:
    assert cut(text, Chunking(size=100))[0]["text"] == first


def test_an_overlap_begins_with_a_word() -> None:
    second = cut("word " * 100, Chunking(size=100, overlap=13))[1]
    assert (second["start"], second["text"][:5]) == (90, "word ")


@pytest.mark.parametrize(
    "refused", [{"size": 99}, {"size": 100_001}, {"size": 100, "overlap": 51}, {"overlap": -1}, {"x": 1}]
)
def test_bounds(refused: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        TextParams.model_validate({"chunks": refused})


def extracted(path: Path, data: bytes, kind: str, **settings: int) -> dict[str, Any]:
    path.write_bytes(data)
    params = TextParams(chunks=Chunking(**settings))
    return asyncio.run(TextProcessor().run(source(path, kind), params, lambda _: None))


def test_of_a_document(tmp_path: Path) -> None:
    of_pdf = extracted(tmp_path / "pdf", pdf(pages=20), PDF_TYPE, size=100)
    assert "".join(each["text"] for each in of_pdf["chunks"]) == of_pdf["text"]
    assert {page for each in of_pdf["chunks"] for page in each["pages"]} == set(range(1, 21))
    of_docx = extracted(tmp_path / "docx", docx(), DOCX_TYPE)
    assert of_docx["chunks"] == [{"number": 1, "text": "Hello", "start": 0, "end": 5, "pages": None}]


def test_of_a_long_text(tmp_path: Path) -> None:
    result = extracted(tmp_path / "docx", docx("word " * 40_000), DOCX_TYPE, size=1000, overlap=100)
    assert isinstance(result["text"], LongText)
    made = list(result["chunks"])
    assert made == list(result["chunks"])
    assert (made[0]["start"], made[-1]["end"]) == (0, result["characters"])
