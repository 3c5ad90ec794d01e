"""Pipelines: what was finished is not done again, whatever happens between two stages, and never shown to others."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, update

from app.files.models import files
from app.processing.stages.models import stage_results
from tests.support import databases
from tests.support.factories import DOCX_TYPE, docx, pdf
from tests.support.invariants import Ledger
from tests.support.processors import NAMES
from tests.support.server import Server
from tests.support.stages import Lines, needing
from tests.support.user import User
from tests.support.waiting import until
from tests.support.zygote import run

ALL = ["one", "two", "three"]
LEASE = {"LEASE_SECONDS": "0.6", "ORPHAN_GRACE_SECONDS": "3"}
LARGE = {"letters": 100_000}


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Lines:
    return Lines(tmp_path_factory.mktemp("stages") / "var", PIPELINES="whole=one,two,three;short = one , maybe?")


@pytest.fixture(scope="module")
def server(lines: Lines) -> Iterator[Server]:
    with lines.server() as server:
        yield server


def begin(user: User, document_id: str, stages: list[str] | None = None, **wanted: Any) -> str:
    """The id of a new job."""
    job_id: str = user.start(document_id, pipeline=stages or ALL, **wanted)["id"]
    return job_id


def receipts(user: User, job: dict[str, Any]) -> dict[str, Any]:
    """What a job that succeeded says of its stages, by their names."""
    assert job["state"] == "SUCCEEDED", job
    answer = user.http.get(job["result_url"])
    return {each["name"]: each for each in answer.json()["data"]["stages"]}


def ran(user: User, document_id: str, stages: list[str] | None = None, **wanted: Any) -> list[str]:
    """The stages that were not there when the document was processed."""
    done = receipts(user, user.finished(begin(user, document_id, stages, **wanted)))
    return [name for name, each in done.items() if not each["cached"] and not each["skipped"]]


def finished_stages(user: User, document_id: str) -> list[dict[str, Any]]:
    return [each["data"] for each in user.events(document_id) if each["event"] == "job.stage_finished"]


KILLS = {
    "stage.after_run:1": [2, 1, 1],
    "stage.after_commit:1": [1, 1, 1],
    "stage.after_run:2": [1, 2, 1],
    "stage.after_commit:2": [1, 1, 1],
    "stage.after_run:3": [1, 1, 2],
    "stage.after_commit:3": [1, 1, 1],
    "finish.before_commit:1": [1, 1, 1],
    "finish.after_commit:1": [1, 1, 1],
}


@pytest.mark.parametrize("size", ["small", pytest.param("large", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "fault", [pytest.param(each, marks=[pytest.mark.long] if "after_commit" in each else []) for each in KILLS]
)
def test_killed_in_a_gap(fault: str, size: str, tmp_path: Path) -> None:
    lines, ledger = Lines(tmp_path / "var", **LEASE), Ledger(tmp_path / "var")
    params = dict.fromkeys(ALL, LARGE) if size == "large" else {}
    with lines.server(FAULT=fault) as server:
        user = server.register()
        document_id = user.upload()["id"]
        job_id = begin(user, document_id, params=params)
        assert server.process is not None
        assert server.process.wait(20) == -signal.SIGKILL
    with lines.server() as server:
        user = user.at(server)
        job = user.finished(job_id)
        done = receipts(user, job)
        assert lines.runs == KILLS[fault]
        cached = [each["cached"] for each in done.values()]
        assert [each["cached"] for each in finished_stages(user, document_id)][-3:] == cached
        for name in ALL:
            text = user.http.get(f"/documents/{document_id}/results/{name}").json()["data"]["text"]
            assert text == ("x" * 100_000 if size == "large" else name)
        ledger.settle()
        ledger.check()


def test_killed_within_a_stage(tmp_path: Path) -> None:
    """The stages before it ran once, and it ran twice."""
    lines = Lines(tmp_path / "var", **LEASE)
    with lines.server() as server:
        user = server.register()
        document_id = user.upload()["id"]
        job_id = begin(user, document_id, params={"three": {"seconds": 1}})
        until(lambda: lines.runs == [1, 1, 1])
        server.kill()
    with lines.server() as server:
        user = user.at(server)
        job = user.finished(job_id)
        assert (lines.runs, job["attempt"]) == ([1, 1, 2], 2)
        assert [each["cached"] for each in receipts(user, job).values()] == [True, True, False]
        assert "stage_failed" not in user.story(document_id)


@pytest.mark.parametrize("size", ["small", pytest.param("large", marks=pytest.mark.long)])
def test_a_frozen_runner_keeps_nothing(size: str, tmp_path: Path) -> None:
    """Another takes over after its lease; when it wakes, what its stage made is refused."""
    lines, ledger = Lines(tmp_path / "var", **LEASE), Ledger(tmp_path / "var")
    params = {"three": {"seconds": 1.5} | (LARGE if size == "large" else {})}
    with lines.server() as frozen:
        user = frozen.register()
        document_id = user.upload()["id"]
        job_id = begin(user, document_id, params=params)
        until(lambda: lines.runs == [1, 1, 1])
        frozen.signal(signal.SIGSTOP)
        with lines.server() as other:
            user = user.at(other)
            until(lambda: lines.runs == [1, 1, 2])
            frozen.signal(signal.SIGCONT)
            job = user.finished(job_id)
            assert [each["cached"] for each in receipts(user, job).values()] == [True, True, False]
            done = [(each["stage"], each["fence"]) for each in finished_stages(user, document_id)]
            assert done == [("one", 1), ("two", 1), ("one", 2), ("two", 2), ("three", 2)]
            assert lines.runs == [1, 1, 2]
            ledger.settle()
            ledger.check()


@pytest.mark.long
def test_two_runners_at_the_same_content(tmp_path: Path) -> None:
    """Each stage is made by one of them or by both, and all documents get the same."""
    lines, ledger = Lines(tmp_path / "var", **LEASE), Ledger(tmp_path / "var")
    content = pdf("of both")
    with lines.server(JOB_CONCURRENCY="2") as first, lines.server(JOB_CONCURRENCY="2") as second:
        users = [user := first.register(), user.at(second)]
        params = {name: {"seconds": 0.05, **LARGE} for name in ALL}
        documents = [user.upload(content)["id"] for _ in range(8)]
        begun = [begin(users[number % 2], each, params=params) for number, each in enumerate(documents)]
        keys = [{each["key"] for each in receipts(user, user.finished(job_id)).values()} for job_id in begun]
        assert all(each == keys[0] for each in keys)
        ledger.settle()
        ledger.check()


def test_a_stage_that_fails_is_named_and_begun_again_alone(server: Server, lines: Lines) -> None:
    user, before = server.register(), lines.runs
    document_id = user.upload()["id"]
    job = user.finished(begin(user, document_id, params={"two": {"flaky": 1}}))
    assert (job["state"], job["attempt"]) == ("SUCCEEDED", 2)
    assert [now - then for now, then in zip(lines.runs, before, strict=True)] == [1, 2, 1]
    (failed,) = [each for each in user.events(document_id) if each["event"] == "job.stage_failed"]
    assert (failed["data"]["stage"], failed["data"]["attempt"]) == ("two", 1)
    other = user.upload()["id"]
    job = user.finished(begin(user, other, params={"three": {"fail": "permanent"}}))
    assert job["error"] == {"code": "of-no-use", "detail": "three: It was told to fail."}
    assert (job["state"], job["attempt"], user.document(other)["status"]) == ("FAILED", 1, "FAILED")
    assert user.http.get(f"/documents/{other}/results").json()["items"] == [], "all or none"
    assert user.story(other)[-2:] == ["stage_failed", "failed"]
    assert ran(user, other) == ["three"], "its params are others, and so is only its key"


def test_what_breaks_unexpectedly_is_named_in_the_log(server: Server) -> None:
    user = server.register()
    document_id = user.upload()["id"]
    job_id = begin(user, document_id, ["one", "two"], params={"two": {"fail": "unexpected"}})
    until(lambda: user.job(job_id)["error"])
    assert user.http.post(f"/jobs/{job_id}/cancel").status_code == 202
    broke = [line for line in server.logs("job.broke") if line.get("job_id") == job_id]
    assert {line["stage"] for line in broke} == {"two"}


def test_equal_work_is_done_once_for_an_owner_and_never_for_another(server: Server) -> None:
    user, stranger, content = server.register(), server.register(), pdf(uuid4().hex)
    first, second = (user.upload(content, name)["id"] for name in ("a.pdf", "b.pdf"))
    assert ran(user, first) == ALL
    assert ran(user, second) == []
    assert ran(user, second, ["one", "three"]) == ["three"], "it depends on the stages before"
    assert ran(user, second, params={"two": {"letters": 5}}) == ["two", "three"]
    theirs = stranger.upload(content)["id"]
    assert ran(stranger, theirs) == ALL
    one, other = (
        {each["key"] for each in whose.http.get(f"/documents/{which}/results/pipeline").json()["data"]["stages"]}
        for whose, which in ((user, first), (stranger, theirs))
    )
    assert not one & other


def test_a_new_version_is_run_and_all_that_follows(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "var")
    with lines.server() as server:
        user = server.register()
        document_id = user.upload()["id"]
        assert ran(user, document_id) == ALL
        assert user.process(document_id, pipeline=ALL).status_code == 200, "the result is current"
    with lines.server("one@1 two@2 three@1") as server:
        user = user.at(server)
        assert ran(user, document_id) == ["two", "three"]
        assert user.process(document_id, pipeline=ALL).status_code == 200
        versions = [each["version"] for each in finished_stages(user, document_id)[-3:]]
        assert versions == ["1", "2", "1"]
        listed = user.http.get(f"/documents/{document_id}/results/two").json()
        assert (listed["processor_version"], listed["data"]["version"]) == ("2", "2")


def test_force(server: Server) -> None:
    user = server.register()
    document_id = user.upload()["id"]
    assert ran(user, document_id) == ALL
    assert ran(user, document_id, force=True) == ALL
    assert ran(user, document_id, force="last") == ["three"]
    assert user.process(document_id, pipeline=ALL, force="first").status_code == 422


def test_force_resumes_too(tmp_path: Path) -> None:
    """What this very job has made is not made again."""
    lines = Lines(tmp_path / "var", **LEASE)
    with lines.server() as server:
        user = server.register()
        document_id = user.upload()["id"]
        assert ran(user, document_id) == ALL
    with lines.server(FAULT="stage.after_commit:2") as server:
        user = user.at(server)
        job_id = begin(user, document_id, force=True)
        assert server.process is not None
        assert server.process.wait(20) == -signal.SIGKILL
    with lines.server() as server:
        user = user.at(server)
        assert list(receipts(user, user.finished(job_id))) == ALL
        assert lines.runs == [2, 2, 2]


def test_what_is_published(server: Server) -> None:
    """The result of each stage and the pipeline's own, which is the current one; large ones are not in it."""
    user = server.register()
    document_id = user.upload()["id"]
    job = user.finished(begin(user, document_id, params={"two": LARGE, "three": {"ask": "two"}}))
    current = user.http.get(f"/documents/{document_id}/result").json()
    assert current == user.http.get(job["result_url"]).json()
    assert (current["processor"], current["job_id"]) == ("pipeline", job["id"])
    assert list(current["data"]["results"]) == ALL
    assert current["data"]["results"]["two"] is None
    assert current["data"]["stages"][1]["size"] > 100_000
    assert current["data"]["results"]["three"]["asked"]["text"] == "x" * 10, "of the stage before"
    listed = user.http.get(f"/documents/{document_id}/results").json()["items"]
    assert {each["processor"] for each in listed} == {*ALL, "pipeline"}
    assert listed[0]["processor"] == "pipeline"
    for name in ALL:
        result = user.http.get(f"/documents/{document_id}/results/{name}").json()
        assert (result["processor"], result["job_id"], result["processor_version"]) == (name, job["id"], "1")
        assert result["params"] == job["params"][name]
    text = user.http.get(f"/documents/{document_id}/results/two", headers={"Accept": "text/plain"})
    assert text.text == "x" * 100_000
    assert user.document(document_id)["status"] == "COMPLETED"


