"""Requests to hosts that users name: where they may go, and what a hostile host can do to them."""

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import ip_address
from pathlib import Path
from time import monotonic
from typing import Any
from unittest.mock import patch

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from app.errors import TooBusy, UrlNotAllowed
from app.outbound import MAX_ANSWER, MAX_INTERIM, MAX_TEXT, Answer, Outbound, OutboundFailed, urls
from app.outbound.addresses import Addresses
from app.settings import Settings
from tests.support.certificates import Authority
from tests.support.tcp import listening

PRODUCTION: dict[str, Any] = {"environment": "production", "webhook_https_only": False}
PRODUCTION |= {"jwt_secret": "s" * 32, "audit_key": "a" * 32}
OK = b"HTTP/1.1 200 OK\r\n"

# The last two lines are public to `is_global` of Python 3.11.7.
NOT_PUBLIC = """
    127.0.0.1 127.255.255.254 0.0.0.0 10.1.2.3 172.16.0.1 192.168.0.1 169.254.169.254 100.64.0.1 100.100.100.200
    198.18.0.1 192.0.2.1 240.0.0.1 255.255.255.255 168.63.129.16
    ::1 :: fe80::1 fc00::1 fd00:ec2::254 100::1 2001:db8::1 2001::1
    224.0.0.1 239.255.255.255 192.0.0.9 192.88.99.1 ff02::1 ff0e::1
    ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::127.0.0.1 64:ff9b::7f00:1 64:ff9b:1::1 2002:7f00:1:: 3fff::1 5f00::1 fec0::1
"""
PUBLIC = "8.8.8.8 1.1.1.1 193.0.6.139 2606:4700::1111 2a00:1450:4001::200e"

REFUSED = """
    ftp://a.example/ file:///etc/passwd gopher://a.example a.example //a.example http: http:// http:/// javascript:1
    http://user@a.example/ http://user:password@a.example/ http://a.example@127.0.0.1/ http://@a.example
    http://a.example\\@127.0.0.1/ http://127.0.0.1\\@a.example/ http://a.example/# http://a.example#@127.0.0.1/
    http://a.example:22/ http://a.example:0/ http://a.example:65536/ http://a.example:80:80/ http://a.example:-1
    http://127.0.0.1/ http://127.1/ http://127.0.1/ http://0x7f.1/ http://0x7F000001/ http://2130706433/
    http://017700000001/ http://0177.0.0.1/ http://127.0.0.1./ http://127.0.0.1.. http://0/ http://1.2.3.4.5/
    http://256.1.1.1/ http://0x/ http://[::1]/ http://[::]/ http://[::ffff:127.0.0.1]/ http://[::ffff:7f00:1]/
    http://[0:0:0:0:0:0:0:1]/ http://[::1%25lo]/ http://[fe80::1%eth0]/ http://[127.0.0.1]/ http://::1/ http://[::1/
    http://[v1.a]/ http://[]/ http://\uff11\uff12\uff17.\uff10.\uff10.\uff11/ http://\u2460\u2461\u2466.0.0.1/
    http://127\u30020\u30020\u30021/ http://\u24dbocalhost/ http://b\xfccher.example/ http://a.exa\xadmple/
    http://127.0.0.1%2f/ http://%31%32%37.0.0.1/ http://a%2eexample/ http://a.example%00.test/ http://localhost/
    http://LOCALHOST:8080/ http://localhost./ http://a.localhost/ http://printer.local/ http://db/
    http://metadata.google.internal/ http://a..example/ http://.a.example/ http://a.example,127.0.0.1/
"""
WITH_BLANKS = [
    "http://a.example/ b",
    "http://a.example/\n",
    " http://a.example",
    "http://a.example/\0",
    "",
    "http://a b/",
]
TAKEN = """
    http://a.example https://a.example/ HTTPS://A.Example:443/hook?key=value&b=%20 http://a.example:8080?x http://8.8.8.8/
    https://[2606:4700::1111]:8443/ https://xn--bcher-kva.example/ http://a.example./ http://a_b.example:1024/a/../b;c~!$()
"""
SPELLINGS = "127.0.0.1 127.1 2130706433 0x7f.1 localhost LOCALHOST. [::1] [::ffff:127.0.0.1] [::] 0.0.0.0"


