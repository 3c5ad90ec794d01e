"""Makes PDF of DOCX, by a service that speaks Gotenberg's form."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import PurePosixPath
from typing import Any, Literal

import aiohttp
from aiohttp.abc import AbstractResolver
from pydantic import BaseModel, Field
from typing_extensions import TypeAliasType

from app.processors.base import MadeDocument, MakingParams, Outputs, Permanent, Report, Source, Transient

_ROUTE = "/forms/libreoffice/convert"
_TO_CONNECT = 10.0  # seconds, the look-up of the name included
_OF_THE_TIME = 0.9  # that an attempt may take: what is late is told as such, not as an attempt that was ended
_REFUSALS = {400, 413, 415, 422}  # what else is answered is for the operator to mend, not for the document's owner
_PAGES = r"[1-9]\d{0,4}(-[1-9]\d{0,4})?"

ArchivalPdf = TypeAliasType("ArchivalPdf", Literal["PDF/A-1b", "PDF/A-2b", "PDF/A-3b"])


class ConvertParams(MakingParams):
    """Which pages, and which kind of PDF."""

    pages: str | None = Field(
        None,
        pattern=rf"^{_PAGES}(,{_PAGES})*$",
        max_length=200,
        description="Their numbers, counted from 1, such as `1-3,7`. Left out: all.",
    )
    pdfa: ArchivalPdf | None = Field(None, description="A PDF for archives (ISO 19005). Left out: a usual one.")


class ConvertResult(BaseModel):
    """The document that was made."""

    children: list[MadeDocument] = Field(description="One.")


class ConvertProcessor:
    """Data: a ConvertResult.

    Raises Transient `conversion-unavailable` if the service cannot be reached, is busy, or breaks off; Permanent
    `conversion-refused` if it refuses the document or the params; and what Outputs raise. `seconds`: how long an
    attempt may take. `resolver` makes what looks the name of the service up.
    """

    name = "convert"
    version = "1"
    description = "Makes a PDF document of a DOCX."
    content_types = ("application/vnd.openxmlformats-officedocument.wordprocessingml.document",)
    at_once = 4
    params = ConvertParams
    result = ConvertResult

    def __init__(
        self, url: str, *, resolver: Callable[[], AbstractResolver] = aiohttp.DefaultResolver, seconds: float = 600
    ) -> None:
        self._url = url + _ROUTE
        self._resolver = resolver
        self._seconds = seconds * _OF_THE_TIME

    async def run(self, source: Source, params: ConvertParams, report: Report, outputs: Outputs) -> dict[str, Any]:
        name = f"{PurePosixPath(source.filename).stem}.pdf"
        trace = {"Gotenberg-Trace": str(source.job_id)}
        with _form(source, params) as form:
            async with self._session() as session:
                with _outages():
                    answer = await session.post(self._url, data=form, headers=trace, allow_redirects=False)
                with closing(answer):
                    _check(answer)
                    made = await outputs.add_document(name, _chunks(answer.content))
        return {"children": [MadeDocument.of(made)]}

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=self._resolver()),
            timeout=aiohttp.ClientTimeout(total=self._seconds, connect=_TO_CONNECT),
            headers={"Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )


@contextmanager
def _form(source: Source, params: ConvertParams) -> Iterator[aiohttp.FormData]:
    """The form, which is read from the file as it is sent. The service need not know what its owner calls it."""
    fields = {"nativePageRanges": params.pages, "pdfa": params.pdfa}
    with source.path.open("rb") as document:
        form = aiohttp.FormData({name: value for name, value in fields.items() if value})
        form.add_field("files", document, filename="document.docx", content_type=source.content_type)
        yield form


def _check(answer: aiohttp.ClientResponse) -> None:
    """Raise Permanent or Transient unless it is a PDF that follows."""
    if answer.status in _REFUSALS:
        detail = f"The conversion service refuses the document, or the params ({answer.status})."
        raise Permanent("conversion-refused", detail)
    if answer.status != 200:
        raise _unavailable(f"answered {answer.status}")
    if answer.content_type != "application/pdf":  # a page of a proxy, for instance
        raise _unavailable("answered with what is no PDF")


async def _chunks(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield the body. What is raised where the chunks go is not taken for an outage."""
    while True:
        with _outages():
            chunk = await content.readany()
        if not chunk:
            return
        yield chunk


@contextmanager
def _outages() -> Iterator[None]:
    """Turn an error of the connection into Transient. Its own text may name the URL."""
    try:
        yield
    except TimeoutError:
        raise _unavailable("gave no complete answer in time") from None
    except aiohttp.ClientConnectorDNSError:
        raise _unavailable("cannot be reached: its name cannot be resolved") from None
    except (aiohttp.ClientSSLError, aiohttp.ClientConnectorCertificateError):
        raise _unavailable("cannot be reached: TLS could not be established") from None
    except aiohttp.ClientConnectorError as error:
        raise _unavailable(f"cannot be reached: {os.strerror(error.errno or 0)}") from None
    except (aiohttp.ClientError, OSError):
        raise _unavailable("broke off before its answer was complete") from None


def _unavailable(what: str) -> Transient:
    return Transient("conversion-unavailable", f"The conversion service {what}.")