def test_a_result_from_outside_of_the_pipeline_is_kept_for_the_job_alone(server: Server) -> None:
    user, content = server.register(), pdf(uuid4().hex)
    first, second = (user.upload(content)["id"] for _ in range(2))
    user.finished(user.start(first, processor="two")["id"])
    params = {"three": {"ask": "two"}}
    job = user.finished(begin(user, first, ["one", "three"], params=params))
    assert user.http.get(job["result_url"]).json()["data"]["results"]["three"]["asked"]["text"] == "two"
    assert ran(user, second, ["one", "three"], params=params) == ["three"]
    assert user.http.get(f"/documents/{second}/results/three").json()["data"]["asked"] is None


def test_a_stage_runs_where_it_is_needed(server: Server) -> None:
    user = server.register()
    needy, other = user.upload(needing("maybe", uuid4().hex))["id"], user.upload()["id"]
    assert ran(user, needy, ["one", "maybe?", "three"]) == ["one", "maybe", "three"]
    assert ran(user, other, ["one", "maybe?", "three"]) == ["one", "three"]
    result = user.http.get(f"/documents/{other}/result").json()
    assert list(result["data"]["results"]) == ["one", "three"]
    skipped = result["data"]["stages"][1]
    assert (skipped["name"], skipped["skipped"], skipped["key"]) == ("maybe", True, None)
    assert [each["skipped"] for each in finished_stages(user, other)] == [False, True, False]
    assert user.http.get(f"/documents/{other}/results/maybe").status_code == 404
    assert ran(user, other, ["one", "three"]) == [], "what is skipped changes nothing of what follows"