class Names(AbstractResolver):
    """A resolver that answers each time with the next of some lists of addresses."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(hostname=host, host=each, port=port, family=socket.AF_INET, proto=0, flags=0)
            for each in found.split()
        ]

    async def close(self) -> None:
        pass


class Receiver:
    """A server on loopback that answers as it is told, and keeps what it was sent."""

    def __init__(self) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self.answer: Callable[[asyncio.StreamWriter], Awaitable[None]] = self.say(OK + b"Content-Length: 0\r\n\r\n")
        self.port = 0
        self.gone = asyncio.Event()

    @staticmethod
    def say(*parts: bytes, then: float = 0) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
        """Answer with the parts, and wait for `then` seconds before each but the first, and before closing."""

        async def answer(writer: asyncio.StreamWriter) -> None:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(then)

        return answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")]
            self.requests.append(head + await reader.readexactly(int(length[0][16:]) if length else 0))
            await self.answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            writer.close()


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with listening(receiver.serve, tls) as receiver.port:
        yield receiver


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


def settings(**options: Any) -> Settings:
    return Settings(_env_file=None, **{"webhook_timeout": 5, **options})


@asynccontextmanager
async def outbound(
    resolver: AbstractResolver | None = None, tls: Any = None, **options: Any
) -> AsyncIterator[Outbound]:
    outbound = Outbound(settings(**options), resolver=resolver, tls=tls)
    try:
        yield outbound
    finally:
        await outbound.close()


async def post(receiver: Receiver, path: str = "/", **options: Any) -> Answer:
    async with outbound(**options) as out:
        return await out.post(f"http://127.0.0.1:{receiver.port}{path}", b"{}", {"Content-Type": "application/json"})


async def failure(receiver: Receiver, **options: Any) -> str:
    with pytest.raises(OutboundFailed) as failed:
        await post(receiver, **options)
    return failed.value.code


def refused(urls: Iterable[str], **options: Any) -> list[str]:
    out, found = Outbound(settings(**options)), []
    for url in urls:
        try:
            out.check(url)
        except UrlNotAllowed:
            found.append(url)
    return found


def test_which_urls_are_taken() -> None:
    wrong = [*REFUSED.split(), *WITH_BLANKS]
    assert refused(wrong, **PRODUCTION) == wrong
    assert refused(TAKEN.split(), **PRODUCTION) == []
    longest = "http://a.example/".ljust(urls.MAX_URL, "x")
    assert refused([longest, longest + "x"], **PRODUCTION) == [longest + "x"]


def test_what_settings_allow() -> None:
    private, public = ["http://10.0.0.1/", "http://[fd00::1]/", "http://hooks.internal/"], "http://a.example/"
    loopback = ["http://127.0.0.1:8000/", "http://localhost:8000/", "http://[::1]:8000/"]
    assert refused([*loopback, public, *private[:2]]) == private[:2]
    https = PRODUCTION | {"webhook_https_only": None}
    assert refused([public, public.replace("http", "https")], **https) == [public]
    allowed = PRODUCTION | {"webhook_allow_nets": "10.0.0.0/8, fd00::/8"}
    assert refused([*private, loopback[0]], **allowed) == [loopback[0]]


def test_which_addresses_are_public() -> None:
    none = Addresses([])
    assert [each for each in NOT_PUBLIC.split() if none.allow(ip_address(each))] == []
    assert [each for each in PUBLIC.split() if not none.allow(ip_address(each))] == []


async def test_no_connection_is_made_to_an_address_that_is_not_public(receiver: Receiver) -> None:
    for address in (*NOT_PUBLIC.split(), "fe80::1%lo", "10.0.0.1 127.0.0.1", "::1 127.0.0.1"):
        async with outbound(Names(address), **PRODUCTION) as out:
            with pytest.raises(OutboundFailed) as failed:
                await out.post(f"http://a.example:{receiver.port}/", b"", {})
        assert failed.value.code == "address-not-allowed", address
        assert not set(address.split()) & set(failed.value.detail.split())
    assert receiver.connections == 0


async def test_the_guard_at_the_connection_is_enough(receiver: Receiver) -> None:
    """Whatever the check of a URL lets through, in whatever spelling."""
    with patch.object(urls, "check"):
        async with outbound(**PRODUCTION) as out:
            for host in SPELLINGS.split():
                with pytest.raises(OutboundFailed):
                    await out.post(f"http://{host}:{receiver.port}/", b"", {})
    assert receiver.connections == 0


async def test_a_name_that_changes_its_mind_is_not_followed(receiver: Receiver) -> None:
    """A look-up before the request, as of a URL that is checked when it is stored, proves nothing."""
    names = Names("8.8.8.8", "127.0.0.1")
    async with outbound(names, **PRODUCTION) as out:
        assert (await names.resolve("a.example"))[0]["host"] == "8.8.8.8"
        for _ in range(2):
            with pytest.raises(OutboundFailed, match="address-not-allowed"):
                await out.post(f"http://a.example:{receiver.port}/", b"", {})
    assert receiver.connections == 0


async def test_a_request_as_it_is_sent(receiver: Receiver) -> None:
    receiver.answer = receiver.say(OK + b"Set-Cookie: a=b\r\nContent-Length: 4\r\n\r\nfine")
    environment = {"HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1", "NETRC": "/dev/null"}
    with patch.dict("os.environ", environment):
        async with outbound() as out:
            for _ in range(2):
                url = f"http://127.0.0.1:{receiver.port}/a%2Fb/../c?d=%41"
                assert await out.post(url, b'{"a":1}', {"webhook-id": "1"}) == Answer(200, None, "fine")
    assert receiver.connections == 2
    assert receiver.requests[0] == receiver.requests[1]
    head, _, body = receiver.requests[0].partition(b"\r\n\r\n")
    assert body == b'{"a":1}'
    lines = head.decode().lower().split("\r\n")
    assert lines[0] == "post /a%2fb/../c?d=%41 http/1.1"
    assert {"webhook-id: 1", "user-agent: document-api", "accept-encoding: identity"} <= set(lines)
    assert not [line for line in lines if line.startswith(("cookie", "authorization"))]


async def test_a_redirect_is_an_answer(receiver: Receiver) -> None:
    receiver.answer = receiver.say(b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n")
    assert (await post(receiver)).status == 307
    assert receiver.connections == 1


async def test_answers_are_read_up_to_a_limit(receiver: Receiver) -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(OK + b"\r\n")
        while True:
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()

    receiver.answer = endless
    assert await post(receiver) == Answer(200, None, "x" * MAX_TEXT)
    await asyncio.wait_for(receiver.gone.wait(), 5)
    assert sent < MAX_ANSWER + 16 * 1024**2, "what the kernel's buffers hold"


@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]
)
async def test_answers_before_the_final_one_are_few(receiver: Receiver, interim: bytes) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(interim * 100)
            await writer.drain()

    receiver.answer = receiver.say(interim * MAX_INTERIM + OK + b"Content-Length: 0\r\n\r\n")
    assert (await post(receiver)).status == 200
    receiver.answer = endless
    began = monotonic()
    with pytest.raises(OutboundFailed, match="connection-lost"):
        await post(receiver)
    assert monotonic() - began < 1
    await asyncio.wait_for(receiver.gone.wait(), 5)


async def test_what_is_compressed_stays_so(receiver: Receiver) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    receiver.answer = receiver.say(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb), bomb)
    assert await post(receiver) == Answer(200, None, "")


async def test_an_answer_is_kept_as_text(receiver: Receiver) -> None:
    body = "é\x00\x1b[31m\n\ud800".encode("utf-8", "surrogatepass") + b"\xff"
    receiver.answer = receiver.say(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert (await post(receiver)).text == "é[31m\n" + "\ufffd" * 4


async def test_retry_after(receiver: Receiver) -> None:
    in_an_hour = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    past, never = "Mon, 01 Jan 2024 00:00:00 GMT", "Mon, 99 Jan 9999 99:99:99 GMT"
    too_late = f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT"
    asked = {"120": 120, past: 0, "9" * 500: 9_999_999_999, "-1": None, "soon": None, never: None, "\xb2": None}
    asked |= {too_late: None}
    for value, seconds in asked.items():
        head = f"HTTP/1.1 503 Later\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n"
        receiver.answer = receiver.say(head.encode("latin-1"))
        assert await post(receiver) == Answer(503, seconds, "")
    receiver.answer = receiver.say(f"HTTP/1.1 429 Later\r\nRetry-After: {in_an_hour}\r\n\r\n".encode())
    assert 3000 < ((await post(receiver)).retry_after or 0) <= 3600
    receiver.answer = receiver.say(OK + b"Retry-After: 120\r\nContent-Length: 0\r\n\r\n")
    assert await post(receiver) == Answer(200, None, "")


@pytest.mark.parametrize(
    ("parts", "then", "code"),
    [
        ([], 9, "timeout"),
        ([OK + b"Content-Length: 9\r\n\r\n", *[b"x"] * 8], 0.1, "timeout"),
        ([OK + b"X: ", *[b"x"] * 9], 0.1, "timeout"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"] * 9, 0.1, "timeout"),
        ([], 0, "connection-lost"),
        ([OK + b"Content-Length: 9\r\n\r\nx"], 0, "connection-lost"),
        ([b"SSH-2.0-OpenSSH\r\n\r\n"], 0, "not-http"),
        ([OK + b"X: " + b"x" * 100_000 + b"\r\n\r\n"], 0, "not-http"),
        ([OK + b"X: x\r\n" * 100_000 + b"\r\n"], 0, "not-http"),
    ],
)
async def test_answers_that_are_none(receiver: Receiver, parts: list[bytes], then: float, code: str) -> None:
    receiver.answer = receiver.say(*parts or [b""], then=then)
    began = monotonic()
    assert await failure(receiver, webhook_timeout=0.4) == code
    assert monotonic() - began < 3


async def test_hosts_that_are_not_there(receiver: Receiver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        receiver.port = unused.getsockname()[1]
    with pytest.raises(OutboundFailed) as failed:
        await post(receiver)
    assert (failed.value.code, failed.value.detail) == ("not-connected", "There was no connection: Connection refused.")
    with patch.object(socket, "getaddrinfo", side_effect=socket.gaierror("unknown")):
        async with outbound() as out:
            with pytest.raises(OutboundFailed, match="name-not-found"):
                await out.post("http://a.example/?secret", b"", {})


async def test_a_name_server_that_does_not_answer_holds_nothing_up(receiver: Receiver) -> None:
    """Those who name hosts of it fill what there is, and nobody else's wait counts as a failure of theirs."""
    loop, answered = asyncio.get_running_loop(), asyncio.Event()

    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        if host == "a.example":
            asyncio.run_coroutine_threadsafe(answered.wait(), loop).result()
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]

    async def outcomes(out: Outbound, *owners: str) -> set[str]:
        posts = [out.post("http://a.example/", b"", {}, owner) for owner in owners]
        return {str(getattr(each, "code", each)) for each in await asyncio.gather(*posts, return_exceptions=True)}

    with patch.object(socket, "getaddrinfo", look_up):
        async with outbound(webhook_timeout=0.5) as out:
            many = asyncio.create_task(outcomes(out, *["eve"] * 40))
            await asyncio.sleep(0.05)
            await asyncio.wait_for(asyncio.to_thread(lambda: None), 0.2)
            url = f"http://b.example:{receiver.port}/"
            assert (await out.post(url, b"", {}, "ada")).status == 200
            assert await many == {"timeout", "too-busy"}
            assert await outcomes(out, *map(str, range(9))) == {"timeout", "too-busy"}, "all are used up"
            with pytest.raises(TooBusy):
                await out.post(url, b"", {}, "ada")
            answered.set()
            await asyncio.sleep(0.1)
            assert (await out.post(url, b"", {}, "ada")).status == 200


