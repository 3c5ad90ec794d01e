"""Clients that open as many connections as they can: others are still served, and whoever is refused reads why."""

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing

import httpx2
import pytest

from tests.support.server import Server
from tests.support.waiting import until

FILES = 256  # that the server may open; half of them may be connections, and a quarter those of one client
MOST, MOST_EACH = FILES // 2, FILES // 4
METRICS_CACHE = 30  # seconds; they are remembered for some time
PING = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    prefix = ["sh", "-c", f'ulimit -n {FILES} && exec "$@"', "sh"]
    with Server(tmp_path_factory.mktemp("crowded") / "var", prefix=prefix) as server:
        yield server


def opened(server: Server, count: int, address: str) -> list[socket.socket]:
    """Connections from an address of this machine. Those that are admitted have had an answer, and stay open."""
    found = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", server.port), 10, (address, 0))
        connection.sendall(PING)
        found.append(connection)
    return found


def answers(connections: list[socket.socket]) -> list[bytes]:
    return [connection.recv(65536) for connection in connections]


def refusals(server: Server, limit: str) -> float:
    with httpx2.Client(base_url=server.url, timeout=60) as client:
        lines = client.get("/metrics").text.splitlines()
    counter = f'document_api_connections_refused_total{{limit="{limit}"}}'
    return sum(float(line.split()[-1]) for line in lines if line.startswith(counter))


def refused(answer: bytes) -> bool:
    """Whether this is all that a client needs to try again later."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 503 "):
        return False
    assert b"\r\nconnection: close" in head
    assert b"\r\nretry-after: " in head
    assert json.loads(body)["code"] == "too-busy"
    return True


def is_free(server: Server) -> bool:
    """Whether the server has noticed that all connections are closed."""
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(each)) for each in opened(server, MOST, "127.0.0.1")]
        return not any(map(refused, answers(connections)))


@pytest.fixture(autouse=True)
def free(server: Server) -> None:
    until(lambda: is_free(server))


def test_one_client_does_not_take_the_connections_of_others(server: Server) -> None:
    more = 20
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(each)) for each in opened(server, MOST_EACH + more, "127.0.0.2")]
        assert [refused(answer) for answer in answers(connections)] == [False] * MOST_EACH + [True] * more
        assert all(connection.recv(1) == b"" for connection in connections[MOST_EACH:])
        (other,) = opened(server, 1, "127.0.0.3")
        assert other.recv(65536).startswith(b"HTTP/1.1 200 ")
        other.close()
    until(lambda: refusals(server, "client") >= more, METRICS_CACHE)
    lines = [line for line in server.logs("connections.refused") if line["limit"] == "client"]
    assert {line["client"] for line in lines} == {"127.0.0.2"}
    assert len(lines) < more / 2, "not a line for each"


def test_beyond_the_limit_of_the_process_a_connection_is_refused_at_once(server: Server) -> None:
    """A trusted proxy, as 127.0.0.1 is by default, may have all connections: behind it are all clients."""
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(each)) for each in opened(server, MOST, "127.0.0.1")]
        assert not any(map(refused, answers(connections)))
        for address in ("127.0.0.1", "127.0.0.3"):
            with closing(socket.create_connection(("127.0.0.1", server.port), 10, (address, 0))) as late:
                assert refused(late.recv(65536)), "before it has sent anything"
    until(lambda: refusals(server, "process") >= 2, METRICS_CACHE)


def test_a_flood_of_refused_connections_leaves_files_for_the_server(server: Server) -> None:
    """More connections at once than the server may open files: those that are refused do not stay."""
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(each)) for each in opened(server, FILES * 2, "127.0.0.2")]
        (other,) = opened(server, 1, "127.0.0.3")
        assert other.recv(65536).startswith(b"HTTP/1.1 200 ")
        other.close()
        assert not any(map(refused, answers(connections[:MOST_EACH])))
    assert not [line for line in server.logs() if line["level"] == "error"]
