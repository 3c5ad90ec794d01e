"""The OpenAPI description: its texts, and what FastAPI cannot derive from the routes."""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from app.processors.base import Processor
from app.web.describe import header
from app.web.problems import Problem

_REF = "#/components/schemas/{model}"

DESCRIPTION: dict[str, Any] = {
    "title": "Document Lifecycle API",
    "version": "1.0.0",
    "summary": "Stores PDF and DOCX files, tracks the status of each, and never loses or repeats work on them.",
    "description": (
        "Register, log in, upload a document, have it processed, fetch the result. Every error is an RFC 9457 problem "
        "whose `type` is a page of its own: see [/problems](/problems)."
    ),
    "openapi_tags": [
        {"name": "auth", "description": "Accounts and tokens."},
        {"name": "documents", "description": "Files and their metadata."},
        {"name": "direct uploads", "description": "Large files, sent directly to the storage where it supports that."},
        {"name": "processing", "description": "Jobs and results."},
        {"name": "health", "description": "For load balancers and monitoring."},
    ],
}


def install(app: FastAPI, models: Iterable[type[BaseModel]], processors: Iterable[Processor[Any]]) -> None:
    """Complete the OpenAPI with the `models` that routes parse themselves, and the processors with their params."""
    generate = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            schemas = schema["components"]["schemas"]
            schemas |= {model.__name__: model.model_json_schema() for model in models}
            _add_problems(schemas)
            _add_processors(schemas, processors)
            _add_request_ids(schema["paths"])
        return app.openapi_schema or {}

    app.openapi = complete  # type: ignore[method-assign]


def _add_request_ids(paths: dict[str, Any]) -> None:
    id_header = header("The request's id in logs, timelines and errors: the client's own, or a new one.", "7f9c")
    for operation in (operation for path in paths.values() for operation in path.values()):
        for response in operation["responses"].values():
            response.setdefault("headers", {})["X-Request-ID"] = id_header


def _add_problems(schemas: dict[str, Any]) -> None:
    problem = Problem.model_json_schema(ref_template=_REF)
    schemas |= problem.pop("$defs") | {"Problem": problem}
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)


def _add_processors(schemas: dict[str, Any], processors: Iterable[Processor[Any]]) -> None:
    """Describe `ProcessRequest` as one alternative for each processor, because each has params of its own."""
    request = schemas["ProcessRequest"]
    shape = {key: request.pop(key) for key in ("type", "properties", "additionalProperties")}
    request["anyOf"] = [_request_of(processor, shape) for processor in processors]
    for model in (processor.params for processor in processors):
        schemas[model.__name__] = model.model_json_schema(ref_template=_REF)


def _request_of(processor: Processor[Any], shape: dict[str, Any]) -> dict[str, Any]:
    """The alternative for one processor. Its name may be left out if it is the default."""
    own = {
        "processor": {"type": "string", "const": processor.name},
        "params": {"$ref": _REF.format(model=processor.params.__name__)},
    }
    required = [] if processor.name == shape["properties"]["processor"]["default"] else ["processor"]
    return {**shape, "title": processor.name, "properties": shape["properties"] | own, "required": required}
