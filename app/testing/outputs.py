"""What a processor makes, without a service."""

import hashlib
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from uuid_utils.compat import uuid7

from app.files.models import ContentType
from app.processors.base import MadeFile


@dataclass(frozen=True, slots=True)
class Collected:
    """A file, and its bytes. `metadata` is what a document was added with; a file of the result has None."""

    file: MadeFile
    content: bytes
    metadata: Mapping[str, Any] | None


@dataclass
class CollectingOutputs:
    """Outputs that keep in memory what they are given, in that order. They check nothing of it."""

    collected: list[Collected] = field(default_factory=list)

    @property
    def documents(self) -> list[Collected]:
        """Those that would become documents."""
        return [each for each in self.collected if each.metadata is not None]

    async def add(self, name: str, content_type: str, chunks: AsyncIterable[bytes]) -> MadeFile:
        return await self._keep(name, content_type, chunks, None)

    async def add_document(
        self, filename: str, chunks: AsyncIterable[bytes], metadata: Mapping[str, Any] | None = None
    ) -> MadeFile:
        kind = ContentType.DOCX if filename.lower().endswith(".docx") else ContentType.PDF
        return await self._keep(filename, kind, chunks, metadata or {})

    async def _keep(
        self, name: str, content_type: str, chunks: AsyncIterable[bytes], metadata: Mapping[str, Any] | None
    ) -> MadeFile:
        content = b"".join([chunk async for chunk in chunks])
        file = MadeFile(uuid7(), name, content_type, len(content), hashlib.sha256(content).hexdigest())
        self.collected.append(Collected(file, content, metadata))
        return file
