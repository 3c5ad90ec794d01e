"""The OpenAPI description: its texts, and what FastAPI cannot derive from the routes.

Whatever a generated client makes a class of has a name of its own: each enum, and each object with known fields.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from fastapi import FastAPI
from pydantic import BaseModel

from app import VERSION
from app.processors.base import Processor
from app.web.describe import header
from app.web.problems import Problem, examples_in

_REF = "#/components/schemas/{model}"
_NULL = {"type": "null"}

_REMOTE_WORKERS = """\
Workers elsewhere do the jobs of processors that the service does not run itself (see `docs/remote-workers.md`):

1. `POST /remote/{processor}/claim`, with an API key that has the scope `worker`: a job, or 204. All other calls are
   about that job, and need the `token` of the claim in place of the key.
2. `GET` the `url` of each input, with the input's `headers`.
3. `POST /remote/jobs/{job_id}/heartbeat`, every third of the lease, while the work goes on.
4. `PUT /remote/jobs/{job_id}/outputs/{number}`, for each file that was made.
5. `POST /remote/jobs/{job_id}/complete`, or `fail`, or `release`."""

DESCRIPTION: dict[str, Any] = {
    "title": "Document Lifecycle API",
    "version": VERSION,
    "summary": "Stores PDF and DOCX files, tracks the status of each, and never loses or repeats work on them.",
    "description": """\
Five calls take a document through its life:

1. `POST /auth/register`, once, and `POST /auth/login`: each other call needs the access token, or *Authorize* here.
2. `POST /documents`: upload the file.
3. `POST /documents/{document_id}/process`: start work on it.
4. `GET /jobs/{job_id}?wait=30`: wait until it is finished.
5. `GET /documents/{document_id}/result`: fetch what was made of it.

