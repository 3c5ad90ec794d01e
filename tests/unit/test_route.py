"""On every route, `Route` calls the handler with the arguments that FastAPI's own solver gives it, or refuses the
request with the same errors, whatever a client sends. A query it takes more seriously."""

import re
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import UUID

import orjson
import pytest
from fastapi import BackgroundTasks, Request, Response
from fastapi.exceptions import RequestValidationError

from app.auth.principal import Role
from app.errors import AppError
from app.main import app
from app.remote import routes as remote
from app.remote.tokens import Claim
from app.web.route import Route
from tests.support.inprocess import Process
from tests.support.torture import LONG
from tests.support.user import PASSWORD

PAGES = "/console"  # of people, whose forms are read by their handlers
ROUTES = [route for route in app.routes if isinstance(route, Route) and not route.path.startswith(PAGES)]
SCHEMAS = app.openapi()["components"]["schemas"]
ACCOUNT = {"email": "ada@example.com", "password": PASSWORD}

# What is sent in place of a valid value. Each is valid somewhere.
TEXTS = ["x", "", "0", "1", "-1", "1.5", "nan", "true", "null", "é", "x" * 3000, "0" * 64, "2026-01-01T00:00:00Z"]
TEXTS += ["2026-01-01", "01939f3e-5c00-7000-8000-000000000001"]
FORMATS = {"date-time": TEXTS[-3:-2], "uuid": TEXTS[-1:]}
WHOLE = 6  # requests, in which all of a kind is different
JSONS = [None, True, 1, -1, 1.5, "", "x", "x" * 3000, [], [None], ["x"], {}, {"x": 1}]
BODIES = [b"null", b"1", b'"x"', b"[]", b"{}", b"{", b"\xff", b'{"size": NaN}', b'{"size": 1e999}', b'"\\ud800"']

REWORDED = {"JSON decode error": "The body is not valid JSON."}  # what we say in other words

Values = list[tuple[str, str]]


class Sent(NamedTuple):
    """A request. Each parameter may be there several times."""

    path: dict[str, str]
    query: Values
    headers: Values
    body: bytes | None


