"""/: what this is, for whoever comes by with a browser."""

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse
from jinja2 import Template

from app.telemetry import context
from app.web import pages


def install(app: FastAPI, public_url: str, *, has_console: bool) -> None:
    """Serve the page. `public_url` is where clients reach the service, if that is known."""
    body = Template(Path(__file__).with_suffix(".html").read_text(), autoescape=True, trim_blocks=True)

    @app.get("/", include_in_schema=False)
    async def front(request: Request) -> HTMLResponse:
        root, url = context.prefix.get(), (public_url or str(request.base_url)).rstrip("/")
        return pages.page(root, app.title, body.render(root=root, url=url, has_console=has_console))
