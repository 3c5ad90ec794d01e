"""/docs: Swagger UI, without any other host."""

from functools import cache
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles

from app.web import policy

ASSETS = "/static-offline-docs"
_FILES = Path(fastapi_offline.__file__).parent / "static"
STYLE = Path(__file__).with_name("swagger.css")
SOURCES = {"script": "'self'", "style": "'self'", "connect": "'self'", "img": "'self' data:"}
CACHED = {"Cache-Control": "public, max-age=86400"}


class Assets(StaticFiles):
    """Files that a browser may keep for a day."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers.update(CACHED)
        return response


def install(app: FastAPI) -> None:
    """Serve the page and its files."""
    app.mount(ASSETS, Assets(directory=_FILES))

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> FileResponse:
        return FileResponse(_FILES / "favicon.png", headers=CACHED)

    @cache
    def page(root: str) -> tuple[str, dict[str, str]]:
        html = get_swagger_ui_html(
            title=app.title,
            openapi_url=f"{root}{app.openapi_url}",
            swagger_js_url=f"{root}{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{root}{ASSETS}/favicon.png",
            swagger_ui_parameters={"persistAuthorization": True, "defaultModelsExpandDepth": 0},
        )
        text = bytes(html.body).decode().replace("</head>", f"<style>{STYLE.read_text()}</style></head>")
        return text, {"Content-Security-Policy": policy.of_page(text, **SOURCES)}

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        text, headers = page(request.scope.get("root_path", ""))
        return HTMLResponse(text, headers=headers)