def valid(schema: dict[str, Any]) -> Any:
    """A value of the schema."""
    schema = SCHEMAS[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    example = [schema["example"]] if "example" in schema else [*schema.get("examples", []), *schema.get("enum", [])]
    if example:
        return example[0]
    if "anyOf" in schema:
        return valid(schema["anyOf"][0])
    if schema["type"] == "object":
        return {name: valid(each) for name, each in schema.get("properties", {}).items()}
    if schema["type"] == "array":
        return [valid(schema["items"])]
    if schema["type"] != "string":
        return max(1, schema.get("minimum", 1))
    texts = FORMATS.get(schema.get("format", ""), TEXTS)
    return next(text for text in texts if re.search(schema.get("pattern", ""), text))


def requests(route: Route) -> Iterator[Sent]:
    """First a valid request with all parameters, then others, in each of which one thing is different."""
    operation = app.openapi()["paths"].get(route.path, {}).get(min(route.methods).lower(), {})
    parameters = [(each["in"], each["name"], str(valid(each["schema"]))) for each in operation.get("parameters", [])]

    def of(kind: str) -> Values:
        return [(name, value) for place, name, value in parameters if place == kind]

    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    whole = None if schema is None else valid(schema)
    plain = Sent(dict(of("path")), of("query"), of("header"), None if schema is None else orjson.dumps(whole))
    yield plain
    yield plain._replace(query=[], headers=[])
    yield plain._replace(query=[*plain.query, ("unknown", "1")], headers=[*plain.headers, ("unknown", "1")])
    yield plain._replace(query=[(name.upper(), value) for name, value in plain.query])
    yield Sent(dict.fromkeys(plain.path, "x" * 3000), [(name, "x" * 3000) for name, _ in plain.query], [], plain.body)
    yield Sent(dict.fromkeys(plain.path, "x"), [], [], None if schema is None else b"[]")
    for name in plain.path:
        yield from (plain._replace(path=plain.path | {name: text}) for text in TEXTS if text)
    for field in ("query", "headers"):
        yield from (plain._replace(**{field: changed}) for changed in changes(getattr(plain, field)))
    if schema is not None:
        yield from (plain._replace(body=body) for body in [None, b"", *BODIES])
        yield plain._replace(body=orjson.dumps(whole | {"unknown": 1}))
        for name in whole:
            yield plain._replace(body=orjson.dumps({each: whole[each] for each in whole if each != name}))
            yield from (plain._replace(body=orjson.dumps(whole | {name: value})) for value in JSONS)


def chosen(found: Iterator[Sent]) -> Iterator[Sent]:
    """Those that change the whole, and of the many others every third, or in a long run all."""
    return (sent for number, sent in enumerate(found) if LONG or number < WHOLE or number % 3 == 0)


def undeclared(route: Route, sent: Sent) -> list[Any]:
    """The errors in a query that are errors by this API's own rule: what is not in its description, or there twice."""
    operation = app.openapi()["paths"].get(route.path, {}).get(min(route.methods).lower(), {})
    described = [each["name"] for each in operation.get("parameters", []) if each["in"] == "query"]
    names = Counter(name for name, _ in sent.query)
    return [
        ("undeclared", ("query", name), "Given more than once" if name in described else "Unknown")
        for name, times in names.items()
        if (times > 1 or name not in described) and not route.path.startswith("/uploads/")
    ]


def changes(values: Values) -> Iterator[Values]:
    """Each value left out, another one, sent twice."""
    for index, (name, value) in enumerate(values):
        others = values[:index] + values[index + 1 :]
        yield others
        yield from ([*others, (name, text)] for text in TEXTS)
        yield from ([*others, (name, value), (name, text)] for text in (value, "x"))


class Solvers:
    """Stands in for `Route.answer`, to note what comes of a request by it and by FastAPI."""

    def __init__(self, route: Route, monkeypatch: pytest.MonkeyPatch) -> None:
        self.outcomes: list[tuple[Any, Any]] = []
        self._arguments: dict[str, Any] = {}
        self._ours, self._theirs = partial(Route.answer, route), route.get_route_handler()
        monkeypatch.setattr(route, "endpoint", self._endpoint)
        monkeypatch.setattr(route.dependant, "call", self._endpoint)
        monkeypatch.setattr(Route, "answer", self._answer)

    async def _endpoint(self, **arguments: Any) -> Response:
        self._arguments = arguments
        return Response()

    async def _answer(self, request: Request) -> Response:
        async with AsyncExitStack() as stack:
            request.scope |= {"fastapi_inner_astack": stack, "fastapi_function_astack": stack}
            ours, theirs = await self._outcome(self._ours(request)), await self._outcome(self._theirs(request))
        self.outcomes.append((ours, theirs))
        return Response()

    async def _outcome(self, answer: Awaitable[Response]) -> Any:
        """The arguments of the handler, the validation errors, or the error's type."""
        try:
            await answer
        except RequestValidationError as error:
            found = [(each["type"], each["loc"], each["msg"]) for each in error.errors()]
            return [(kind, where, REWORDED.get(text, text)) for kind, where, text in found]
        except AppError as error:
            return type(error)
        return {name: _comparable(value) for name, value in self._arguments.items()}


def _comparable(value: Any) -> Any:
    """An argument, so that two that do the same are equal."""
    if isinstance(value, BackgroundTasks):
        return type(value)
    return (value.func, value.args, value.keywords) if isinstance(value, partial) else value


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    process = Process(tmp_path_factory.mktemp("route"))
    process.http("POST", "/auth/register", json=ACCOUNT)
    process.operate(lambda accounts: accounts.set_role(ACCOUNT["email"], Role.OPERATOR))  # who may call everything
    yield process
    process.kill()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{min(route.methods)} {route.path}")
def test_arguments_are_those_of_fastapi(route: Route, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    token = process.http("POST", "/auth/login", json=ACCOUNT).json()["access_token"]
    if route in remote.holding.routes + remote.completing.routes:
        claim = Claim(UUID(FORMATS["uuid"][0]), 1, datetime.now(UTC), 60, "a worker", UUID(FORMATS["uuid"][0]), None)
        token = process.services.remote.claiming.tokens.issue(claim)
    solvers = Solvers(route, monkeypatch)
    for number, sent in enumerate(chosen(requests(route)), start=1):
        path = route.path.format(**{name: quote(value, safe="") for name, value in sent.path.items()})
        kind = "" if sent.body is None else "application/json"
        process.http(
            min(route.methods),
            path,
            token=token,
            kind=kind,
            params=sent.query,
            headers=sent.headers,
            content=sent.body,
        )
        assert len(solvers.outcomes) == number, sent
        ours, theirs = solvers.outcomes[-1]
        wrong = undeclared(route, sent)
        assert ours == (wrong + (theirs if isinstance(theirs, list) else []) if wrong else theirs), sent
    accepted, _ = solvers.outcomes[0]
    assert isinstance(accepted, dict)


def test_all_routes_are_compared() -> None:
    """Those that are not are FastAPI's own, or pages."""
    compared = {(method.lower(), route.path) for route in ROUTES for method in route.methods}
    described = {(method, path) for path, methods in app.openapi()["paths"].items() for method in methods}
    assert described <= compared
