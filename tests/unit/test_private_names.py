"""What no documentation of a library promises is as the application relies on it: an upgrade that changes it fails here
first. The names are listed in tests/test_architecture.py."""

import ast
import inspect
import signal
import sqlite3
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest
import uvicorn
from fastapi import APIRouter, FastAPI, Response
from fastapi.routing import APIRoute
from sqlalchemy import Column, Integer, MetaData, Table, Uuid, bindparam, select
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError

from tests.test_architecture import PRIVATE


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


async def test_routes_in_a_flat_list_are_served() -> None:
    """By their `handle`, before those of the application, and each is known to the middleware by its template."""
    seen = []

    class Route(APIRoute):
        async def handle(self, scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["route"].path)
            await Response("own")(scope, receive, send)

    router = APIRouter(route_class=Route)
    router.get("/{name}")(lambda: None)
    app = FastAPI(routes=router.routes)
    app.get("/{name}")(lambda: None)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://app") as client:
        assert (await client.get("/a")).text == "own"
    assert seen == ["/{name}"]


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
