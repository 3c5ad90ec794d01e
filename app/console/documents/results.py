"""Results as pages show them: text as paragraphs, Markdown as what it says, lists of alike objects as tables."""

import re
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from app.auth.principal import Principal
from app.console.documents import markdown
from app.processing.models import ResultFile
from app.processing.results import StoredResult
from app.processing.schemas import Provenance
from app.processing.service import ProcessingService

_BETWEEN = re.compile(r"\n[ \t]*\n\s*|\f")
_WIDEST = 12  # columns
_LONGEST = 200  # characters in a cell


class Table(NamedTuple):
    """A list in a result, with a row for each of its objects."""

    name: str
    heads: list[str]
    rows: list[list[str]]


class Shown(NamedTuple):
    """A result: its text, and as what that is shown, its tables, the rest of its data, and its files.

    Neither text nor data: it is too large for a page.
    """

    made: Provenance
    size: int
    text: str | None
    paragraphs: list[str]
    blocks: list[markdown.Block]
    tables: list[Table]
    data: dict[str, Any] | None
    files: list[ResultFile]


async def of_document(
    processing: ProcessingService, principal: Principal, document_id: UUID, number: int | None = None
) -> list[Shown]:
    """The last good result of each processor, of the document's current file or of the one that had this number.
    Raises NotFound."""
    found = await processing.results(principal, document_id, number)
    return [
        _shown(each, await processing.files(principal, document_id, each.provenance.processor, number))
        for each in found
    ]


def _shown(result: StoredResult, files: list[ResultFile]) -> Shown:
    made, data = result.provenance, orjson.loads(result.data) if result.data else None
    text = data.pop("text") if data and isinstance(data.get("text"), str) else None
    is_markdown = made.params.get("format") == "markdown"
    tables = [_table(name, value) for name, value in (data or {}).items() if _is_table(value)]
    rest = None if data is None else {name: value for name, value in data.items() if not _is_table(value)}
    paragraphs = [] if is_markdown else [each for each in _BETWEEN.split(text or "") if each.strip()]
    blocks = markdown.blocks(text or "") if is_markdown else []
    return Shown(made, result.size, text, paragraphs, blocks, tables, rest, files)


def _is_table(value: Any) -> bool:
    """Whether it is a list of objects, few of whose values are more than a word or a number."""
    if not isinstance(value, list) or not value or not all(isinstance(each, dict) and each for each in value):
        return False
    heads = {name for each in value for name in each}
    nested = [cell for each in value for cell in each.values() if isinstance(cell, dict | list)]
    return len(heads) <= _WIDEST and all(len(orjson.dumps(cell)) <= _LONGEST for cell in nested)


def _table(name: str, value: list[dict[str, Any]]) -> Table:
    heads = list(dict.fromkeys(name for each in value for name in each))
    return Table(name, heads, [[_cell(each.get(head)) for head in heads] for each in value])


def _cell(value: Any) -> str:
    """A value in a table: what there is not is left empty."""
    said = "" if value is None else value if isinstance(value, str) else orjson.dumps(value).decode()
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"
