"""Processors of installed packages: what is not named is not imported, and what could not work is refused."""

import re
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from app.errors import ConfigurationError
from app.main import create_app
from app.processing.contract import violation
from app.processors.ocr import tesseract
from app.processors.ocr.tesseract import TesseractMissing
from app.settings import Settings
from app.wiring import adapters
from tests.support.packages import PROCESSOR, package

BUILT_IN = ["simulated", "text", "language", "keywords", "split", "merge"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where packages are installed."""
    monkeypatch.syspath_prepend(tmp_path / "packages")
    return tmp_path / "packages"


@pytest.fixture(autouse=True)
def _no_tesseract(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine has besides is not offered."""

    def missing() -> NoReturn:
        raise TesseractMissing("it needs tesseract")

    monkeypatch.setattr(tesseract, "found", missing)


def offered(processors: str) -> list[str]:
    return list(adapters.offered(Settings(_env_file=None, processors=processors)))


def refusal(processors: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        offered(processors)
    assert len(str(caught.value).splitlines()) == 1
    return re.sub(r"own_\d+", "own_n", str(caught.value))


def test_a_package_offers_one_that_is_named(folder: Path) -> None:
    package(folder, PROCESSOR)
    assert offered("text, own") == ["text", "own"]
    assert offered("own") == ["own"]


def test_a_class_is_named(folder: Path) -> None:
    module = package(folder, PROCESSOR, offers="")
    assert offered(f"{module}:Processor,simulated") == ["own", "simulated"]


def test_what_is_not_named_is_not_imported(folder: Path) -> None:
    module = package(folder, PROCESSOR)
    assert offered("") == BUILT_IN
    assert offered("text") == ["text"]
    assert module not in sys.modules


def test_it_is_made_once_in_a_process(folder: Path) -> None:
    package(folder, PROCESSOR)
    settings = Settings(_env_file=None, processors="own")
    assert adapters.offered(settings)["own"] is adapters.offered(settings)["own"]


def test_where_each_comes_from(folder: Path) -> None:
    module = package(folder, PROCESSOR)
    other = package(folder, PROCESSOR.replace('"own"', '"other"'), offers="")
    chosen = adapters.chosen(Settings(_env_file=None, processors=f"text,own,{other}:Processor"))
    assert [each.origin for each in chosen] == ["built in", f"{module} 2.0", f"{other}:Processor"]


def test_convert_needs_a_service() -> None:
    assert refusal("text,convert") == "PROCESSORS: convert: it needs CONVERSION_URL"


def test_a_name_that_nobody_offers(folder: Path) -> None:
    package(folder, "1 / 0", offers="broken")
    there = ", ".join([*BUILT_IN, "broken"])
    assert refusal("scan") == f"PROCESSORS: there is no processor scan; there are {there}"


def test_one_that_cannot_work_here_says_why_unless_a_package_offers_it(folder: Path) -> None:
    assert refusal("text,ocr") == "PROCESSORS: ocr: it needs tesseract"
    package(folder, PROCESSOR.replace('"own"', '"ocr"'), offers="ocr")
    assert offered("text,ocr") == ["text", "ocr"]


def test_two_of_one_name(folder: Path) -> None:
    package(folder, PROCESSOR)
    module = package(folder, PROCESSOR, offers="own text")
    assert offered("simulated") == ["simulated"]
    assert offered("") == BUILT_IN, "a stranger's package does not keep the service from its start"
    assert refusal("own") == "PROCESSORS: own is offered more than once: own_n 2.0, own_n 2.0"
    assert refusal("text") == "PROCESSORS: text is offered more than once: built in, own_n 2.0"
    other = package(folder, PROCESSOR, offers="")
    assert refusal(f"{module}:Processor,{other}:Processor") == "PROCESSORS: own is the name of two of them"


def test_models_of_one_name_are_told_apart_in_the_openapi(folder: Path, tmp_path: Path) -> None:
    """Some are called as models of the API are."""
    code = PROCESSOR.replace("TheResult", "Result")
    package(folder, code)
    package(folder, code.replace("most: int = 3", "least: int = 1").replace('"own"', '"other"'), offers="other")
    settings = Settings(_env_file=None, processors="own,other", data_dir=tmp_path / "var")
    schemas = create_app(settings).openapi()["components"]["schemas"]
    assert "document_id" in schemas["Result"]["properties"]
    assert set(schemas["ProcessOwnResult"]["properties"]) == {"found"}
    assert set(schemas["ProcessOtherTheParams"]["properties"]) == {"least"}
    reference = {"$ref": "#/components/schemas/ProcessOtherTheParams"}
    assert schemas["ProcessOther"]["properties"]["params"] == reference
    assert reference in schemas["ProcessRequest"]["properties"]["params"]["anyOf"]
    assert {"$ref": "#/components/schemas/ProcessOtherResult"} in schemas["Result"]["properties"]["data"]["anyOf"]


RUN = "async def run(self, source, params, report):"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("from pydantic", "import nowhere\nfrom pydantic", "cannot be imported: ModuleNotFoundError: No module named"),
        ("from pydantic", "raise SystemExit('no\\nmodel')\nfrom pydantic", "cannot be imported: SystemExit: no model"),
        ("class Processor", "class Other", "cannot be imported: AttributeError: "),
        (
            'name = "own"',
            'def __init__(self, model): ...\n    name = "own"',
            "cannot be made without arguments: TypeErr",
        ),
        (RUN, "def run(self, source, params, report):", "its run is no `async def`"),
        (RUN, "async def run(self, source, params):", "its run does not take (source, params, report): too many"),
        (RUN, "async def run(self, source, params, report, llm):", "its run does not take (source, params, report): m"),
        ("async def run", "async def work", "it has no run"),
        ('name = "own"', "", "it has no name"),
        ('version = "1"', "", "it has no version"),
        ('version = "1"', "version = 1", "its version is not text of 1 to 50 printable characters"),
        ('description = "For tests."', "", "it has no description"),
        ("params = TheParams", "", "it has no params"),
        ("params = TheParams", "params = TheResult", "its params are no subclass of Params"),
        ("params = TheParams", "params = TheParams()", "its params are no subclass of Params"),
        ("result = TheResult", "", "it has no result"),
        ("result = TheResult", "result = dict", "its result is no subclass of BaseModel"),
        ("found: str", "found: object.__class__", "its params or its result have no JSON Schema: "),
        ("most: int = 3", "most: int", "a param has no default, or one that is not valid"),
        ("at_once = None", "at_once = 0", "its at_once is neither None nor a number from 1 on"),
        (
            "at_once = None",
            "at_once = None; content_types = ['text/html']",
            "there are no documents of its content type",
        ),
        ('name = "own"', 'name = "a b"', "its name is not 1 to 50 of a-z, 0-9 and -"),
        ('name = "own"', 'name = "another"', "its class calls itself another"),
    ],
)
def test_what_could_not_work_is_refused_in_one_line(folder: Path, old: str, new: str, reason: str) -> None:
    assert PROCESSOR.count(old) == 1
    package(folder, PROCESSOR.replace(old, new))
    refused = refusal("own")
    assert refused.removeprefix("PROCESSORS: own: ").removeprefix("it ").startswith(reason.removeprefix("it ")), refused


def test_an_extra_that_may_be_missing_is_named(folder: Path) -> None:
    package(folder, "import nowhere", extra="[gpu]")
    assert refusal("own").endswith("No module named 'nowhere'; its package may need the extra gpu")


def test_those_of_the_service_keep_the_contract() -> None:
    settings = Settings(_env_file=None, conversion_url="http://127.0.0.1:3000")
    found = adapters.available(settings)
    assert {"text", "split", "merge", "convert", "language", "keywords"} <= {each.name for each in found}
    assert [violation(each) for each in found] == [None] * len(found)
