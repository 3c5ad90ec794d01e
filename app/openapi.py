"""The API's description of itself."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.problems import Problem

DESCRIPTION: dict[str, Any] = {
    "title": "Document Lifecycle API",
    "version": "1.0.0",
    "summary": "Takes in PDF and DOCX files, knows where each one stands, and never loses or doubles the work on them.",
    "description": (
        "Register, log in, upload a document, have it processed, fetch the result. Every error is an RFC 9457 problem "
        "whose `type` is a page of its own: see [/problems](/problems)."
    ),
    "openapi_tags": [
        {"name": "auth", "description": "Accounts and tokens."},
        {"name": "documents", "description": "Files and what is known of them."},
        {"name": "processing", "description": "Jobs and results."},
        {"name": "health", "description": "For load balancers and monitoring."},
    ],
}


def install(app: FastAPI) -> None:
    """Add what FastAPI cannot know: the problem schema, and request ids on every answer."""

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(
                get_openapi(
                    title=app.title,
                    version=app.version,
                    summary=app.summary,
                    description=app.description,
                    tags=app.openapi_tags,
                    routes=app.routes,
                )
            )
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]


def _completed(schema: dict[str, Any]) -> dict[str, Any]:
    template = "#/components/schemas/{model}"
    problem = Problem.model_json_schema(ref_template=template)
    schemas = schema["components"]["schemas"]
    schemas |= problem.pop("$defs") | {"Problem": problem}
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return schema
