"""Uploads the files of a folder, so that it may be done again: what is there already is not uploaded twice."""

import asyncio
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from app.client.api import Api
from app.client.calls import Problem, Stopped
from app.client.files import Found, LocalFile, UploadForm
from app.client.keys import key_of
from app.client.outcomes import FileReport, Outcome
from app.client.watch import Watch

_PAGE = 100  # documents
_EXTENSIONS = {
    "application/pdf": ".pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
}
# What a refusal is about that would be the same for each file.
_OF_ALL = ("/metadata/process", "/metadata/tags", "/processor", "/params")


@dataclass(frozen=True)
class Wanted:
    """What is asked for with each file: its folder and tags, and how to process it; `wait` for that, too.

    `processing` is the body of a process call, or None.
    """

    folder: str
    tags: list[str]
    processing: dict[str, Any] | None
    wait: bool

    def metadata(self, file: LocalFile) -> dict[str, Any]:
        """The metadata of a file. Its folder is that which is asked for, followed by its folders on the disk."""
        folder = "/".join(each for each in (self.folder, file.subfolder) if each)
        given = {"folder": folder, "tags": self.tags, "process": self.processing}
        return {name: value for name, value in given.items() if value}

    @property
    def deletes_original(self) -> bool:
        """Whether a document is deleted when it is processed."""
        return bool(self.processing and self.processing["params"].get("delete_original"))


class Upload:
    """Uploads files, `at_once` at a time, and passes each to `done` when nothing more will be known of it.

    A file is there already if the account has a document of its content, name and folder. What a lost answer or the end
    of this process leaves open is settled by the Idempotency-Key: it is made of the same, and of what is asked for.
    """

    def __init__(self, api: Api, wanted: Wanted, at_once: int, done: Callable[[FileReport], None]) -> None:
        self._api = api
        self._wanted = wanted
        self._at_once = at_once
        self._done = done
        self._watch = Watch(api, done, deleting=wanted.deletes_original)

    async def run(self, files: Iterator[Found]) -> None:
        """Upload the files, and wait for their jobs if that is wanted. Raises Stopped."""
        if "items" not in await self._api.get("/documents", limit=1):
            raise Stopped("GET /documents has no items, which is not how this service answers")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch.run())
                async with asyncio.TaskGroup() as uploads:
                    for _ in range(self._at_once):
                        uploads.create_task(self._work(files))
                self._watch.complete()
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        finally:
            for file in self._watch.pending:
                self._done(file)

    async def _work(self, files: Iterator[Found]) -> None:
        for found in files:
            file = await self._report(found)
            if self._wanted.wait and file.has_unfinished_job:
                self._watch.add(file)
            else:
                self._done(file)

    async def _report(self, found: Found) -> FileReport:
        file = FileReport(found.name, Outcome.FAILED)
        if found.skipped or found.unreadable:
            file.outcome = Outcome.SKIPPED if found.skipped else Outcome.FAILED
            file.detail = found.skipped or found.unreadable
            return file
        try:
            await self._upload(await asyncio.to_thread(LocalFile.read, found), file)
        except OSError as error:
            file.outcome, file.code, file.detail = Outcome.FAILED, "unreadable", error.strerror or str(error)
        except Problem as problem:
            if any(pointer.startswith(_OF_ALL) for pointer in problem.pointers):
                raise Stopped(str(problem)) from None
            file.outcome = Outcome.REFUSED if 400 <= problem.status < 500 else Outcome.FAILED
            file.code, file.detail = problem.code, problem.detail
        return file

    async def _upload(self, local: LocalFile, file: FileReport) -> None:
        """Have the file uploaded and processed. Raises Problem, Stopped."""
        file.sha256 = local.sha256
        metadata = self._wanted.metadata(local)
        document = await self._existing(local, metadata.get("folder", ""))
        if document:
            file.outcome = Outcome.ALREADY_THERE
        else:
            answer = await self._send(local, metadata)
            document = answer.content
            file.outcome = Outcome.ALREADY_THERE if answer.replayed else Outcome.UPLOADED
        file.document_id = document["id"]
        if self._wanted.processing:
            file.set_job(document.get("job") or await self._process(document, self._wanted.processing))

    async def _existing(self, local: LocalFile, folder: str) -> dict[str, Any] | None:
        """The document that the file has become before, if there is one."""
        query: dict[str, str | int] = {"sha256": local.sha256, "limit": _PAGE}
        while True:
            page = await self._api.get("/documents", **query)
            for document in page["items"]:
                extension = _EXTENSIONS.get(document["content_type"], "")
                same = document["status"] != "INITIATED" and _compared(document["folder"] or "") == _compared(folder)
                if same and _compared(document["filename"]) == _compared(_with_extension(local.filename, extension)):
                    found: dict[str, Any] = document
                    return found
            if not page["next_cursor"]:
                return None
            query["cursor"] = page["next_cursor"]

    async def _send(self, local: LocalFile, metadata: dict[str, Any]) -> Any:
        key = key_of("upload", local.sha256, local.name, metadata)
        try:
            answer = await self._api.post("/documents", UploadForm(local, metadata), key)
        except Problem as problem:
            raise (_CHANGED if not problem.status and local.has_changed() else problem) from None
        if answer.content["sha256"] != local.sha256:
            raise _CHANGED
        return answer

    async def _process(self, document: dict[str, Any], processing: dict[str, Any]) -> dict[str, Any]:
        """Return the job of a document that was there before: a new one if its last has failed, or was cancelled.

        The version that was seen is a part of the key: a call that is repeated for want of an answer starts one job
        only, though it may have failed by then, and another run may start one more.
        """
        key = key_of("process", document["id"], document["version"], processing)
        answer = await self._api.post(f"/documents/{document['id']}/process", processing, key)
        job: dict[str, Any] = answer.content["job"]
        return job


_CHANGED = Problem(0, "changed", "it was changed while it was sent")


def _with_extension(name: str, extension: str) -> str:
    """A name as the service keeps it: with the extension of what is in the file."""
    return name if name.lower().endswith(extension) else name + extension


def _compared(text: str) -> str:
    """Text in the form that it is compared in: the service composes characters and drops those without a picture."""
    return "".join(each for each in unicodedata.normalize("NFC", text) if each.isprintable()).strip()


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error in a group of groups."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
