"""A dependency that `Route` would not call is refused when the application is built."""

from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, Response

from app.web.route import Route


def guard() -> None:
    pass


async def later() -> None:
    pass


def opened() -> Iterator[None]:
    yield


async def answer() -> Response:
    return Response()


def test_a_dependency_without_an_argument_is_refused() -> None:
    with pytest.raises(TypeError, match="no argument takes its value"):
        APIRouter(route_class=Route, dependencies=[Depends(guard)]).get("/")(answer)


@pytest.mark.parametrize("call", [later, opened])
def test_what_is_not_a_synchronous_function_is_refused(call: Any) -> None:
    depending = Annotated[None, Depends(call)]

    async def answer(value: depending) -> Response:
        return Response(value)

    with pytest.raises(TypeError, match="not a synchronous function"):
        APIRouter(route_class=Route).get("/")(answer)
