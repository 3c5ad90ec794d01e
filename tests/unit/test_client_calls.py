"""How the client on the command line repeats its calls, and when it gives up."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.client import api as repeated, calls
from app.client.api import Api, Credentials
from app.client.calls import Problem, Stopped
from app.client.files import Found, LocalFile, UploadForm, walk
from tests.support.server import free_port
from tests.support.tcp import listening

OK = b'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 11\r\n\r\n{"items":1}'
LOST = b""
Call = Callable[[Api], Awaitable[object]]


def answer(status: str, *headers: str, body: str = "") -> bytes:
    return "\r\n".join(
        (f"HTTP/1.1 {status}", "Connection: close", f"Content-Length: {len(body)}", *headers, "", body)
    ).encode()


@asynccontextmanager
async def api(*answers: bytes | None, key: str = "k") -> AsyncIterator[Api]:
    """An API that answers with these, one after the other: with none, it hangs up; with None, it says nothing."""
    left = [*answers]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        _, _, length = head.lower().partition(b"content-length: ")
        if length:
            await reader.read(int(length.split()[0]))
        said = left.pop(0)
        if said is None:
            await reader.read()
        writer.write(said or b"")
        writer.close()

    async with listening(serve) as port, Api(f"http://127.0.0.1:{port}", Credentials(api_key=key), 1) as client:
        yield client
    assert not left


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated, "LONGEST_PAUSE", 0.01)


async def test_what_passes_is_waited_for() -> None:
    passing = ("429 Too Many Requests", "503 Service Unavailable", "507 Insufficient Storage", "409 Conflict")
    async with api(
        *(answer(each, "Retry-After: 0") for each in passing), LOST, answer("502 Bad Gateway"), OK
    ) as client:
        assert await client.get("/documents") == {"items": 1}


async def test_an_answer_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "STALLED", 0.2)
    async with api(None, OK) as client:
        assert await client.get("/documents") == {"items": 1}


async def test_a_wait_that_is_too_long_is_not_begun() -> None:
    async with api(answer("429 Too Many Requests", "Retry-After: 3600")) as client:
        with pytest.raises(Stopped, match="3600 seconds"):
            await client.get("/documents")


async def test_one_call_that_is_never_answered_is_given_up() -> None:
    async with api(OK, *[LOST] * repeated.MAX_TRIES) as client:
        await client.get("/documents")
        with pytest.raises(Problem) as problem:
            await client.post("/documents", {}, "key")
        assert problem.value.status == 0


async def test_a_disk_that_stays_full_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated, "PATIENCE", 0.3)
    full = answer("507 Insufficient Storage", body='{"code": "storage-full", "detail": "Full."}')
    with pytest.raises(Stopped, match="storage-full: Full"):
        async with api(*[full] * 1000) as client:
            await client.post("/documents", {}, "key")


async def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated, "FIRST_PATIENCE", 0.05)
    url = f"http://127.0.0.1:{free_port()}"
    async with Api(url, Credentials(api_key="k"), 1) as client:
        with pytest.raises(Stopped, match=url):
            await client.get("/documents")


@pytest.mark.parametrize("other", [answer("307 Temporary Redirect", "Location: /"), answer("200 OK", body="<html>")])
async def test_what_is_not_this_service(other: bytes) -> None:
    async with api(other) as client:
        with pytest.raises(Stopped, match="not how this service answers"):
            await client.get("/documents")


async def test_a_refusal_of_a_proxy() -> None:
    async with api(answer("413 Content Too Large", body="<html>")) as client:
        with pytest.raises(Problem, match=r"^http-413: "):
            await client.post("/documents", {}, "key")


async def test_a_file_that_becomes_shorter_while_it_is_sent(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"a" * 1000)
    [found] = walk(tmp_path, recursive=False, any_name=False)
    assert found == Found(tmp_path / "a.pdf", "a.pdf")
    file = LocalFile.read(found)
    assert not file.has_changed()
    found.path.write_bytes(b"a")
    assert file.has_changed()
    async with api(*[LOST] * repeated.MAX_TRIES) as client:
        with pytest.raises(Problem) as problem:
            await client.post("/documents", UploadForm(file, {}), "key")
        assert problem.value.status == 0


async def test_passwords_for_other_programs_are_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ada password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with api(OK) as client:
        assert await client.get("/documents") == {"items": 1}


async def test_a_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with api(OK) as there:
        monkeypatch.setenv("http_proxy", there.url)
        async with Api("http://documents.example.com", Credentials(api_key="k"), 1) as client:
            assert await client.get("/documents") == {"items": 1}


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    [found] = walk(tmp_path / "none", recursive=True, any_name=False)
    assert found.unreadable == "No such file or directory"
