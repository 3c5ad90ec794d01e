"""Who counts as one client, and how many connections the limit of open files allows."""

import resource

import pytest

from app.server.connections import Connections, client_of, connections_allowed


@pytest.mark.parametrize(
    ("address", "proxies", "client"),
    [
        ("192.0.2.1", "127.0.0.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "127.0.0.1", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "127.0.0.1", "192.0.2.1"),
        ("fe80::1%eth0", "", "fe80::/64"),
        ("10.1.2.3", "127.0.0.1, 10.0.0.0/8", None),
        ("::ffff:10.1.2.3", "10.1.2.3", None),
        ("2001:db8::1", "10.0.0.0/8,2001:db8::1", None),
        ("10.1.2.3", "/run/proxy.sock", "10.1.2.3"),
        ("192.0.2.1", "*", None),
        (None, "127.0.0.1", None),
    ],
)
def test_client_of(address: str | None, proxies: str, client: str | None) -> None:
    assert client_of(address, proxies) == client


@pytest.mark.parametrize(
    ("files", "connections"), [(64, 32), (256, 128), (1024, 768), (20_000, 18_000), (2**20, 2**20 * 9 // 10)]
)
def test_connections_leave_files_for_the_process(files: int, connections: int, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(16, files)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits.append(wanted))
    assert connections_allowed() == connections
    assert limits[-1] == (files, files), "the soft limit is raised"


def test_what_is_released_can_be_admitted_again() -> None:
    connections = Connections(4)
    assert [connections.admit("a") for _ in range(3)] == [True, True, False]
    assert [connections.admit("b") for _ in range(2)] == [True, True]
    assert not connections.admit(None), "the limit of all"
    connections.release("a", admitted=False)
    assert not connections.admit(None), "a refused one frees nothing"
    connections.release("a", admitted=True)
    assert connections.admit("a")
