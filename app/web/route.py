"""The route class of the API: bounded and strict JSON in, a finished Response out."""

from collections import Counter
from collections.abc import Callable, Iterator, Set as AbstractSet
from copy import deepcopy
from functools import cache
from inspect import Parameter, isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from json import JSONDecodeError
from typing import Any, ClassVar
from urllib.parse import unquote_to_bytes

from fastapi import BackgroundTasks, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import request_params_to_args
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer, OAuth2
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope, Send

from app.errors import UnsupportedMediaType
from app.web.body import StrictRequest, declared_length, errors_in, has_body, media_type, refuse_encoded
from app.web.client import client_key
from app.web.rates import ADDRESS, Rates

_JSON = ("application/json",)
_PATCHES = (*_JSON, "application/merge-patch+json")  # RFC 7396
_MAX_PARAMETERS = 100  # in a query; more are not even parsed


class Route(APIRoute):
    """An APIRoute that resolves dependencies inline and returns the handler's Response as it is.

    A JSON body may have `max_body` bytes. With `strict_query`, the query may hold each parameter that the route
    declares once, and no other.

    A handler's arguments come from the path, the query, dependencies and, if it has a parameter `body`, from a JSON
    body that is validated by the parameter's model. Headers are read from the request. Each dependency must be a
    synchronous function whose value is an argument of the handler or of another dependency; anything else is a
    TypeError when the route is built. Security schemes without an argument only describe the API and are not called.
    FastAPI's own solver runs synchronous dependencies in threads and opens exit stacks that none of them needs: a small
    request takes 1.5 times the CPU.
    """

    quiet: ClassVar[bool] = False
    """Whether its requests are logged at level `debug`."""

    max_body: ClassVar[int] = 64 * 1024
    strict_query: ClassVar[bool] = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._parameters = frozenset(_query_parameters(self.dependant))
        self._body = signature(self.endpoint).parameters.get("body")
        for each in self.dependant.dependencies:
            only_describes = each.name is None and isinstance(each.call, APIKeyHeader | HTTPBearer | OAuth2)
            if not only_describes and (each.name is None or not _is_synchronous(each.call)):
                raise TypeError(
                    f"{self.path}: {each.call} is not a synchronous function, or no argument takes its value"
                )

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.methods is None or scope["method"] in self.methods:
            request = StrictRequest(scope, receive, send, self.max_body)
            await self.admit(request)
            refuse_encoded(request)
            response = await self.answer(request)
            await response(scope, receive, send)
        else:
            await super().handle(scope, receive, send)

    async def admit(self, request: Request) -> None:
        """Let the request in before a byte of its body is read. Raises RateLimited."""
        await count(request, ADDRESS, client_key())

    async def answer(self, request: Request) -> Response:
        """Call the handler. Raises RequestValidationError, UnsupportedMediaType, PayloadTooLarge, RequestTimeout."""
        undeclared = _undeclared(self._parameters, request) if self.strict_query else []
        values, errors = await _validated(self._body, request) if self._body else ({}, [])
        found, wrong = _solved(self.dependant, request)
        if undeclared or wrong or errors:
            raise RequestValidationError(undeclared + wrong + errors)
        tasks = BackgroundTasks()
        if self.dependant.background_tasks_param_name:
            values[self.dependant.background_tasks_param_name] = tasks
        response: Response = await self.endpoint(**values, **found)
        if tasks.tasks:
            response.background = tasks
        return response


async def count(request: Request, policy: str, key: str) -> None:
    """Count the request under a policy; its answer says what remains. Raises RateLimited."""
    rates: Rates = request.app.state.services.rates
    request.scope["rate_limit"] = await rates.count(policy, key)


def _is_synchronous(call: Any) -> bool:
    return not (iscoroutinefunction(call) or isgeneratorfunction(call) or isasyncgenfunction(call))


def _query_parameters(dependant: Dependant) -> Iterator[str]:
    """The names of the query parameters that a handler and its dependencies declare."""
    for field in dependant.query_params:
        model = field.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            yield from model.model_fields
        else:
            yield field.alias
    for each in dependant.dependencies:
        yield from _query_parameters(each)


def _undeclared(declared: AbstractSet[str], request: Request) -> list[Any]:
    """An error for each query parameter that the route does not declare, or that is there more than once.

    Raises RequestValidationError for more than _MAX_PARAMETERS, and for what is no UTF-8: Starlette would replace it.
    """
    query: bytes = request.scope["query_string"]
    if not query:
        return []
    if query.count(b"&") >= _MAX_PARAMETERS:
        too_many = {"type": "too_many", "loc": ("query",), "msg": f"More than {_MAX_PARAMETERS} query parameters"}
        raise RequestValidationError([too_many])
    try:
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        raise RequestValidationError([{"type": "not_utf8", "loc": ("query",), "msg": "Not UTF-8"}]) from None
    sent = Counter(name for name, _ in request.query_params.multi_items())
    return [
        {"type": "undeclared", "loc": ("query", name), "msg": "Given more than once" if name in declared else "Unknown"}
        for name, times in sent.items()
        if times > 1 or name not in declared
    ]


def _solved(dependant: Dependant, request: Request) -> tuple[dict[str, Any], list[Any]]:
    """The arguments that do not come from the body, and the validation errors in them."""
    values: dict[str, Any] = {}
    errors: list[Any] = []
    for each in dependant.dependencies:
        if each.name is None or each.call is None:
            continue  # a security scheme, which only describes the API
        arguments, wrong = _solved(each, request)
        errors += wrong
        if not wrong:
            values[each.name] = each.call(**arguments)
    query = dependant.query_params
    if query and not request.query_params:
        defaults = _defaults(dependant.call)
        values |= {field.name: defaults[field.name] for field in query if field.name in defaults}
        query = [field for field in query if field.name not in defaults]
    for fields, received in ((dependant.path_params, request.path_params), (query, request.query_params)):
        if fields:
            found, wrong = request_params_to_args(fields, received)
            values |= found
            errors += wrong
    if dependant.request_param_name:
        values[dependant.request_param_name] = request
    return values, errors


@cache
def _defaults(call: Callable[..., Any] | None) -> dict[str, Any]:
    """The defaults of a function's arguments, but for those that somebody could change.

    FastAPI's solver finds them anew for each request: for one argument, it makes a hundred calls.
    """
    parameters = signature(call).parameters.values() if call else ()
    return {each.name: each.default for each in parameters if isinstance(each.default, str | int | None)}


async def _validated(parameter: Parameter, request: Request) -> tuple[dict[str, Any], list[Any]]:
    """The argument from a JSON body, and the validation errors in it.

    Raises UnsupportedMediaType, RequestValidationError for what is not JSON, and what `StrictRequest.body` raises.
    """
    # A body in chunks may be empty, and then needs no type.
    if media_type(request) not in (_PATCHES if request.method == "PATCH" else _JSON) and (
        declared_length(request) or (has_body(request) and await request.body())
    ):
        raise UnsupportedMediaType
    if not await request.body():
        if parameter.default is Parameter.empty:
            return {}, [{"type": "missing", "loc": ("body",), "msg": "Field required"}]
        return {parameter.name: deepcopy(parameter.default)}, []
    try:
        decoded = await request.json()
        return {parameter.name: parameter.annotation.model_validate(decoded, from_attributes=True)}, []
    except JSONDecodeError as error:
        invalid = {"type": "json_invalid", "loc": ("body", error.pos), "msg": "The body is not valid JSON."}
        raise RequestValidationError([invalid]) from None
    except ValidationError as error:
        return {}, errors_in(error, "body")
