"""Which files a worker elsewhere wants to be published, and what it is answered if they cannot be."""

from collections.abc import Sequence

from app.errors import AppError, OutputRejected, ResultInvalid, ValidationFailed
from app.files.names import with_extension
from app.processing.fitting import Misfit
from app.processing.sink import OutputFile, shown_name, stated_metadata
from app.processing.work import Work
from app.processors.base import Permanent
from app.remote.outputs import Staged
from app.remote.schemas import PublishedOutput
from app.web.problems import pointer_to


def to_publish(named: Sequence[PublishedOutput], staged: Sequence[Staged], work: Work) -> list[OutputFile]:
    """The files that are named, as they are to be published. Raises ValidationFailed, OutputRejected."""
    found, files = {each.number: each for each in staged}, list[OutputFile]()
    for index, wanted in enumerate(named):
        each, here = found.pop(wanted.number, None), f"/outputs/{index}"
        if each is None:
            raise invalid(f"{here}/number", "No file was sent under this number, or it is named twice.")
        if not each.is_document:
            if wanted.filename is not None or wanted.metadata is not None:
                raise invalid(here, "Only documents have filenames and metadata.")
            files.append(each.output)
            continue
        try:
            name = shown_name(wanted.filename) if wanted.filename is not None else each.name
            stated = wanted.metadata.model_dump(exclude_unset=True) if wanted.metadata else None
            metadata = stated_metadata(work, stated)
        except Permanent as error:
            raise refusal(error, here) from None
        files.append(OutputFile(each.file, with_extension(name, each.file.content_type), metadata))
    return files


def refusal(error: Permanent, pointer: str = "") -> AppError:
    """What would fail a job for good, as an answer to the worker that may mend it."""
    if isinstance(error, Misfit):
        return ResultInvalid(error.detail, pointer=pointer_to("data", *error.where))
    known = AppError.by_code.get(error.code)
    if known:
        return known(error.detail)
    return OutputRejected(error.detail, pointer=pointer, error={"code": error.code, "detail": error.detail})


def misnamed() -> ValidationFailed:
    """The name of a file, or its Content-Type, is none that it can have."""
    detail = "The name, or the Content-Type, is none that a file of a result can have, or the name is taken."
    return invalid("/query/name", detail)


def invalid(pointer: str, detail: str) -> ValidationFailed:
    """What is wrong with a part of a request."""
    return ValidationFailed(errors=[{"detail": detail, "pointer": pointer}])
