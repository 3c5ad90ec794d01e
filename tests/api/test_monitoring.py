"""What deploy/monitoring and docs/operations.md name is there, and says what happened."""

import json
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app import VERSION
from app.telemetry import metrics
from tests.support.direct_uploads import announce, complete, put
from tests.support.factories import pdf
from tests.support.metrics import PREFIX, metric, scraped
from tests.support.server import Server
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "monitoring"
RULES = (FOLDER / "rules.yml").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
ALERTS = re.findall(r"- alert: (\w+)", RULES)
SERIES = ("_bucket", "_count", "_sum")  # of a histogram


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that nobody else speaks to, runs one job at a time, and has seen a bit of everything."""
    with Server(tmp_path_factory.mktemp("busy") / "var", {"JOB_CONCURRENCY": "1"}) as server:
        user = server.register()
        for params in ({"seconds": 0}, {"seconds": 0, "fail": "permanent"}):
            user.finished(user.start(user.upload()["id"], params=params)["id"])
        yield server


def families(text: str) -> dict[str, str]:
    """The type of each of the service's own metrics, by its name as it is queried."""
    return dict(re.findall(rf"^# TYPE ({PREFIX}\w+) (\w+)$", text, re.MULTILINE))


def named(text: str) -> set[str]:
    found = set()
    for name in re.findall(rf"{PREFIX}\w+", text):
        of_histogram = [name.removesuffix(end) for end in SERIES if name.endswith(end)]
        found.add(of_histogram[0] if of_histogram else name)
    return found


@pytest.mark.parametrize("text", [RULES, *EXPRESSIONS, OPERATIONS])
def test_every_metric_that_is_named_exists(busy: Server, text: str) -> None:
    assert named(text) - families(scraped(busy)).keys() <= {PREFIX}


def test_every_metric_is_documented(busy: Server) -> None:
    shown = families(scraped(busy))
    assert shown.keys() <= named(OPERATIONS)
    assert len(shown) > 20
    assert not re.search(r"^(?!document_api_|process_|python_|#)", scraped(busy).rstrip(), re.MULTILINE), "a prefix"
    assert "_created" not in scraped(busy)


def test_every_label_that_is_named_exists(busy: Server) -> None:
    there: dict[str, set[str]] = {}
    for name, labels in re.findall(rf"^({PREFIX}\w+)(?:{{(.*)}})? ", scraped(busy), re.MULTILINE):
        there.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    checked = set()
    for text in (RULES, *EXPRESSIONS):
        for name, labels in re.findall(rf"({PREFIX}\w+){{(.*?)}}(?=\)|\[| )", text):
            if name in there:
                assert set(re.findall(r"(\w+)[=!]", labels)) <= there[name], name
                checked.add(name)
    assert len(checked) >= 5


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_test_and_a_runbook(alert: str) -> None:
    assert f'{{alertname="{alert}"}}' in (FOLDER / "rules.test.yml").read_text()
    rule = RULES.partition(f"- alert: {alert}")[2].partition("- alert:")[0]
    assert f"runbook_url: docs/operations.md#{alert.lower()}\n" in rule
    assert re.search(rf"^#### {alert}\n\n\S", OPERATIONS, re.MULTILINE)


def test_how_long_a_job_waits_and_runs(busy: Server) -> None:
    def seen() -> list[float]:
        measured = [
            metric(busy, f"job_{what}_seconds_{series}", processor="simulated")
            for what in ("wait", "run")
            for series in ("count", "sum")
        ]
        return [*measured, metric(busy, "job_run_seconds_count", processor="simulated", outcome="succeeded")]

    user, before = busy.register(), seen()
    documents = [user.upload()["id"] for _ in range(2)]
    jobs = [user.start(document_id, params={"seconds": 0.5})["id"] for document_id in documents]
    for job_id in jobs:
        user.finished(job_id)
    until(lambda: seen()[4] - before[4] == 2)
    waits, waited, runs, ran, _ = (now - then for now, then in zip(seen(), before, strict=True))
    assert (waits, runs) == (2, 2)
    assert waited >= 0.45, "the second had to wait for the first"
    assert 1 <= ran < 10

    lines = [line for line in busy.logs() if line.get("job_id") == jobs[1] and line["event"].startswith("job.")]
    assert {line["processor"] for line in lines} == {"simulated"}
    (started,) = [line for line in lines if line["event"] == "job.started"]
    (succeeded,) = [line for line in lines if line["event"] == "job.succeeded"]
    assert started["wait_seconds"] >= 0.45
    assert 0.5 <= succeeded["run_seconds"] < 10


def test_a_dead_letter_is_a_warning_and_a_permanent_failure_is_not(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"JOB_MAX_TRIES": "1"}) as server:
        user = server.register()
        for outcome, fail in (("dead", "transient"), ("failed", "permanent")):
            job_id = user.start(user.upload()["id"], params={"seconds": 0, "fail": fail})["id"]
            user.finished(job_id)
            (line,) = [each for each in server.logs("job.failed") if each["job_id"] == job_id]
            assert line["level"] == ("warning" if outcome == "dead" else "info")
            until(lambda outcome=outcome: metric(server, "jobs_finished_total", outcome=outcome) == 1)
        until(lambda: metric(server, "dead_letters") == 1)


