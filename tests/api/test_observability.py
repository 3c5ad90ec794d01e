"""What operators see: health, metrics, logs, and the API's description of itself."""

import os
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from app.errors import NotReady
from tests.support.factories import pdf
from tests.support.metrics import metric
from tests.support.server import Server
from tests.support.user import PASSWORD, User
from tests.support.waiting import until

TOKEN = "0123456789abcdef" * 2
FORWARDED = {"X-Forwarded-For": "203.0.113.9"}
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that nobody else speaks to, and that runs one job at a time."""
    settings = {"JOB_CONCURRENCY": "1", "METRICS_TOKEN": TOKEN}
    with Server(tmp_path_factory.mktemp("watched") / "var", settings) as server:
        yield server


def test_livez(server: Server) -> None:
    answer = server.client().get("/livez")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_readyz_names_what_is_not_in_order(watched: Server) -> None:
    def ready() -> tuple[int, Any]:
        answer = watched.client().get("/readyz")
        return answer.status_code, answer.json()["checks"]

    fine = (200, {"database": "ok", "storage": "ok", "background": "ok"})
    assert ready() == fine
    staging = watched.data_dir / "files" / "staging"
    away = staging.rename(staging.with_name("away"))
    try:
        answer = until(lambda: (now := ready()) != fine and now, timeout=3)
        assert answer == (503, {"database": "ok", "storage": "failed", "background": "ok"})
        told = watched.client().get("/readyz", headers=FORWARDED)
        assert (told.status_code, told.json()["detail"]) == (503, NotReady().detail)
        assert not told.json().keys() & {"checks", "alarms"}
    finally:
        away.rename(staging)
    until(lambda: ready() == fine, timeout=3)


@pytest.mark.parametrize(
    "headers",
    [
        FORWARDED,
        {"Forwarded": "for=127.0.0.1"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Proto": "https"},
        {"X-Real-IP": "127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"X-Forwarded-For": "127.0.0.1", "Authorization": f"Bearer {TOKEN}x"},
        {"X-Forwarded-For": "127.0.0.1", "Authorization": f"Basic {TOKEN}"},
    ],
)
def test_who_comes_through_a_proxy_sees_neither_metrics_nor_details(watched: Server, headers: dict[str, str]) -> None:
    stranger = watched.client()
    assert stranger.get("/readyz", headers=headers).json() == {"status": "ok"}
    for path in ("/metrics", "/%6detrics", "/metric%73"):
        answer = stranger.get(path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found")


def test_the_token_shows_metrics_and_details(watched: Server) -> None:
    monitor = watched.client()
    monitor.headers |= {**FORWARDED, "Authorization": f"Bearer {TOKEN}"}
    assert monitor.get("/readyz").json()["checks"]["database"] == "ok"
    assert "document_api_http_requests_total" in monitor.get("/metrics").text


def test_the_empty_token_shows_nothing(fresh: Server) -> None:
    for sent in ("Bearer", "Bearer x"):
        assert fresh.client().get("/metrics", headers={**FORWARDED, "Authorization": sent}).status_code == 404


def test_requests_are_counted_by_route_template(watched: Server) -> None:
    user = watched.register()
    route = {"method": "GET", "route": "/documents/{document_id}"}
    before = metric(watched, "http_requests_total", **route)
    document_id = user.upload()["id"]
    for _ in range(3):
        user.document(document_id)
    user.http.get(f"/documents/{uuid4()}")
    user.http.get(f"/nowhere/{uuid4()}")
    until(lambda: metric(watched, "http_requests_total", **route) - before == 4)
    assert metric(watched, "http_request_duration_seconds_count", **route) == before + 4
    answer = user.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert not UUID.search(answer.text)
    assert user.email not in answer.text


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Server]:
    """As `watched`, but nothing has happened there yet: what takes long to count may be as it was 15 seconds ago."""
    with Server(tmp_path / "var", {"JOB_CONCURRENCY": "1"}) as server:
        yield server


def test_bytes_outcomes_and_states_are_counted(fresh: Server) -> None:
    def seen() -> tuple[float, ...]:
        outcomes = ("succeeded", "failed", "cancelled")
        finished = (metric(fresh, "jobs_finished_total", outcome=each) for each in outcomes)
        documents = (metric(fresh, "documents", status=each) for each in ("UPLOADED", "PROCESSING", "COMPLETED"))
        jobs = (metric(fresh, "jobs", state=each) for each in ("QUEUED", "RUNNING", "SUCCEEDED"))
        return metric(fresh, "uploaded_bytes_total"), *finished, *documents, *jobs

    def growth() -> list[float]:
        return [now - then for now, then in zip(seen(), before, strict=True)]

    user = fresh.register()
    before = seen()
    files = [pdf("x" * n) for n in (1, 10, 1000)]
    good, bad, unwanted = (user.upload(file)["id"] for file in files)
    assert user.post_file(b"not a document").status_code == 415
    size = sum(map(len, files))
    until(lambda: growth() == [size, 0, 0, 0, 3, 0, 0, 0, 0, 0])
    user.finished(user.start(good)["id"])
    user.finished(user.start(bad, params={"seconds": 0, "fail": "permanent"})["id"])
    running = user.start(unwanted, params={"seconds": 60})["id"]
    until(lambda: user.http.get(f"/jobs/{running}").json()["state"] == "RUNNING")
    waiting = user.start(user.upload(files[0])["id"])["id"]
    until(lambda: growth() == [size + len(files[0]), 1, 1, 0, 0, 2, 1, 1, 1, 1])

    until(lambda: metric(fresh, "jobs_oldest_queued_seconds") > 0.2)
    user.http.post(f"/jobs/{running}/cancel")
    user.finished(waiting)
    until(lambda: growth() == [size + len(files[0]), 2, 1, 1, 1, 0, 2, 0, 0, 2])
    assert metric(fresh, "jobs_oldest_queued_seconds") == 0


def test_retries_are_counted(watched: Server) -> None:
    user = watched.register()
    before = metric(watched, "job_run_seconds_count", outcome="retried")
    user.finished(user.start(user.upload()["id"], params={"seconds": 0, "flaky": 1})["id"])
    until(lambda: metric(watched, "job_run_seconds_count", outcome="retried") - before == 1)


@pytest.mark.long
def test_two_workers_are_one_server(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"WORKERS": "2"}) as server:
        user, documents, workers = server.register(), [], set[str]()
        while len(workers) < 2:
            each = user.at(server)  # whichever worker accepts the connection
            documents.append(each.upload())
            each.finished(each.start(documents[-1]["id"])["id"])
            events = each.events(documents[-1]["id"])
            workers |= {event["actor"] for event in events if event["event"] == "job.started"}
            assert len(documents) < 200
        for _ in range(5):
            until(lambda: metric(server, "jobs_finished_total", outcome="succeeded") == len(documents))
            uploads = metric(server, "http_requests_total", method="POST", route="/documents", status="201")
            assert uploads == len(documents)
            assert metric(server, "uploaded_bytes_total") == sum(document["size"] for document in documents)
            assert metric(server, "documents", status="COMPLETED") == len(documents)
        until(lambda: metric(server, "slots", resource="uploads") == 2 * 16)
        os.kill(int(workers.pop().rpartition(":")[2]), signal.SIGKILL)
        until(lambda: metric(server, "slots", resource="uploads") == 16)  # until there is another
        uploads = metric(server, "http_requests_total", method="POST", route="/documents", status="201")
        assert uploads == len(documents), "what a dead process has counted stays"
        assert server.stop() == 0


def test_every_request_has_one_line_under_the_id_that_it_was_answered(watched: Server) -> None:
    user = watched.register()
    calls = [
        lambda: user.http.get("/auth/me"),
        lambda: user.http.get("/documents?limit=0"),
        lambda: user.http.get(f"/documents/{uuid4()}"),
        lambda: user.http.get("/nowhere"),
        lambda: user.http.delete("/documents"),
        lambda: user.http.post("/auth/login", content=b"{"),
        lambda: user.http.get("/auth/me", headers={"Authorization": "Bearer x"}),
        lambda: user.http.get("/processors", headers={"X-Request-ID": "caller.chosen-1"}),
        lambda: user.http.get("/processors", headers={"X-Request-ID": "not harmless\t{}"}),
        lambda: user.post_file(pdf()),
        lambda: user.post_file(b"neither"),
    ]
    answers = [call() for call in calls]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == len(ids)
    assert ids[7] == "caller.chosen-1"
    assert re.fullmatch(r"[0-9a-f-]{36}", ids[8])
    for answer in answers:
        if answer.is_error:
            assert answer.json()["request_id"] == answer.headers["x-request-id"]
    until(lambda: ids[-1] in [line["request_id"] for line in watched.logs("http.request")])
    lines = [line for line in watched.logs("http.request") if line["request_id"] in ids]
    assert Counter(line["request_id"] for line in lines) == dict.fromkeys(ids, 1)
    assert [line["status"] for line in lines] == [answer.status_code for answer in answers]
    assert all(line["method"] and line["ms"] >= 0 and not UUID.search(line["route"]) for line in lines)


def line_of(server: Server, answer: httpx2.Response) -> dict[str, Any]:
    """The line about the request with this answer."""
    request_id = answer.headers["x-request-id"]
    return until(lambda: next((each for each in server.logs("http.request") if each["request_id"] == request_id), None))


def test_a_line_says_who_asked_for_what(watched: Server) -> None:
    http = watched.client()
    http.headers["User-Agent"] = "probe/1.0\u00e9" + "x" * 300
    line = line_of(watched, http.get("/documents/a%2Fb%1b?signature=secret"))
    assert (line["method"], line["path"], line["client"]) == ("GET", "/documents/a%2Fb%1b", "127.0.0.1")
    assert line["user_agent"].startswith("probe/1.0\\x")
    assert len(line_of(watched, http.get("/" + "x" * 5000))["path"]) == 200
    line = line_of(watched, http.head("/auth/me"))
    assert (line["method"], line["route"]) == ("HEAD", "/auth/me")


@pytest.mark.parametrize(("path", "level"), [("/openapi.json", "info"), ("/nowhere", "info"), ("/auth/me", "warning")])
def test_the_level_of_a_line_is_that_of_its_status(watched: Server, path: str, level: str) -> None:
    assert line_of(watched, watched.client().get(path))["level"] == level


@pytest.mark.parametrize(
    ("address", "trusted", "client"),
    [
        ("127.0.0.1", None, "203.0.113.9"),
        ("127.0.0.2", None, "127.0.0.2"),
        ("127.0.0.2", "127.0.0.2", "203.0.113.9"),
        ("127.0.0.1", "127.0.0.2", "127.0.0.1"),
    ],
)
def test_the_address_that_a_proxy_tells_is_taken_from_trusted_proxies_only(
    tmp_path: Path, address: str, trusted: str | None, client: str
) -> None:
    settings = {} if trusted is None else {"FORWARDED_ALLOW_IPS": trusted}
    transport = httpx2.HTTPTransport(local_address=address)
    with Server(tmp_path / "var", settings) as server, httpx2.Client(transport=transport, timeout=60) as http:
        sent = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9"}
        assert line_of(server, http.get(f"{server.url}/openapi.json", headers=sent))["client"] == client


def test_a_job_is_told_of_under_the_request_that_began_it(watched: Server) -> None:
    user = watched.register()
    document_id = user.upload()["id"]
    request_id = f"began-{uuid4().hex}"
    url, wanted = f"/documents/{document_id}/process", {"params": {"seconds": 0, "flaky": 1}}
    job = user.http.post(url, json=wanted, headers={"X-Request-ID": request_id}).json()["job"]
    user.finished(job["id"])
    told = [
        "document.status_changed",
        "job.queued",
        "job.started",
        "job.retried",
        "job.started",
        "job.succeeded",
        "document.status_changed",
    ]
    items = [event for event in user.events(document_id) if event["event"] != "document.uploaded"]
    assert [(item["event"], item["request_id"]) for item in items] == [(name, request_id) for name in told]
    assert {item["job_id"] for item in items} == {job["id"]}

    until(lambda: len([line for line in watched.logs() if line.get("document_id") == document_id]) > len(told))
    lines = [line for line in watched.logs() if line["event"] in told and line["document_id"] == document_id]
    assert [line["event"] for line in lines] == told, "one line a change"
    owner_id = user.http.get("/auth/me").json()["id"]
    who = {(line["request_id"], line["user_id"], line["job_id"]) for line in lines}
    assert who == {(request_id, owner_id, job["id"])}
    changes = [(line["old"], line["new"]) for line in lines if line["event"] == "document.status_changed"]
    assert changes == [("UPLOADED", "PROCESSING"), ("PROCESSING", "COMPLETED")]


def test_secrets_stay_out_of_the_log(watched: Server) -> None:
    user = watched.register()
    pair = user.http.post("/auth/refresh", json={"refresh_token": user.tokens["refresh_token"]}).json()
    guess = f"guess-{uuid4().hex}"
    form = {"username": user.email, "password": guess}
    assert user.http.post("/auth/login", data=form).status_code == 401
    assert user.http.post("/auth/register", json={"email": guess, "password": guess, guess: 1}).status_code == 422
    assert user.http.get("/auth/me", headers={"Authorization": f"Bearer {guess}"}).status_code == 401
    assert user.http.get(f"/auth/me?token={guess}&access_token={guess}").status_code == 422
    assert user.http.post("/auth/refresh", json={"refresh_token": guess}).status_code == 401
    last = user.http.post("/auth/logout", json={"refresh_token": pair["refresh_token"]})
    until(lambda: last.headers["x-request-id"] in watched.log_file.read_text())
    log = watched.log_file.read_text()
    secret = (watched.data_dir / "jwt-secret").read_text()
    for private in (PASSWORD, guess, "Bearer ", secret, *_tokens(user.tokens), *_tokens(pair)):
        assert private not in log


def _tokens(pair: dict[str, Any]) -> list[str]:
    return [pair["refresh_token"], pair["access_token"], pair["access_token"].rpartition(".")[2]]


def operations(user: User) -> dict[str, dict[str, Any]]:
    paths = user.http.get("/openapi.json").json()["paths"]
    return {f"{method} {path}": each for path, item in paths.items() for method, each in item.items()}


def test_every_operation_is_described(user: User) -> None:
    found = operations(user)
    assert "post /documents/{document_id}/process" in found
    for name, operation in found.items():
        assert " " in operation["summary"], name
        assert operation["tags"], name
        failures = {status: each for status, each in operation["responses"].items() if status >= "4"}
        assert failures, name
        for status, failure in failures.items():
            assert list(failure["content"]) == ["application/problem+json"], (name, status)
            schema = failure["content"]["application/problem+json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/Problem"}, (name, status)


def test_the_description_says_how_to_authenticate(user: User) -> None:
    schemes = user.http.get("/openapi.json").json()["components"]["securitySchemes"]
    (bearer,) = [name for name, each in schemes.items() if (each["type"], each.get("scheme")) == ("http", "bearer")]
    (password,) = [name for name, each in schemes.items() if each["type"] == "oauth2"]
    assert user.http.post(schemes[password]["flows"]["password"]["tokenUrl"]).status_code == 415
    assert schemes["apiKey"].items() >= {"type": "apiKey", "in": "header", "name": "X-API-Key"}.items()
    for name, operation in operations(user).items():
        public = name.split("/")[1] in {"livez", "readyz", "metrics", "uploads"}
        public |= name.startswith("post /auth/") and name != "post /auth/password"
        by = [] if public else [[bearer], [password]]
        claimed = "/remote/jobs/{job_id}/" in name and "claim" not in name.rpartition("/")[2]
        by = [[bearer]] if claimed else by
        by += [] if public or claimed or name.split("/")[1].split()[0] in {"auth", "api-keys"} else [["apiKey"]]
        assert [list(each) for each in operation.get("security", [])] == by, name


def test_the_docs_need_no_other_host(user: User) -> None:
    answer = user.http.get("/docs")
    assert answer.status_code == 200
    assets = re.findall(r"""(?:src|href)=["']([^"']+)""", answer.text)
    assert any(asset.endswith(".js") for asset in assets)
    assert any(asset.endswith(".css") for asset in assets)
    assert not re.search(r"https?://|[\"']//", answer.text)
    for asset in assets:
        assert user.http.get(asset).status_code == 200, asset


def test_what_users_store_is_no_other_accounts_to_read(watched: Server) -> None:
    watched.register().upload()
    made = [watched.data_dir, *watched.data_dir.rglob("*")]
    assert [path for path in made if path.stat().st_mode & 0o077] == []
