"""The service, as a user of it: a document, and one job of it after the other."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from app.client.api import Api
from app.client.calls import Problem
from app.client.files import Found, LocalFile, UploadForm


class Service:
    """A document of the account's own at a service. Methods raise Problem and Stopped."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._document_id = self._job_id = ""

    async def reads(self, processor: str) -> list[str]:
        """The types of file that a processor reads; none: there is no such processor."""
        offered = (await self._api.get("/processors"))["items"]
        return next((each["content_types"] for each in offered if each["name"] == processor), [])

    async def upload(self, file: Path) -> str:
        """Make the document, and return its id. Raises OSError."""
        form = UploadForm(LocalFile.read(Found(file, file.name)), {})
        self._document_id = (await self._api.post("/documents", form, uuid4().hex)).content["id"]
        return self._document_id

    async def start(self, processor: str, params: Mapping[str, Any]) -> str:
        """Begin a new job, and return its id. The one before is cancelled if it is not finished."""
        await self.cancel()
        wanted = {"processor": processor, "params": dict(params), "force": True}
        answer = await self._api.post(f"/documents/{self._document_id}/process", wanted, uuid4().hex)
        self._job_id = answer.content["job"]["id"]
        return self._job_id

    async def cancel(self) -> None:
        """Cancel the last job, unless it is finished."""
        if self._job_id:
            with suppress(Problem):
                await self._api.post(f"/jobs/{self._job_id}/cancel", {}, uuid4().hex)

    async def state(self) -> tuple[str, str]:
        """The states of the document, and of its last job."""
        document = await self._api.get(f"/documents/{self._document_id}")
        return document["status"], (await self._api.get(f"/jobs/{self._job_id}"))["state"]
