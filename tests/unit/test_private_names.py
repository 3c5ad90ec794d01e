"""Names of libraries that no documentation promises do what the application relies on: an upgrade that changes one
fails here first. The list is in tests/test_architecture.py."""

import ast
import inspect
import signal
import sqlite3
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Annotated, Any
from uuid import UUID, uuid4

import httpx2
import pytest
import uvicorn
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Header, Request, Response
from fastapi.dependencies.utils import request_body_to_args, request_params_to_args
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from fastapi.security.base import SecurityBase
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from sqlalchemy import Column, Integer, MetaData, Table, Uuid, bindparam, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError

from app.web.body import StrictRequest
from tests.test_architecture import PRIVATE


class Body(BaseModel):
    amount: int


def depended(x_sent: Annotated[str, Header()]) -> str:
    return x_sent


async def endpoint(
    name: str, request: Request, tasks: BackgroundTasks, sent: Annotated[str, Depends(depended)], limit: int = 3
) -> None:
    pass


async def receiving(body: Body) -> None:
    pass


async def optional(body: Body | None = None) -> None:
    pass


def assigned(code: type) -> set[str]:
    """What methods of the class assign to `self`."""
    nodes = ast.walk(ast.parse(textwrap.dedent(inspect.getsource(code))))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}


@pytest.mark.parametrize(
    ("owner", "name"), [(private.owner, name) for private in PRIVATE for name in private.names.split()]
)
def test_the_name_is_there(owner: str, name: str) -> None:
    module, _, inner = owner.partition(":")
    code: Any = import_module(module)
    code = getattr(code, inner) if inner else code
    if not hasattr(code, name):
        assert any(
            name in inspect.get_annotations(base) or name in assigned(base)
            for base in code.__mro__
            if base is not object
        )


def test_arguments_of_a_call() -> None:
    dependant = APIRoute("/{name}", endpoint).dependant
    assert (dependant.request_param_name, dependant.background_tasks_param_name) == ("request", "tasks")
    [dependency] = dependant.dependencies
    assert (dependency.name, dependency.call) == ("sent", depended)
    assert request_params_to_args(dependant.path_params, {"name": "n"}) == ({"name": "n"}, [])
    assert request_params_to_args(dependant.query_params, {}) == ({"limit": 3}, [])
    values, errors = request_params_to_args(dependant.query_params, {"limit": "no"})
    assert (values, [error["loc"] for error in errors]) == ({}, [("query", "limit")])
    headers = Request({"type": "http", "headers": [(b"x-sent", b"value")]}).headers
    assert request_params_to_args(dependency.header_params, headers) == ({"x_sent": "value"}, [])


async def test_a_body_that_is_not_there() -> None:
    route, free = APIRoute("/", receiving, methods=["POST"]), APIRoute("/", optional, methods=["POST"])
    assert APIRoute("/{name}", endpoint).body_field is None
    assert route.body_field is not None
    params = route.dependant.body_params
    assert await request_body_to_args(params, {"amount": 1}, embed_body_fields=False) == ({"body": Body(amount=1)}, [])
    _, errors = await request_body_to_args(params, PydanticUndefined, embed_body_fields=False)
    assert [(error["type"], error["loc"]) for error in errors] == [("missing", ("body",))]
    values = await request_body_to_args(free.dependant.body_params, PydanticUndefined, embed_body_fields=False)
    assert values == ({"body": None}, [])


def test_a_scheme_is_called_as_a_dependency() -> None:
    route = APIRoute("/", receiving, dependencies=[Depends(HTTPBearer())])
    [dependency] = route.dependant.dependencies
    assert dependency.name is None
    assert isinstance(dependency.call, SecurityBase)


async def test_routes_put_first_are_served() -> None:
    """By their `handle`, flat, and each is known to the middleware by its template."""
    seen = []

    class Route(APIRoute):
        async def handle(self, scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["route"].path)
            await Response("own")(scope, receive, send)

    app, router = FastAPI(), APIRouter(route_class=Route)
    router.get("/{name}")(endpoint)
    app.get("/{name}")(receiving)
    app.router.routes[:0] = router.routes
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://app") as client:
        assert (await client.get("/a")).text == "own"
    assert seen == ["/{name}"]


async def test_a_body_that_was_read_can_be_streamed() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"all of it", "more_body": False}

    request = StrictRequest({"type": "http", "method": "POST", "headers": []}, receive)
    assert await request.body() == b"all of it"
    assert b"".join([chunk async for chunk in request.stream()]) == b"all of it"


def test_a_server_without_sockets_and_its_signals() -> None:
    """It listens nowhere; its handlers are there when the application starts; the signal comes again at the end."""
    handlers, raised = [], []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        handlers.append(signal.getsignal(signal.SIGTERM))
        signal.raise_signal(signal.SIGTERM)
        yield

    server = uvicorn.Server(uvicorn.Config(FastAPI(lifespan=lifespan), port=0, log_config=None))
    before = signal.signal(signal.SIGTERM, lambda number, _: raised.append(number))
    try:
        server.run(sockets=[])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert server.servers == []
    assert handlers == [server.handle_exit]
    assert raised == [signal.SIGTERM]


def test_an_error_of_the_driver_as_sqlalchemy_s() -> None:
    refused = sqlite3.IntegrityError("UNIQUE constraint failed")
    error = DBAPIError.instance("INSERT", ["secret"], refused, sqlite3.Error, hide_parameters=True)
    assert isinstance(error, IntegrityError)
    assert error.orig is refused
    assert "secret" not in str(error)


def test_a_compiled_statement() -> None:
    """Its parameters in the driver's order, those that the statement brings along, and how values are converted."""
    table = Table("t", MetaData(), Column("id", Uuid), Column("count", Integer))
    statement = select(table).where(table.c.count > 7, table.c.id == bindparam("wanted"))
    dialect = sqlite.dialect()
    compiled = statement.compile(dialect=dialect, column_keys=["wanted"])
    assert str(compiled).count("?") == 2
    first, second = (compiled.binds[name] for name in compiled.positiontup or ())
    assert (first.effective_value, second.key) == (7, "wanted")
    own, uuid = uuid4(), table.c.id.type.dialect_impl(dialect)
    sent = uuid.bind_processor(dialect)(own)
    assert sent == own.hex
    assert uuid.result_processor(dialect, None)(sent) == own == UUID(sent)
    assert table.c.count.type.dialect_impl(dialect).result_processor(dialect, None) is None