def test_what_cannot_read_a_document(tmp_path: Path) -> None:
    with Lines(tmp_path / "var", "one@1 pdf-only@1").server() as server:
        user = server.register()
        document_id = user.upload(docx(), "a.docx", content_type=DOCX_TYPE)["id"]
        refused = user.process(document_id, pipeline=["one", "pdf-only"])
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/pipeline")
        assert ran(user, document_id, ["one", "pdf-only?"]) == ["one"]


def test_progress_goes_by_weight(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "var", "heavy@1 one@1 two@1")
    with lines.server() as server:
        user = server.register()
        stages = ["heavy", "one", "two"]
        job_id = begin(user, user.upload()["id"], stages, params={"one": {"seconds": 60}})
        until(lambda: lines.runs[0])
        assert until(lambda: user.job(job_id)["progress"]) in {0.8, 0.85}
        assert user.http.post(f"/jobs/{job_id}/cancel").status_code == 202


def test_a_process_that_lacks_a_stage_leaves_the_job_to_others(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "var")
    with lines.server(JOB_CONCURRENCY="0") as acceptor:
        user = acceptor.register()
        document_id = user.upload()["id"]
        job_id = begin(user, document_id)
        with lines.server("one@1 two@1") as lacking:
            until(lambda: lacking.logs("job.stage_missing"))
            job = until(lambda: (job := user.job(job_id))["state"] == "QUEUED" and job)
            assert (job["attempt"], lines.runs) == (0, [0, 0, 0])