Every error is an RFC 9457 problem whose `type` is a page of its own: see [all problems](problems).""",
    "license_info": {"name": "MIT", "identifier": "MIT"},
    "openapi_tags": [
        {"name": "auth", "description": "Accounts, tokens and sessions."},
        {"name": "api keys", "description": "For programs: what they send in place of an access token."},
        {"name": "documents", "description": "Files and their metadata."},
        {"name": "processing", "description": "Jobs and results."},
        {"name": "direct uploads", "description": "Large files, sent directly to the storage where it supports that."},
        {"name": "webhooks", "description": "Tell a program of yours what happens to your documents."},
        {"name": "remote workers", "description": _REMOTE_WORKERS},
        {"name": "operators", "description": "For those who run the service: what all accounts have, but no content."},
        {"name": "health", "description": "For load balancers and monitoring."},
    ],
}


def install(
    app: FastAPI,
    models: Iterable[type[BaseModel]],
    processors: Collection[Processor],
    ad_hoc: "AdHoc",
    webhooks: Mapping[str, Any],
) -> None:
    """Complete the OpenAPI with the `models` that routes parse themselves or that are sent to `webhooks`, and the
    processors with their params.

    The first processor is the default; `ad_hoc` is what a request can put together of them.
    """
    generate = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            described = generate()
            described["webhooks"] = webhooks
            schemas = described["components"]["schemas"]
            for model in models:
                schemas |= _named(model)
            _add_problems(schemas)
            _add_processors(schemas, processors, ad_hoc)
            _tell_defaults(schemas)
            operations = [operation for path in described["paths"].values() for operation in path.values()]
            for operation in operations:
                _summarize(operation)
                _take_nulls_out_of_queries(operation)
            _share_headers_and_examples(operations, described["components"])
            _add_examples(described["paths"], processors)
        return app.openapi_schema or {}

    app.openapi = complete  # type: ignore[method-assign]


def _named(model: type[BaseModel], prefix: str = "", **options: Any) -> dict[str, Any]:
    """The schemas of the model and of what it refers to, by name. A prefix goes before each name."""
    schema = model.model_json_schema(ref_template=_REF.format(model=f"{prefix}{{model}}"), **options)
    named = {**schema.pop("$defs", {}), model.__name__: schema}
    return {f"{prefix}{name}": each | {"title": f"{prefix}{name}"} for name, each in named.items()} if prefix else named


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(model=name)}


def _summarize(operation: dict[str, Any]) -> None:
    """Make the first sentence of a description the summary."""
    first, rest = re.split(r"\.(?:\s+|$)", operation.pop("description"), maxsplit=1)
    operation["summary"] = " ".join(first.split())  # in one line
    if rest:
        operation["description"] = rest


def _take_nulls_out_of_queries(operation: dict[str, Any]) -> None:
    """A parameter can be left out, and no query can say null."""
    for parameter in operation.get("parameters", []):
        schema = parameter["schema"]
        if _NULL in schema.get("anyOf", []):
            (other,) = (each for each in schema.pop("anyOf") if each != _NULL)
            parameter["schema"] = other if "$ref" in other else schema | other


def _tell_defaults(schemas: dict[str, Any]) -> None:
    """Put defaults into descriptions: generated clients would send them, or require the fields that have some."""
    for schema in schemas.values():
        for name, field in schema.get("properties", {}).items():
            default = field.pop("default", None)
            if isinstance(default, str | int | float) and name not in schema.get("required", []):
                field["description"] = f"{field.get('description', '')} Default: {json.dumps(default)}.".lstrip()


def _share_headers_and_examples(operations: Iterable[dict[str, Any]], components: dict[str, Any]) -> None:
    """Have each response refer to the header and the examples of errors that it shares with others."""
    components["headers"] = {
        "X-Request-ID": header(
            "The request's id in logs, timelines and errors: the client's own, or a new one.", "7f9c"
        )
    }
    shared = components["examples"] = {}
    for response in (response for operation in operations for response in operation["responses"].values()):
        response.setdefault("headers", {})["X-Request-ID"] = {"$ref": "#/components/headers/X-Request-ID"}
        examples = examples_in(response)
        shared |= examples
        examples.update({code: {"$ref": f"#/components/examples/{code}"} for code in examples})


def _add_examples(paths: dict[str, Any], processors: Collection[Processor]) -> None:
    """Offer the processors by name where a request to process is written."""
    body = paths["/documents/{document_id}/process"]["post"]["requestBody"]["content"]["application/json"]
    body["examples"] = {
        each.name: {
            "summary": each.description,
            "value": {"processor": each.name, "params": each.params().model_dump(mode="json")},
        }
        for each in processors
    }


def _add_problems(schemas: dict[str, Any]) -> None:
    schemas |= _named(Problem, mode="serialization")
    fields = schemas["Problem"]["properties"]
    fields["error"] = _ref("Failure") | {"description": fields["error"]["description"]}
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)


def _add_processors(schemas: dict[str, Any], processors: Collection[Processor], ad_hoc: "AdHoc") -> None:
    """Describe what names a processor with an alternative for each, because each has params of its own.

    The fields are stated once more for all of them, which generators need that do not know alternatives.
    """
    models = {each.name: _models(schemas, each) for each in processors}
    names, default = [each.name for each in processors], next(iter(processors)).name
    schemas["ProcessorName"] = {"type": "string", "enum": names, "title": "ProcessorName"}
    alternatives = {
        _alternative(each): _request_of(each, models[each.name].params, is_default=each.name == default)
        for each in processors
    }
    models[ad_hoc.name] = _Models(ad_hoc.params.__name__, ad_hoc.result.__name__)
    schemas |= _named(ad_hoc.params) | _named(ad_hoc.result, mode="serialization")
    alternatives[f"Process{ad_hoc.name.title()}"] = _request_of_ad_hoc(schemas, ad_hoc)
    schemas |= alternatives
    for request in (schemas[name] for name in ("ProcessRequest", "ProcessorChoice", "BatchRequest")):
        fields = request["properties"]
        fields["processor"] = _ref("ProcessorName") | {"description": f"Default: {json.dumps(default)}."}
        fields["params"] |= {"anyOf": [_ref(each.params) for each in models.values()]}
        for key in ("type", "additionalProperties"):
            fields["params"].pop(key, None)
        request["allOf"] = [{"anyOf": [_ref(name) for name in alternatives]}]
    if "Then" in schemas:
        schemas["Then"]["properties"]["processor"] = _ref("ProcessorName")
    for name in ("Result", "ListedResult"):
        data = schemas[name]["properties"]["data"]
        others = [each for each in data.pop("anyOf", []) if each == _NULL]
        for key in ("type", "additionalProperties", "title", "examples"):
            data.pop(key, None)
        data["anyOf"] = [_ref(each.result) for each in models.values()] + others


class AdHoc(NamedTuple):
    """What a request asks for by a field of this name, in the place of a processor: the models of its params and of
    its result."""

    name: str
    params: type[BaseModel]
    result: type[BaseModel]


class _Models(NamedTuple):
    """The names of a processor's models."""

    params: str
    result: str


def _models(schemas: dict[str, Any], processor: Processor) -> _Models:
    """Add the schemas of a processor's models, under names of its own if one of them means something else already."""
    prefix = ""
    described = _named(processor.params) | _named(processor.result)
    if any(schemas.get(name, each) != each for name, each in described.items()):
        prefix = _alternative(processor)
        described = _named(processor.params, prefix) | _named(processor.result, prefix)
    schemas |= described
    return _Models(f"{prefix}{processor.params.__name__}", f"{prefix}{processor.result.__name__}")


def _alternative(processor: Processor) -> str:
    return f"Process{processor.name.title().replace('-', '')}"


def _request_of(processor: Processor, params: str, *, is_default: bool) -> dict[str, Any]:
    """The alternative for one processor. Its name may be left out if it is the default."""
    return {
        "type": "object",
        "title": _alternative(processor),
        "description": processor.description,
        "properties": {
            "processor": {"type": "string", "const": processor.name},
            "params": _ref(params),
        },
        "required": [] if is_default else ["processor"],
    }


def _request_of_ad_hoc(schemas: dict[str, Any], ad_hoc: AdHoc) -> dict[str, Any]:
    """The alternative that names no processor."""
    return {
        "type": "object",
        "title": f"Process{ad_hoc.name.title()}",
        "description": "Several processors, one after the other.",
        "properties": {
            ad_hoc.name: dict(schemas["ProcessRequest"]["properties"][ad_hoc.name]),
            "params": _ref(ad_hoc.params.__name__),
        },
        "required": [ad_hoc.name],
    }
