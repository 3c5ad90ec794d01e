"""Pages that anybody may see, each complete in one file."""

from functools import cache
from html import escape
from pathlib import Path

from fastapi.responses import HTMLResponse

from app.web import policy

STYLE = Path(__file__).with_name("style.css")
"""How all pages of the service look, the console's too."""

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style>{style}</style>
<header class="top"><a class="brand" href="{root}/">Document Lifecycle API</a>
<nav aria-label="Main"><ul>{links}</ul></nav></header>
<main class="article">
<h1>{title}</h1>
{body}
</main>
</html>"""
_LINKS = {"/docs": "API reference", "/problems": "Problems"}


def page(root: str, title: str, body: str) -> HTMLResponse:
    """A page with this title and body, which is HTML. `root` is the path that the service is at, without a slash."""
    links = "".join(f'<li><a href="{root}{path}">{name}</a></li>' for path, name in _LINKS.items())
    text = _PAGE.format(title=escape(title), style=_style(), root=escape(root), links=links, body=body)
    return HTMLResponse(text, headers={"Content-Security-Policy": _policy()})


@cache
def _style() -> str:
    return STYLE.read_text()


@cache
def _policy() -> str:
    return policy.of_page(f"<style>{_style()}</style>")