def count(data_dir: Path, *where: Any) -> int:
    with databases.engine(data_dir).connect() as conn:
        return conn.scalar(select(func.count()).select_from(stage_results).where(*where)) or 0


def stored(server: Server) -> set[str]:
    return {path.name for path in (server.data_dir / "files" / "documents").glob("??/*")}


def test_what_is_kept_goes_with_the_last_document_of_its_content(server: Server) -> None:
    user, content = server.register(), pdf(uuid4().hex)
    mine = stage_results.c.owner_id == UUID(user.http.get("/auth/me").json()["id"])
    params = dict.fromkeys(ALL, LARGE)
    first, second = (user.upload(content)["id"] for _ in range(2))
    assert ran(user, first, params=params) == ALL
    used = user.http.get("/auth/me").json()["usage"]["bytes"]
    assert user.http.delete(f"/documents/{first}?permanent=true").status_code == 204
    assert count(server.data_dir, mine) == 3
    assert ran(user, second, params=params) == []
    assert abs(user.http.get("/auth/me").json()["usage"]["bytes"] - used + len(content)) < 100, "what is kept is free"
    with databases.engine(server.data_dir).connect() as conn:
        kept = [str(each) for each in conn.scalars(select(stage_results.c.file_id).where(mine))]
    assert stored(server) >= set(kept)
    assert user.http.delete(f"/documents/{second}?permanent=true").status_code == 204
    assert count(server.data_dir, mine) == 0
    until(lambda: not stored(server) & set(kept))


@pytest.mark.long
def test_what_is_kept_goes_with_its_account(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "var")
    with lines.server() as server:
        user, other = server.register(), server.register()
        ran(user, user.upload()["id"], params={"two": LARGE})
        ran(other, other.upload()["id"])
        done = run("users", "erase", user.email, "--yes", **server.environment)
        assert done.returncode == 0, done.stderr
        assert count(server.data_dir) == 3
        until(lambda: len(stored(server)) == 1)


