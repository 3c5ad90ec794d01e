"""docs/coming-from.md names what there is, and every section of it is tried."""

import re
from collections import deque
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.documents.lifecycle import Status
from app.errors import AppError
from app.jobs.models import JobState
from app.settings import Settings
from tests.support.guide import PAGE, Row, Walk, named, rows, sections
from tests.support.server import Server

OTHERS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "PUT", *Status, *JobState}
OF_JOBS = {"password-protected", "malformed-document"}
WRONG = {"GET /documents?colour=red", "GET /nowhere", "PATCH /jobs/{id}"}


def codes_of(error: type[AppError]) -> set[str]:
    return {code for each in error.__subclasses__() for code in {each.code, *codes_of(each)}}


def exists(call: str, paths: dict[str, Any], http: httpx2.Client) -> bool:
    """Whether the API describes the call and its parameters; or, as no part of the API, has such a page."""
    method, path, *queries = re.split(r"[ ?]", call)
    operation = paths.get(re.sub(r"\{\w+\}", "{}", path), {}).get(method.lower())
    if operation is None:
        return http.request(method, path, follow_redirects=True).status_code == 200
    known = {each["name"] for each in operation.get("parameters", [])}
    return {each.partition("=")[0] for query in queries for each in query.split("&")} <= known


def test_every_section_is_tried() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    for heading, text in sections().items():
        if rows(text):
            assert f"def test_{'_'.join(re.findall(r'[a-z0-9]+', heading.lower()))}(" in tests


def test_every_call_exists(server: Server) -> None:
    http = server.client()
    described = http.get("/openapi.json").json()["paths"]
    paths = {re.sub(r"\{\w+\}", "{}", path): operations for path, operations in described.items()}
    calls = {code for code in named(PAGE.read_text()) if re.fullmatch(r"[A-Z]+ /\S*", code)}
    assert {call for call in calls | WRONG if not exists(call, paths, http)} == WRONG


def test_every_state_setting_and_error_exists() -> None:
    names = {code.partition("=")[0] for code in named(PAGE.read_text())}
    capital = {name for name in names if re.fullmatch(r"[A-Z][A-Z_]+", name)}
    assert {name for name in capital - OTHERS if name.lower() not in Settings.model_fields} == set()
    hyphens = {name for name in names if re.fullmatch(r"[a-z]+(-[a-z]+)+", name)}
    assert hyphens - codes_of(AppError) - OF_JOBS == set()


def test_a_row_that_is_not_tried_is_noticed(tmp_path: Path) -> None:
    table = [Row("first", ["GET /jobs/{id}?wait=30"]), Row("second", ["WORKERS=2"])]
    server = Server(tmp_path, {"WORKERS": "2"})
    walk = Walk(server, deque(table))
    with pytest.raises(AssertionError):
        walk.end()
    with pytest.raises(AssertionError):
        Walk(server, deque(table)).at("second")
    walk.at("first")
    with pytest.raises(AssertionError):
        Walk(server, deque(table[1:])).at("second", "KEEP_ALIVE_SECONDS")
    for other in ("POST /jobs/1?wait=30", "GET /jobs/1", "GET /jobs/1/more?wait=30"):
        walk.told = [other]
        with pytest.raises(AssertionError):
            walk.at("second", "WORKERS")
    walk.told = ["GET /jobs/1?limit=1&wait=30\n200"]
    walk.at("second", "WORKERS")
    walk.end()
    server.settings["WORKERS"] = "3"
    with pytest.raises(AssertionError):
        walk.end()
