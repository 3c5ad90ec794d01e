"""The form that is made of the schema of a processor's params, and what becomes of what is typed into it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, Field

from app.console.documents import params
from app.console.documents.params import Choice
from app.errors import UnknownProcessor, ValidationFailed
from app.processing.schemas import Offered
from app.processors.base import Params
from tests.support.console import Browser, Seen, worked
from tests.support.factories import pdf
from tests.support.inprocess import Process


class Inner(BaseModel):
    size: int = Field(3, ge=1)


class AllKinds(Params):
    """One of each kind."""

    flag: bool = False
    maybe: bool | None = None
    colour: Literal["red", "blue"] = "red"
    level: Literal[1, 2] | None = None
    only: Literal["one"] = "one"
    whole: int = Field(1, gt=0, lt=10)
    amount: float = Field(0.5, ge=0, le=2)
    step: int = Field(10, multiple_of=5)
    name: Annotated[str, Field(max_length=9)] | None = Field(None, description="Its `name`.")
    ids: tuple[UUID, ...] = Field((), alias="with")
    words: list[Literal["a", "b"]] = Field(["a"])
    numbers: list[int] = Field([])
    either: int | str = 1
    inner: Inner | None = None
    free: dict[str, Any] = Field({})


class Stages(Params):
    first: AllKinds = Field(default_factory=AllKinds)
    second: Inner = Field(default_factory=Inner)


def offered(model: type[BaseModel]) -> list[Offered]:
    return [
        Offered(
            name="own",
            version="1",
            description="",
            default=True,
            content_types=[],
            at_once=None,
            params=model.model_json_schema(),
            result={},
        )
    ]


def typed(model: type[BaseModel], **fields: str) -> dict[str, Any]:
    given = {"processor": "own", **{f"params.own.{name.replace('__', '.')}": value for name, value in fields.items()}}
    return params.typed(offered(model), given, "processor", "params")


def test_each_type_has_its_kind_of_field() -> None:
    [group] = params.groups(AllKinds.model_json_schema())
    found = {field.name: field for field in group.fields}
    assert {name: field.kind for name, field in found.items()} == {
        **dict.fromkeys(("flag", "maybe", "colour", "level", "only"), "choice"),
        **dict.fromkeys(("whole", "amount", "step"), "number"),
        "name": "text",
        **dict.fromkeys(("with", "words"), "lines"),
        **dict.fromkeys(("numbers", "either", "inner", "free"), "json"),
    }
    assert [found[each].options for each in ("maybe", "colour", "level", "only")] == [
        [True, False],
        ["red", "blue"],
        [1, 2],
        ["one"],
    ]
    assert found["whole"].attributes == {"min": 1, "max": 9, "step": 1}
    assert found["amount"].attributes == {"min": 0, "max": 2, "step": "any"}
    assert found["step"].attributes == {"step": 5}
    assert found["name"].attributes == {"maxlength": 9}
    assert (found["name"].description, found["words"].default) == ("Its `name`.", ["a"])


def test_what_is_typed_becomes_json() -> None:
    ids = [str(uuid4()), str(uuid4())]
    given = typed(
        AllKinds,
        flag="true",
        maybe="false",
        colour='"blue"',
        level="2",
        whole="4",
        amount="1.5",
        name=" 12 ",
        **{"with": "\n".join(["", *ids, " "])},
        words="a\nb",
        numbers="[1, 2]",
        either='"x"',
        inner='{"size": 4}',
        free="{}",
    )
    assert given == {
        "flag": True,
        "maybe": False,
        "colour": "blue",
        "level": 2,
        "whole": 4,
        "amount": 1.5,
        "name": "12",
        "with": ids,
        "words": ["a", "b"],
        "numbers": [1, 2],
        "either": "x",
        "inner": {"size": 4},
        "free": {},
    }
    assert AllKinds.model_validate(given, strict=False)


def test_what_is_empty_is_left_to_the_processor() -> None:
    assert typed(AllKinds, flag="", whole=" ", ids="\n") == {}
    assert params.typed(offered(AllKinds), {"params.whole": "3"}, "processor", "params") == {}, "of no processor"


def test_what_is_no_value_is_named_by_its_model() -> None:
    assert typed(AllKinds, whole="many", flag="perhaps") == {"flag": "perhaps", "whole": "many"}
    with pytest.raises(ValidationFailed) as raised:
        typed(Stages, first__inner="{")
    assert raised.value.extra["errors"] == [{"detail": "Invalid JSON", "pointer": "/params/first/inner"}]


def test_each_stage_of_a_pipeline_has_its_own_fields() -> None:
    first, second = params.groups(Stages.model_json_schema())
    assert (first.name, second.name) == ("first", "second")
    assert [field.name for field in second.fields] == ["second.size"]
    assert {field.name: field.kind for field in first.fields}["first.words"] == "lines"
    assert typed(Stages, first__whole="2", second__size="5") == {"first": {"whole": 2}, "second": {"size": 5}}


def test_no_processor_and_an_unknown_one() -> None:
    assert params.choice([], None, first=True) == Choice([], None, [])
    assert params.choice(offered(Inner), None).processor is None
    assert params.choice(offered(Inner), None, first=True).processor is not None
    with pytest.raises(UnknownProcessor):
        params.choice(offered(Inner), "none")


def fields(browser: Browser, path: str) -> dict[str, dict[str, str | None]]:
    """The fields for params on a page, by name."""
    found = Seen(browser.get(path).text).tags
    own = [each for tag, each in found if tag in ("input", "select", "textarea")]
    return {name: each for each in own if "params." in (name := each.get("name") or "")}


def test_the_page_has_a_field_for_each_param_of_the_processor_that_is_chosen(ada: Browser) -> None:
    here = f"/console/documents/{ada.upload()}"
    assert set(fields(ada, here)) == {f"params.simulated.{name}" for name in ("seconds", "fail", "flaky")}
    chosen = fields(ada, f"{here}?processor=split")
    assert set(chosen) >= {f"params.split.{name}" for name in ("every", "ranges", "delete_original", "file_map")}
    assert (chosen["params.split.every"]["type"], chosen["params.split.every"]["min"]) == ("number", "1")
    assert chosen["params.split.ranges"]["maxlength"] == "10000"
    assert ada.get(f"{here}?processor=none").status_code == 422
    page = ada.get(f"{here}?processor=split").text
    assert '<option value="split" selected>' in page
    assert fields(ada, "/console/upload") == {}
    assert "process_params.split.every" in fields(ada, "/console/upload?process=split")
    described = [each.get("aria-describedby") for each in chosen.values()]
    assert set(filter(None, described)) <= {each["id"] for _, each in Seen(page).tags if "id" in each}


def test_the_processor_is_a_field_of_the_form_that_asks_for_the_work(ada: Browser) -> None:
    for place, name in ((f"/console/documents/{ada.upload()}", "processor"), ("/console/upload", "process")):
        page = Seen(ada.get(f"{place}?{name}=split").text)
        [select] = [each for tag, each in page.tags if tag == "select" and each.get("name") == name]
        assert "form" not in select
        assert [each for tag, each in page.tags if tag == "input" and each.get("name") == name] == []
        links = page.attributes("a", "href")
        assert [each for each in links if "process=" in each or "processor=" in each], "with script off"


def test_fields_of_another_processor_are_not_those_of_the_one_that_is_chosen(ada: Browser) -> None:
    """As when a script is off, or the form of the other has not come yet."""
    sent = {"params.simulated.seconds": "1", "params.text.max_pages": "3", "params.split.every": "7"}
    own = ada.upload(content=pdf("page", 2))
    ada.post(f"/console/documents/{own}/process", processor="split", **sent)
    job = ada.api(f"/jobs/{ada.api(f'/documents/{own}')['job_id']}")
    assert (job["processor"], job["params"]["every"]) == ("split", 7)
    worked(ada, own)
    at_once = ada.upload(process="text", **{"process_params.simulated.seconds": "1", "process_params.split.every": "2"})
    job = ada.api(f"/jobs/{ada.api(f'/documents/{at_once}')['job_id']}")
    assert (job["processor"], job["params"]["max_pages"]) == ("text", 10_000)
    worked(ada, at_once)


def test_process_by_what_was_typed(ada: Browser) -> None:
    own = ada.upload(content=pdf("page", 2))
    here = f"/console/documents/{own}"
    form = {"params.split.every": "2", "params.split.ranges": "", "params.split.prefix": "p"}
    ada.post(f"{here}/process", processor="split", **form)
    job = ada.api(f"/jobs/{ada.api(f'/documents/{own}')['job_id']}")
    assert (job["processor"], job["params"]["every"], job["params"]["prefix"]) == ("split", 2, "p")
    worked(ada, own)
    other = ada.upload()
    typed = {"params.merge.with": f"{own}\r\n{other}\r\n", "params.merge.filename": "both.pdf"}
    ada.post(f"{here}/process", processor="merge", **typed)
    worked(ada, own)
    assert ada.api(f"/documents/{own}/result")["data"]["documents"] == 3


@pytest.mark.parametrize(
    ("processor", "name", "value", "label"),
    [
        ("split", "every", "none", "Every"),
        ("split", "every", "0", "Every"),
        ("split", "delete_original", "1", "Delete original"),
        ("split", "file_map", "[{]", "File map"),
        ("simulated", "fail", '"never"', "Fail"),
        ("merge", "with", "not an id", "With 1"),
    ],
)
def test_errors_name_the_field(ada: Browser, processor: str, name: str, value: str, label: str) -> None:
    here = f"/console/documents/{ada.upload()}"
    answer = ada.post(f"{here}/process", processor=processor, **{f"params.{processor}.{name}": value})
    assert (answer.status_code, f"<strong>{label}:</strong>" in answer.text) == (422, True), answer.text


def test_upload_with_what_was_typed(ada: Browser) -> None:
    form = {"process_params.simulated.seconds": "0", "process_params.simulated.flaky": "2"}
    own = ada.upload(process="simulated", **form)
    job = ada.api(f"/jobs/{ada.api(f'/documents/{own}')['job_id']}")
    assert (job["params"]["seconds"], job["params"]["flaky"]) == (0, 2)
    worked(ada, own)


def test_what_is_wrong_is_said_as_to_somebody_who_fills_in_a_form(ada: Browser) -> None:
    here = f"/console/documents/{ada.upload()}"
    missing = Seen(ada.post(f"{here}/replace").text).text
    assert ("Version: It has to be filled in." in missing, "missing or invalid" in missing) == (True, False)
    wrong = Seen(ada.post(f"{here}/process", processor="split", **{"params.split.ranges": "x"}).text).text
    assert "Ranges: It is not written as it has to be." in wrong


@pytest.fixture
def scanner(tmp_path: Path) -> Iterator[Browser]:
    process = Process(tmp_path, processors="text,keywords", pipelines="scan=text,keywords")
    yield Browser(process).sign_in()
    process.kill()


def test_a_pipeline_that_is_configured(scanner: Browser) -> None:
    own = scanner.upload()
    here = f"/console/documents/{own}"
    assert {"params.scan.text.max_pages", "params.scan.keywords.most"} <= set(fields(scanner, f"{here}?processor=scan"))
    form = {"params.scan.text.max_pages": "3", "params.scan.keywords.most": "5"}
    scanner.post(f"{here}/process", processor="scan", **form)
    job = scanner.api(f"/jobs/{scanner.api(f'/documents/{own}')['job_id']}")
    assert (job["params"]["text"]["max_pages"], job["params"]["keywords"]["most"]) == (3, 5)
    wrong = scanner.upload()
    form = {"params.scan.text.max_pages": "x"}
    answer = scanner.post(f"/console/documents/{wrong}/process", processor="scan", **form)
    assert "<strong>Text Max pages:</strong>" in answer.text