def test_swept_by_age(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "var", STAGE_CACHE_TTL="2", ORPHAN_GRACE_SECONDS="0.5")
    with lines.server() as server:
        user = server.register()
        document_id = user.upload()["id"]
        ran(user, document_id, params={"two": LARGE})
        assert count(server.data_dir) == 3
        until(lambda: count(server.data_dir) == 0)
        until(lambda: len(stored(server)) == 2, failure=lambda: str(stored(server)))  # of the document and its result
        assert ran(user, document_id, force=False, params={"two": LARGE, "three": {"letters": 1}}) == ALL


def test_swept_by_bytes_the_least_recently_used_first(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "var", STAGE_CACHE_BYTES="2500", ORPHAN_GRACE_SECONDS="2")
    with lines.server() as server:
        user = server.register()
        stages = ["one", "two"]
        params: dict[str, Any] = {name: {"letters": 1000} for name in stages}
        first, second = user.upload()["id"], user.upload()["id"]
        ran(user, first, ["one"], params={"one": params["one"]})
        ran(user, second, stages, params=params)
        until(lambda: count(server.data_dir) == 2)
        assert ran(user, second, stages, params=params, force="last") == ["two"]
        assert ran(user, first, ["one", "three"], params={"one": params["one"]}) == ["one", "three"]


def test_what_belongs_to_no_document_is_swept(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "var", ORPHAN_GRACE_SECONDS="0.5")
    with lines.server() as server:
        user = server.register()
        ran(user, user.upload()["id"])
        with databases.engine(server.data_dir).begin() as conn:
            conn.execute(update(stage_results).values(input_sha256="0" * 64))
        until(lambda: count(server.data_dir) == 0)


def test_a_kept_file_that_is_lost_is_made_anew(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "var")
    with lines.server() as server:
        user, content = server.register(), pdf("lost")
        params = {"one": LARGE, "two": {"ask": "one"}}
        assert ran(user, user.upload(content)["id"], params=params) == ALL
        with databases.engine(server.data_dir).connect() as conn:
            of_one = select(files.c.id).join(stage_results, stage_results.c.file_id == files.c.id)
            lost = str(conn.scalar(of_one))
        (path,) = (server.data_dir / "files" / "documents").glob(f"??/{lost}")
        path.unlink()
        job = user.finished(begin(user, user.upload(content)["id"], params=params))
        assert (job["attempt"], lines.runs) == (2, [2, 1, 1])
        assert [each["cached"] for each in receipts(user, job).values()] == [False, True, True]


@pytest.mark.parametrize("stop", ["cancel", "delete"])
def test_a_job_that_is_cancelled_keeps_what_it_finished(stop: str, server: Server, lines: Lines) -> None:
    user = server.register()
    before = lines.runs[2]
    document_id = user.upload()["id"]
    job_id = begin(user, document_id, params={"three": {"seconds": 60}})
    until(lambda: lines.runs[2] > before)
    assert user.http.post(f"/jobs/{job_id}/cancel").status_code == 202
    mine = stage_results.c.owner_id == UUID(user.http.get("/auth/me").json()["id"])
    assert count(server.data_dir, mine) == 2
    if stop == "delete":
        assert user.http.delete(f"/documents/{document_id}?permanent=true").status_code == 204
        time.sleep(0.2)
        assert count(server.data_dir, mine) == 0
    else:
        assert ran(user, document_id) == ["three"]


def test_named_pipelines(server: Server) -> None:
    user = server.register()
    offered = {each["name"]: each for each in user.http.get("/processors").json()["items"]}
    assert offered["whole"]["stages"] == ALL
    assert offered["short"]["stages"] == ["one", "maybe?"]
    assert offered["one"]["stages"] is None
    assert set(offered["whole"]["params"]["properties"]) == set(ALL)
    document_id = user.upload()["id"]
    job = user.finished(user.start(document_id, processor="whole", params={"two": {"letters": 3}})["id"])
    assert (job["processor"], job["params"]["two"]["letters"]) == ("whole", 3)
    assert job["result_url"] == f"/documents/{document_id}/results/whole"
    assert list(receipts(user, job)) == ALL
    assert user.process(document_id, processor="whole", params={"two": {"letters": 3}}).status_code == 200
    assert [each["id"] for each in user.http.get("/jobs?processor=whole").json()["items"]] == [job["id"]]
    assert ran(user, document_id, params={"two": {"letters": 3}}) == [], "it is the same work, whatever its name"


