"""Reads one document and prints its text, in a `ConfinedChild`: parsers crash, hang, use memory and can be exploited.

The document is standard input. Output is JSON lines: `{"progress": 0.5}` now and then, `{"text"}` for each piece of the
text, and `{"result": {…}}` of the model `Extract`, or `{"error": code}` at the end.
"""

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from app.processors.sandbox.output import emit
from app.processors.text.output import LIBXML2_NO_MEMORY

PDFIUM_PASSWORD, PDFIUM_SECURITY = 4, 5  # FPDF_ERR_PASSWORD, FPDF_ERR_SECURITY
_CODES = {PDFIUM_PASSWORD: "password-protected", PDFIUM_SECURITY: "unsupported-encryption"}


def main(task: Mapping[str, Any]) -> None:
    """Print the result of the task `{"content_type", "format", "characters", "pages"}`, the last only of a PDF."""
    kind = "pdf" if task["content_type"] == "application/pdf" else "docx"
    limits = (task["characters"], task["pages"])[: 2 if kind == "pdf" else 1]
    try:
        reader = import_module(f"app.processors.text.{kind}{'_markdown' if task['format'] == 'markdown' else ''}")
        emit({"result": reader.read(sys.stdin.buffer, *limits)})
    except ImportError:  # the installation is broken, not the document
        raise
    except Exception as error:  # noqa: BLE001 - parsers raise anything
        emit({"error": code_of(error)})


def code_of(error: Exception) -> str:
    """Return the code, known to the parent, for a parser's error."""
    if isinstance(error, MemoryError) or getattr(error, "code", None) == LIBXML2_NO_MEMORY:
        return "out-of-memory"
    return _CODES.get(getattr(error, "err_code", 0), "malformed-document")
