"""The processors that make PDFs of pages, without a service."""

import io
import zlib
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pikepdf
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from pydantic import ValidationError

from app.processors.base import ProcessingError
from app.processors.pdf.merge import MergeParams, MergeProcessor
from app.processors.pdf.split import SplitParams, SplitProcessor
from app.testing import CollectingOutputs, check, source
from tests.support.factories import encrypted_pdf, pdf
from tests.support.pages import encrypted, shared, signed, texts
from tests.unit.test_text_processor import limits_memory, pdf_of

Run = Callable[..., Coroutine[Any, Any, tuple[dict[str, Any], CollectingOutputs]]]
S3 = {"split_params": {"file_map": [{"pages": [0, 1]}, {"pages": [2]}]}, "prefix": "split", "suffix": "2024"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a processor on files of these bytes, with the params given."""

    async def run(processor: Any, *contents: bytes, **params: Any) -> tuple[dict[str, Any], CollectingOutputs]:
        paths = [tmp_path / f"report{number or ''}.pdf" for number in range(len(contents))]
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
        outputs, told = CollectingOutputs(), [0.0]
        given = replace(source(paths[0]), others=tuple(paths[1:]))
        data = await processor.run(given, processor.params.model_validate(params), told.append, outputs)
        processor.result.model_validate(data)
        assert told == sorted(told)
        return data, outputs

    return run


async def failure(run: Coroutine[Any, Any, object]) -> tuple[str, str]:
    with pytest.raises(ProcessingError) as caught:
        await run
    return caught.value.code, caught.value.detail


def names(outputs: CollectingOutputs) -> list[str]:
    return [each.file.name for each in outputs.documents]


async def test_a_file_map_as_a_client_nests_it(run: Run) -> None:
    data, outputs = await run(SplitProcessor(), pdf("a", 3), **S3)
    assert names(outputs) == ["split_report_1_2024.pdf", "split_report_2_2024.pdf"]
    assert [texts(each.content) for each in outputs.documents] == [["a 1", "a 2"], ["a 3"]]
    assert [each["pages"] for each in data["children"]] == [[0, 1], [2]]
    assert [each["id"] for each in data["children"]] == [str(each.file.id) for each in outputs.documents]
    assert (data["page_count"], data["signature_dropped"]) == (3, False)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, [["a 1"], ["a 2"], ["a 3"], ["a 4"], ["a 5"]]),
        ({"every": 2}, [["a 1", "a 2"], ["a 3", "a 4"], ["a 5"]]),
        ({"every": 9}, [["a 1", "a 2", "a 3", "a 4", "a 5"]]),
        ({"ranges": "1-3,5-"}, [["a 1", "a 2", "a 3"], ["a 5"]]),
        ({"ranges": "2, 3 - 1"}, [["a 2"], ["a 3", "a 2", "a 1"]]),
        ({"file_map": [{"pages": [4, 0, 4]}]}, [["a 5", "a 1", "a 5"]]),
    ],
)
async def test_ways_to_say_which_pages(run: Run, params: dict[str, Any], expected: list[list[str]]) -> None:
    _, outputs = await run(SplitProcessor(), pdf("a", 5), **params)
    assert [texts(each.content) for each in outputs.documents] == expected


async def test_names(run: Run, tmp_path: Path) -> None:
    _, outputs = await run(SplitProcessor(), pdf("a", 12), every=1)
    assert names(outputs)[::11] == ["report_01.pdf", "report_12.pdf"]
    named = [{"pages": [0], "name": "first.pdf", "metadata": {"folder": "f"}}, {"pages": [1]}]
    _, outputs = await run(SplitProcessor(), pdf("a", 2), file_map=named, prefix="p")
    assert names(outputs) == ["first.pdf", "p_report_2.pdf"]
    assert [each.metadata for each in outputs.documents] == [{"folder": "f"}, {}]
    long = CollectingOutputs()
    given = replace(source(tmp_path / "report.pdf"), filename="x" * 255)
    params = SplitParams(prefix="p" * 50, suffix="s" * 50)
    await SplitProcessor().run(given, params, lambda _: None, long)
    assert {len(each) for each in names(long)} == {255}
    assert all(each.endswith(f"_{number}_{'s' * 50}.pdf") for number, each in enumerate(names(long), 1))


@pytest.mark.parametrize(
    "params",
    [
        {"every": 1, "ranges": "1"},
        {"file_map": [{"pages": [0]}], "every": 1},
        S3 | {"file_map": [{"pages": [0]}]},
        {"split_params": {"file_map": [], "more": 1}},
        {"file_map": []},
        {"file_map": [{"pages": []}]},
        {"file_map": [{"pages": [-1]}]},
        {"file_map": [{"pages": ["0"]}]},
        {"file_map": [{"pages": [0], "name": "a/b.pdf"}]},
        {"file_map": [{"pages": [0], "metadata": {"owner": "x"}}]},
        {"file_map": [{"pages": [0]}] * 1001},
        {"file_map": [{"pages": list(range(101))}] * 100},
        {"every": 0},
        {"ranges": ""},
        {"ranges": "0-3"},
        {"ranges": "1-3;5"},
        {"ranges": "-3"},
        {"ranges": "1,,2"},
        {"prefix": "a\nb"},
        {"suffix": "x" * 51},
    ],
    ids=str,
)
def test_params_that_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SplitParams.model_validate(params)


def test_equal_work_is_equal_params() -> None:
    flat = {"file_map": S3["split_params"]["file_map"], "prefix": "split", "suffix": "2024"}
    assert SplitParams.model_validate(S3).model_dump() == SplitParams.model_validate(flat).model_dump()
    assert "split_params" not in SplitParams.model_validate(S3).model_dump()


@pytest.mark.parametrize(
    ("params", "code", "detail"),
    [
        (
            {"file_map": [{"pages": [0]}, {"pages": [2, 7, 9]}]},
            "page-out-of-range",
            "There is no page 7: the document has 3, which `file_map` counts from 0.",
        ),
        (
            {"ranges": "1,2-9"},
            "page-out-of-range",
            "There is no page 4: the document has 3, which `ranges` counts from 1.",
        ),
        (
            {"ranges": "8-"},
            "page-out-of-range",
            "There is no page 8: the document has 3, which `ranges` counts from 1.",
        ),
        (
            {"ranges": ",".join(["1"] * 1001)},
            "too-many-outputs",
            "1001 documents would be made: 1000 are the most.",
        ),
    ],
)
async def test_what_cannot_be_made(run: Run, params: dict[str, Any], code: str, detail: str) -> None:
    assert await failure(run(SplitProcessor(), pdf("a", 3), **params)) == (code, detail)


HOSTILE = {
    "empty": b"%PDF-1.7\n%%EOF\n",
    "no pages": pdf().replace(b"/Count 1 /Kids [4 0 R]", b"/Count 0 /Kids [     ]"),
    "pages that are each other's": pdf().replace(b"/Kids [4 0 R]", b"/Kids [2 0 R]"),
    "cut off": shared(20)[:3000],
    "nothing": bytes(1000),
}


@pytest.mark.parametrize("processor", [SplitProcessor(), MergeProcessor()], ids=["split", "merge"])
@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
async def test_damaged_files(run: Run, processor: Any, content: bytes) -> None:
    assert (await failure(run(processor, content)))[0] == "malformed-document"


async def test_passwords(run: Run) -> None:
    code, _ = await failure(run(SplitProcessor(), encrypted_pdf("secret")))
    assert code == "password-protected"
    _, outputs = await run(SplitProcessor(), encrypted(pdf("a", 2)))
    for number, each in enumerate(outputs.documents, 1):
        assert texts(each.content) == [f"a {number}"]
        with pikepdf.open(io.BytesIO(each.content)) as made:
            assert not made.is_encrypted
    several = [pdf(), pdf(), encrypted_pdf("secret")]
    code, detail = await failure(run(MergeProcessor(), *several))
    assert (code, detail) == ("password-protected", "Document 3 of 3: The document opens only with a password.")


async def test_a_signature_is_dropped_and_fields_are_kept(run: Run) -> None:
    data, outputs = await run(SplitProcessor(), signed(pdf("a", 2)))
    assert data["signature_dropped"] is True
    for number, each in enumerate(outputs.documents):
        assert b"Adobe.PPKLite" not in each.content
        with pikepdf.open(io.BytesIO(each.content)) as made:
            assert str(next(iter(made.Root.AcroForm.Fields)).T) == f"f{number}"
    data, _ = await run(MergeProcessor(), pdf(), signed(pdf("a", 2)))
    assert data["signature_dropped"] is True


async def test_children_are_together_hardly_larger_than_their_parent(run: Run, record_property: Any) -> None:
    content = shared(200)
    data, outputs = await run(SplitProcessor(), content)
    ratio = sum(each["size"] for each in data["children"]) / len(content)
    record_property("children of 200 pages, of their parent's size", f"{ratio:.2f}")
    assert ratio <= 1.3
    assert [text for each in outputs.documents for text in texts(each.content)] == texts(content)
    again, _ = await run(SplitProcessor(), content)
    assert [each["sha256"] for each in again["children"]] == [each["sha256"] for each in data["children"]]


@limits_memory
async def test_a_thousand_pages_need_little_memory(run: Run) -> None:
    data, _ = await run(SplitProcessor(memory=256 * 1024**2), pdf("a", 1000))
    assert len(data["children"]) == data["page_count"] == 1000


@limits_memory
async def test_more_memory_than_there_may_be(run: Run) -> None:
    little = 128 * 1024**2
    content = shared(30, size=1_000_000)
    assert (await failure(run(MergeProcessor(memory=little), *[content] * 5)))[0] == "merge-out-of-memory"


@limits_memory
async def test_a_page_that_inflates_without_end_is_copied_as_it_is(run: Run) -> None:
    content = pdf_of(zlib.compress(zlib.compress(bytes(500_000_000), 9)), "[/FlateDecode /FlateDecode]")
    data, _ = await run(SplitProcessor(memory=256 * 1024**2), content)
    assert [each["size"] < 10_000 for each in data["children"]] == [True]


async def test_a_merge_has_all_pages_in_order(run: Run) -> None:
    contents = [pdf("a", 2), signed(pdf("b", 3)), shared(2)]
    data, outputs = await run(MergeProcessor(), *contents)
    (made,) = outputs.documents
    assert texts(made.content) == ["a 1", "a 2", "b 1", "b 2", "b 3", "Shared 1", "Shared 2"]
    assert (names(outputs), data["page_count"], data["documents"]) == (["report_merged.pdf"], 7, 3)
    assert data["children"] == [
        {"id": str(made.file.id), "filename": "report_merged.pdf", "size": made.file.size, "sha256": made.file.sha256}
    ]
    _, outputs = await run(MergeProcessor(), pdf(), filename="whole.pdf")
    assert names(outputs) == ["whole.pdf"]


async def test_a_hundred_documents(run: Run) -> None:
    data, outputs = await run(MergeProcessor(), *[pdf(str(number)) for number in range(100)])
    assert data["page_count"] == 100
    assert texts(outputs.documents[0].content) == [f"{number} 1" for number in range(100)]
    with pytest.raises(ValidationError):
        MergeParams.model_validate({"with": [outputs.documents[0].file.id] * 100})


@pytest.mark.parametrize("processor", [SplitProcessor(), MergeProcessor()], ids=["split", "merge"])
def test_they_keep_their_contract(processor: Any, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf("a", 300))
    assert [each for each in check(processor, tmp_path / "a.pdf") if each.fault] == []


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(maps=st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=5), min_size=1, max_size=5))
async def test_any_map_gives_the_pages_that_it_lists(run: Run, maps: list[list[int]]) -> None:
    _, outputs = await run(SplitProcessor(), pdf("a", 7), file_map=[{"pages": pages} for pages in maps])
    assert [texts(each.content) for each in outputs.documents] == [[f"a {n + 1}" for n in pages] for pages in maps]