def test_what_a_running_job_shows(busy: Server) -> None:
    user = busy.register()
    _, job_id = user.begin(60)
    until(lambda: metric(busy, "jobs_longest_running_seconds") > 0.1)
    until(lambda: metric(busy, "slots_in_use", resource="jobs") == 1 == metric(busy, "slots", resource="jobs"))
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(user.at(busy).http.get, f"/jobs/{job_id}?wait=20")
        until(lambda: metric(busy, "http_requests_in_flight") >= 1)
        user.http.post(f"/jobs/{job_id}/cancel")
        assert waiting.result().json()["state"] == "CANCELLED"
    (line,) = [each for each in busy.logs("job.cancelled") if each["job_id"] == job_id]
    assert line["age_seconds"] > 0.1
    until(lambda: metric(busy, "jobs_longest_running_seconds") == metric(busy, "slots_in_use", resource="jobs") == 0)


def test_a_failed_login_is_counted(busy: Server) -> None:
    user, before = busy.register(), metric(busy, "logins_total", outcome="failed")
    assert user.http.post("/auth/login", json={"email": user.email, "password": "a wrong one"}).status_code == 401
    until(lambda: metric(busy, "logins_total", outcome="failed") == before + 1)


def test_what_is_not_counted_by_requests(busy: Server) -> None:
    assert metric(busy, "build_info", version=VERSION) == 1
    for folder in ("data", "files"):
        assert 0 < metric(busy, "disk_free_bytes", folder=folder) < metric(busy, "disk_bytes", folder=folder)
    assert metric(busy, "slots", resource="uploads") == 16
    assert metric(busy, "alarm", alarm="storage") == 0
    until(lambda: metric(busy, "event_loop_lag_seconds_count") > 4)
    assert metric(busy, "upkeep_interval_seconds", chore="mark") == 1
    first = metric(busy, "upkeep_last_success_timestamp_seconds", chore="mark")
    until(lambda: metric(busy, "upkeep_last_success_timestamp_seconds", chore="mark") > first > 1e9)


def test_an_alarm_is_shown_and_errors_of_the_storage_are_counted(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"RESERVE_BYTES": str(2**60)}) as server:
        until(lambda: metric(server, "alarm", alarm="disk") == 1)
        staging = server.data_dir / "files" / "staging"
        away = staging.rename(staging.with_name("away"))
        until(lambda: server.client().get("/readyz").status_code == 503)
        until(lambda: metric(server, "storage_errors_total", reason="unavailable") > 0)
        away.rename(staging)


def test_a_healthy_start_alarms_nobody(tmp_path: Path) -> None:
    with Server(tmp_path / "var") as server:
        for path in ("/livez", "/readyz", "/metrics", "/openapi.json"):
            server.client().get(path)
        until(lambda: [line["route"] for line in server.logs("http.request")])
        assert [line["path"] for line in server.logs("http.request")] == ["/openapi.json"], "probes are many"
        alarming = [(line["event"], line.get("alarm")) for line in server.logs() if line["level"] != "info"]
        allowed = {("server.alarm", "sandbox"), ("event_loop.blocked", None), ("event_loop.resumed", None)}
        assert set(alarming) <= allowed, "a kernel may lack Landlock, and a machine be slow"
        assert "error" not in server.log_file.read_text()
        assert len(server.logs("storage.claimed")) == 1
        (started,) = server.logs("server.started")
        assert (started["host"], started["version"]) == (socket.gethostname(), VERSION)
        assert {line["pid"] for line in server.logs() if "pid" in line} == {started["pid"]}


def test_probes_are_logged_for_who_wants_all(tmp_path: Path) -> None:
    with Server(tmp_path / "var", {"LOG_LEVEL": "DEBUG"}) as server:
        server.client().get("/livez")
        line = until(lambda: [each for each in server.logs("http.request") if each["route"] == "/livez"])[0]
        assert line["level"] == "debug"


def test_a_request_s_line_names_what_it_was_about(busy: Server) -> None:
    def line(answer: Any) -> dict[str, Any]:
        request_id = answer.headers["x-request-id"]
        found: list[dict[str, Any]] = until(
            lambda: [each for each in busy.logs("http.request") if each["request_id"] == request_id]
        )
        return found[0]

    user = busy.register()
    who = user.http.get("/auth/me").json()["id"]
    content = pdf("named")
    first, again = (user.post_file(content, key="once") for _ in range(2))
    document_id = first.json()["id"]
    started = user.process(document_id)
    job_id = started.json()["job"]["id"]
    user.finished(job_id)
    answers = [first, again, started, user.http.get(f"/jobs/{job_id}"), user.http.get(f"/documents/{document_id}")]
    lines = [line(answer) for answer in answers]
    assert {(each["user_id"], each["document_id"]) for each in lines} == {(who, document_id)}
    assert [each.get("replayed") for each in lines] == [None, True, None, None, None]
    assert [each.get("job_id") for each in lines] == [None, None, job_id, job_id, None]

    upload = announce(user, content)
    assert put(upload, content) == 200
    complete(user, upload)
    until(lambda: busy.logs("http.request")[-1]["route"].endswith("/complete-upload"))
    announced, sent, completed = busy.logs("http.request")[-3:]
    for each in (announced, sent, completed):
        assert (each["user_id"], each["document_id"]) == (who, upload["document_id"]), each["route"]


def test_methods_that_are_made_up_count_as_one(server: Server) -> None:
    """Each would be a series of its own, for as long as the process lives."""
    for method in ("COPY", "LOCK", "M-SEARCH", "PURGE"):
        assert server.client().request(method, "/livez").status_code == 405
    methods = set(re.findall('method="([^"]*)"', server.client().get("/metrics").text))
    assert "other" in methods
    assert not methods & {"COPY", "LOCK", "M-SEARCH", "PURGE"}


def test_the_counters_of_a_host_with_a_longer_name_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    others = tmp_path / "metrics" / f"{socket.gethostname()}-1-7"
    others.mkdir(parents=True)
    metrics.share_between_workers(tmp_path)
    assert others.exists()
