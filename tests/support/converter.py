"""A conversion service that speaks Gotenberg's form, and does what the document says."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from aiohttp import BodyPartReader, MultipartReader, web

from tests.support.factories import MAIN, PDF_TYPE, pdf
from tests.support.stranger import serving

SOFFICE = shutil.which("soffice")
HUGE = 3_000_000  # bytes


def missing() -> str | None:
    """Why the conversion cannot be tried with LibreOffice here, or None if it can."""
    return None if SOFFICE else "there is no soffice"


@dataclass(frozen=True)
class Form:
    """A form that was sent: its headers, the fields beside the file, the file's name, type and size."""

    headers: dict[str, str]
    fields: dict[str, str]
    filename: str
    content_type: str
    size: int


@dataclass
class Converter:
    """Answers with a PDF of one page, which says what the document says. A document that is the name of a fault is
    answered with that; with `busy` times 503 before. With `soffice`, LibreOffice makes the PDF."""

    busy: int = 0
    soffice: bool = False
    forms: list[Form] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path != "/forms/libreoffice/convert":
            return web.Response(status=404, text="Not Found")
        form, content = await _read(request)
        self.forms.append(form)
        if not form.filename.endswith(".docx"):
            return web.Response(status=400, text="Invalid form data: no form file found for extensions: [.docx]")
        if self.busy:
            self.busy -= 1
            return web.Response(status=503, text="Service Unavailable", headers={"Retry-After": "1"})
        said = _text(content)
        if fault := FAULTS.get(said):
            return await fault(request)
        made = await asyncio.to_thread(_by_libreoffice, content) if self.soffice else pdf(said)
        return web.Response(body=made, content_type=PDF_TYPE)


async def _read(request: web.Request) -> tuple[Form, bytes]:
    """The form, and the file in it. Fails unless it is one."""
    fields, files = dict[str, str](), list[tuple[str, str, bytes]]()
    async for part in MultipartReader(request.headers, request.content):
        assert isinstance(part, BodyPartReader)
        content = bytes(await part.read())
        if part.name == "files":
            files.append((part.filename or "", part.headers["Content-Type"], content))
        else:
            fields[part.name or ""] = content.decode()
    [(filename, content_type, content)] = files
    return Form(dict(request.headers), fields, filename, content_type, len(content)), content


def _text(content: bytes) -> str:
    with ZipFile(BytesIO(content)) as archive:
        return "".join(re.findall("<w:t>(.*?)</w:t>", archive.read(MAIN).decode()))


def _by_libreoffice(content: bytes) -> bytes:
    assert SOFFICE is not None
    with TemporaryDirectory() as folder:
        Path(folder, "document.docx").write_bytes(content)
        profile = f"-env:UserInstallation=file://{folder}/profile"
        command = [SOFFICE, profile, "--headless", "--convert-to", "pdf", "--outdir", folder, f"{folder}/document.docx"]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        return Path(folder, "document.pdf").read_bytes()


async def _hang(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def _cut_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": PDF_TYPE, "Content-Length": "5000"})
    await response.prepare(request)
    await response.write(pdf("half")[:300])
    assert request.transport is not None
    request.transport.close()
    return response


async def _stall(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": PDF_TYPE, "Content-Length": "5000"})
    await response.prepare(request)
    await response.write(pdf("half")[:300])
    return await _hang(request)


async def _huge(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": PDF_TYPE})
    response.enable_chunked_encoding()
    await response.prepare(request)
    for _ in range(HUGE // 10_000):
        await response.write(b"%PDF-1.7\n" + b" " * 9991)
    return response


def _answer(status: int, content_type: str = "text/plain", **headers: str):
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=b"no", content_type=content_type, headers=headers)

    return answer


FAULTS = {
    "hangs": _hang,
    "stalls": _stall,
    "is cut off": _cut_off,
    "is huge": _huge,
    "is refused": _answer(400),
    "cannot be converted": _answer(422),
    "is too much": _answer(429),
    "breaks it": _answer(500),
    "is for somebody else": _answer(401),
    "is elsewhere": _answer(307, Location="http://127.0.0.1:1/"),
    "is a page": _answer(200, "text/html"),
    "is no PDF": _answer(200, PDF_TYPE),
}


@contextmanager
def converting(port: int = 0, *, busy: int = 0, soffice: bool = False) -> Iterator[Converter]:
    converter = Converter(busy=busy, soffice=soffice)
    with serving(converter.answer, port) as url:
        converter.url = url
        yield converter