def test_operators_pause_pipelines_and_run_them_again(tmp_path: Path) -> None:
    with Lines(tmp_path / "var", PIPELINES="whole=one,two,three").server() as server:
        operator, user = server.operator(), server.register()
        for name in ("pipeline", "whole"):
            assert operator.http.post(f"/admin/processors/{name}/pause").status_code == 200
            assert operator.http.post(f"/admin/processors/{name}/resume").status_code == 204
        document_id = user.upload()["id"]
        failing = {"three": {"fail": "permanent"}}
        user.finished(begin(user, document_id, params=failing))
        again = operator.http.post("/admin/jobs/rerun", json={"filter": {}, "confirm": 1})
        assert again.json()["changed"] == 1, again.text
        job = until(lambda: (jobs := user.http.get("/jobs").json()["items"])[0]["state"] == "FAILED" and jobs[0])
        assert (job["params"]["three"]["fail"], len(user.http.get("/jobs").json()["items"])) == ("permanent", 2)


def test_the_same_request_while_it_runs_and_in_a_batch_and_at_an_upload(server: Server) -> None:
    user = server.register()
    wanted = {"pipeline": ALL, "params": {"one": {"seconds": 0.5}}}
    uploaded = user.upload(metadata={"process": wanted})
    assert uploaded["job"]["processor"] == "pipeline"
    again = user.process(uploaded["id"], **wanted)
    assert (again.status_code, again.json()["job"]["id"]) == (200, uploaded["job"]["id"])
    for other in ({"pipeline": ALL[:2], "params": wanted["params"]}, {"processor": "one"}):
        assert user.process(uploaded["id"], **other).json()["code"] == "job-in-progress"
    receipts(user, user.finished(uploaded["job"]["id"]))
    documents = [user.upload()["id"] for _ in range(2)]
    batch = {"document_ids": documents, **wanted}
    answers = [user.http.post("/documents/process-batch", json=batch, headers={"Idempotency-Key": "b"}) for _ in "ab"]
    assert answers[0].json() == answers[1].json()
    for accepted in answers[0].json()["accepted"]:
        assert list(receipts(user, user.finished(accepted["job_id"]))) == ALL


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"pipeline": ["one", "nobody"]}, "unknown-processor", "/pipeline/1"),
    ({"pipeline": ["one", "whole"]}, "unknown-processor", "/pipeline/1"),
    ({"pipeline": ["one", "one?"]}, "validation-failed", "/pipeline"),
    ({"pipeline": []}, "validation-failed", "/pipeline"),
    ({"pipeline": ["one two"]}, "validation-failed", "/pipeline/0"),
    ({"pipeline": [f"s{number}" for number in range(11)]}, "validation-failed", "/pipeline"),
    ({"pipeline": ["one"], "processor": "two"}, "validation-failed", ""),
    ({"pipeline": ["one"], "params": {"one": {"letters": "a"}}}, "validation-failed", "/params/one/letters"),
    ({"pipeline": ["one"], "params": {"two": {}}}, "validation-failed", "/params/two"),
    ({"pipeline": ["one"], "params": {"one": 3}}, "validation-failed", "/params/one"),
    ({"processor": "whole", "params": {"one": {"colour": 1}}}, "validation-failed", "/params/one/colour"),
]


@pytest.mark.parametrize(("wanted", "code", "pointer"), REFUSED)
def test_what_is_refused(server: Server, wanted: dict[str, Any], code: str, pointer: str) -> None:
    user = server.register()
    document_id = user.upload()["id"]
    answers = [(user.process(document_id, **wanted), pointer)]
    answers += [(user.post_file(pdf(), metadata={"process": wanted}), f"/metadata/process{pointer}")]
    for answer, where in answers:
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (422, code), problem
        assert problem["errors"][0]["pointer"] == where, problem


@pytest.mark.parametrize(
    ("pipelines", "reason"),
    [
        ("scan=nobody", f"scan: there is no processor nobody; there are {', '.join(sorted(NAMES))}"),
        ("text=keywords", "text: the name is taken"),
        ("pipeline=text", "pipeline: the name is taken"),
        ("scan=text;scan=text", "scan: the name is taken"),
        ("scan=text,text", "scan: text is in it twice"),
        ("scan=text?", "scan: text does not tell where it is needed: it cannot have a ?"),
    ],
)
def test_a_pipeline_that_cannot_be_ends_the_start_with_one_line(pipelines: str, reason: str, tmp_path: Path) -> None:
    done = run("serve", DATA_DIR=str(tmp_path / "var"), PORT="0", PIPELINES=pipelines)
    assert done.returncode == 1
    assert done.stderr == f"configuration: PIPELINES: {reason}\n"
