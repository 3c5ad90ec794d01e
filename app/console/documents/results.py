"""Results as pages show them: text as paragraphs, Markdown as what it says, lists of alike objects as tables."""

import re
from asyncio import to_thread
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from app.auth.principal import Principal
from app.console.documents import markdown
from app.console.frame import formats
from app.errors import AppError
from app.processing.answers import Answers
from app.processing.models import ResultFile
from app.processing.plain_text import text_in
from app.processing.results import StoredResult
from app.processing.schemas import Provenance
from app.processing.service import ProcessingService

_BETWEEN = re.compile(r"\n[ \t]*\n\s*|\f")
_WIDEST = 12  # columns
_LONGEST = 200  # characters in a cell
_MOST = 32 * 1024  # bytes of JSON that are shown of a result


class Table(NamedTuple):
    """A list in a result, with a row for each of its objects."""

    name: str
    heads: list[str]
    rows: list[list[str]]


class Shown(NamedTuple):
    """A result: its text, and as what that is shown, its tables, the JSON of the rest of its data, and its files.

    `cut`: of a large one there is only the beginning, either of the text or of the JSON; None: it cannot be read.
    """

    made: Provenance
    size: int
    text: str | None
    paragraphs: list[str]
    blocks: list[markdown.Block]
    tables: list[Table]
    data: str
    files: list[ResultFile]
    cut: bool | None = False


async def of_document(
    processing: ProcessingService, answers: Answers, principal: Principal, document_id: UUID, number: int | None = None
) -> list[Shown]:
    """The last good result of each processor, of the document's current file or of the one that had this number.
    Raises NotFound."""
    found = await processing.whole_results(principal, document_id, number)
    # In a thread: to read Markdown may take a tenth of a second.
    return [await (_beginning(answers, *each) if _is_large(each[0]) else to_thread(_shown, *each)) for each in found]


def _is_large(result: StoredResult) -> bool:
    return result.data is None or len(result.data) > _MOST


def _shown(result: StoredResult, files: list[ResultFile]) -> Shown:
    made, data = result.provenance, orjson.loads(result.data or b"{}")
    text = data.pop("text") if isinstance(data.get("text"), str) else None
    is_markdown = made.params.get("format") == "markdown"
    tables = [_table(name, value) for name, value in data.items() if _is_table(value)]
    rest = {name: value for name, value in data.items() if not _is_table(value)}
    blocks = markdown.blocks(text or "") if is_markdown else []
    paragraphs = [] if is_markdown else _paragraphs(text)
    return Shown(made, result.size, text, paragraphs, blocks, tables, formats.json(rest) if rest else "", files)


async def _beginning(answers: Answers, result: StoredResult, files: list[ResultFile]) -> Shown:
    """A large result, as what it was stored as."""
    try:
        json = await answers.beginning(result, _MOST)
    except AppError:
        return Shown(result.provenance, result.size, None, [], [], [], "", files, cut=None)
    text = text_in(json)
    data = json if text is None else ""
    return Shown(result.provenance, result.size, text, _paragraphs(text), [], [], data, files, cut=True)


def _paragraphs(text: str | None) -> list[str]:
    return [each for each in _BETWEEN.split(text or "") if each.strip()]


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