async def test_certificates_are_verified(tmp_path: Path) -> None:
    ours, another = Authority(), Authority()
    async with receiving(ours.server("a.example", tmp_path)) as receiver:
        url, names = f"https://a.example:{receiver.port}/", Names("127.0.0.1")
        async with outbound(names, ours.context) as out:
            assert (await out.post(url, b"", {})).status == 200
            for wrong, reason in ((url.replace("a.", "b."), "Hostname mismatch"), (url, "")):
                async with outbound(names, another.context if wrong == url else ours.context) as refusing:
                    with pytest.raises(OutboundFailed, match=f"tls-failed: .*{reason}"):
                        await refusing.post(wrong, b"", {})
        async with outbound(names) as out:
            with pytest.raises(OutboundFailed, match="tls-failed"):
                await out.post(url, b"", {})
            with pytest.raises(OutboundFailed, match=r"connection-lost|not-http"):
                await out.post(url.replace("https", "http"), b"", {})


async def test_through_a_proxy(receiver: Receiver) -> None:
    """The proxy may have a private address, and sees the name."""
    proxy = f"http://user:s3cret@127.0.0.1:{receiver.port}"
    async with outbound(**PRODUCTION, webhook_proxy_url=proxy) as out:
        assert (await out.post("http://a.example/hook", b"{}", {})).status == 200
        receiver.answer = receiver.say(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
        with pytest.raises(OutboundFailed, match="proxy-failed") as failed:
            await out.post("https://a.example/hook", b"{}", {})
        with pytest.raises(OutboundFailed, match="url-not-allowed"):
            await out.post("http://127.0.0.1/", b"{}", {})
    assert receiver.requests[0].startswith(b"POST http://a.example/hook HTTP/1.1\r\n")
    assert b"proxy-authorization: basic " in receiver.requests[0].lower()
    assert "s3cret" not in str(failed.value)
