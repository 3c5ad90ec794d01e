"""Documents for processors to work on, without a service."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uuid_utils.compat import uuid7

from app.files.models import ContentType
from app.processors.base import Source


def source(
    path: Path,
    *,
    content_type: str | None = None,
    attempt: int = 1,
    metadata: Mapping[str, Any] | None = None,
    results: Mapping[str, dict[str, Any]] | None = None,
) -> Source:
    """Return the source of a file. `results` are those of other processors, by their names.

    Without a content type, the file is a DOCX if its name ends so, else a PDF.
    """
    content = path.read_bytes()

    async def find_result(processor: str) -> dict[str, Any] | None:
        return (results or {}).get(processor)

    return Source(
        path,
        content_type or (ContentType.DOCX if path.suffix.lower() == ".docx" else ContentType.PDF),
        len(content),
        hashlib.sha256(content).hexdigest(),
        attempt,
        document_id=uuid7(),
        owner_id=uuid7(),
        job_id=uuid7(),
        filename=path.name,
        metadata={"description": None, "folder": None, "tags": [], **(metadata or {})},
        find_result=find_result,
    )
