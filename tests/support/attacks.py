"""Somebody who tries to take the service away: `python -m tests.support.attacks NAME URL …`, until it is killed.

In a process of its own, so that it does not slow down whoever measures, and from another address than theirs.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from tests.support.factories import docx_with, pdf

ADDRESS = ("127.0.0.2", 0)
BOUNDARY = "b" * 40


class Attacker:
    """What it needs: where the server is, and for some attacks an account's token and a document of it."""

    def __init__(self, url: str, token: str = "", document_id: str = "") -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 0
        self.token, self.document_id = token, document_id

    def head(self, method: str, path: str, length: int | None = None, kind: str = "application/json") -> bytes:
        lines = [f"{method} {path} HTTP/1.1", "Host: test"]
        lines += [f"Authorization: Bearer {self.token}"] if self.token else []
        lines += [f"Content-Type: {kind}", f"Content-Length: {length}"] if length is not None else []
        return "\r\n".join([*lines, "", ""]).encode()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.host, self.port, local_addr=ADDRESS)

    async def repeat(self, each: Callable[[], Awaitable[None]], times: int) -> None:
        """Do it again and again, `times` at once. Whoever is refused or cut off tries again."""

        async def again() -> None:
            while True:
                try:
                    await each()
                except (OSError, EOFError):
                    await asyncio.sleep(0.05)

        await asyncio.gather(*(again() for _ in range(times)))

    async def send(self, *data: bytes) -> bytes:
        """Send a request on a connection of its own, and read the head of what is answered."""
        reader, writer = await self.connect()
        try:
            for each in data:
                writer.write(each)
                await writer.drain()
            return await reader.readuntil(b"\r\n\r\n")
        finally:
            writer.close()

    async def trickle(self, beginning: bytes, piece: bytes, seconds: float) -> None:
        """Send a beginning, then a piece now and then, until the connection ends."""
        reader, writer = await self.connect()
        try:
            writer.write(beginning)
            while not reader.at_eof():
                await asyncio.sleep(seconds)
                writer.write(piece)
                await writer.drain()
        finally:
            writer.close()

    async def hold(self) -> None:
        """Connections that send blank lines after an answer, and bodies that nobody reads."""
        unread = self.head("POST", "/documents", 5000)
        idle = self.head("GET", "/livez")
        await asyncio.gather(
            self.repeat(lambda: self.trickle(idle, b"\r\n", 1), 150),
            self.repeat(lambda: self.trickle(unread, b"x", 1), 150),
        )

    async def unknown_fields(self) -> None:
        """A megabyte of fields that nobody knows."""
        body = json.dumps(dict.fromkeys(map(str, range(90_000)), 0)).encode()
        await self.repeat(lambda: self._post("/auth/login", body), 4)

    async def few_unknown_fields(self) -> None:
        """As many of them as are read."""
        body = json.dumps(dict.fromkeys(map(str, range(700)), 0)).encode()[:8000]
        await self.repeat(lambda: self._post("/auth/login", body), 4)

    async def logins(self) -> None:
        """Wrong passwords, many at once, whose senders do not wait for the answer."""
        body = json.dumps({"email": "nobody@example.com", "password": "x" * 20}).encode()
        request = self.head("POST", "/auth/login", len(body)) + body

        async def login() -> None:
            _, writer = await self.connect()
            writer.write(request)
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.close()

        await self.repeat(login, 50)

    async def slow_uploads(self) -> None:
        """One account's uploads, as slow as allowed."""
        part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n%PDF-1.7\n'
        beginning = self.head("POST", "/documents", 10_000_000, f"multipart/form-data; boundary={BOUNDARY}")
        await self.repeat(lambda: self.trickle(beginning + part.encode(), b"x" * 1200, 1), 16)

    async def slow_downloads(self) -> None:
        """One account's downloads of a large file, whose reader takes little."""
        request = self.head("GET", f"/documents/{self.document_id}/content")

        async def download() -> None:
            reader, writer = await self.connect()
            try:
                writer.write(request)
                while True:
                    await reader.readexactly(16_384)
                    await asyncio.sleep(0.5)
            finally:
                writer.close()

        await self.repeat(download, 64)

    async def look_alikes(self) -> None:
        """Bodies full of what looks like the boundary."""
        body = b"\r\n--X" * 2_000_000
        part = b'--X1\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n%PDF-1.7\n' + body
        await self.repeat(lambda: self._post("/documents", part, "multipart/form-data; boundary=X1"), 4)

    async def costly_files(self) -> None:
        """Small files that take long to look into."""
        document = docx_with({f"word/media/image{n}.png": bytes(1_600_000) for n in range(9)})
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.docx"\r\n\r\n'.encode()
        body = head + document + f"\r\n--{BOUNDARY}--\r\n".encode()
        await self.repeat(lambda: self._post("/documents", body, f"multipart/form-data; boundary={BOUNDARY}"), 12)

    async def long_jobs(self) -> None:
        """Many documents, and a long job for each."""
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n'.encode()
        body = head + pdf() + f"\r\n--{BOUNDARY}--\r\n".encode()
        work = json.dumps({"params": {"seconds": 60}}).encode()

        async def job() -> None:
            answer = await self.send(
                self.head("POST", "/documents", len(body), f"multipart/form-data; boundary={BOUNDARY}"), body
            )
            location = next(line for line in answer.decode().lower().split("\r\n") if line.startswith("location: "))
            await self._post(f"{location.removeprefix('location: ')}/process", work)

        await self.repeat(job, 8)

    async def announcements(self) -> None:
        """Uploads that are announced, and never come."""
        body = json.dumps({"filename": "a.pdf", "content_type": "application/pdf", "size": 9}).encode()
        await self.repeat(lambda: self._post("/documents/initiate-upload", body), 8)

    async def lists(self) -> None:
        """As many calls as fit."""
        await self.repeat(lambda: self._get("/documents?limit=100"), 8)

    async def _get(self, path: str) -> None:
        await self.send(self.head("GET", path))

    async def _post(self, path: str, body: bytes, kind: str = "application/json") -> None:
        await self.send(self.head("POST", path, len(body), kind), body)


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    asyncio.run(getattr(Attacker(*rest), name)())
