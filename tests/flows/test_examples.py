"""The examples do what they say."""

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest
from uuid_utils.compat import uuid7

from app.webhooks.kind import shown, signed
from tests.support import reaper
from tests.support.factories import PDF_TYPE, pdf
from tests.support.packages import install
from tests.support.relay import Relay
from tests.support.server import Server, free_port
from tests.support.user import User
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
LANGGRAPH = Path(sys.prefix, "langgraph")


def test_a_client_that_waits(server: Server) -> None:
    command = [sys.executable, EXAMPLES / "client.py", server.url, ROOT / "app/samples/sample.pdf"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip()


def test_a_client_with_a_key_whose_answers_get_lost(server: Server, user: User) -> None:
    """It asks again, and nothing is done twice."""
    wanted = {"name": "a client", "scopes": ["documents:read", "documents:write", "documents:process"]}
    api_key = user.http.post("/api-keys", json=wanted).json()["key"]
    relay = Relay(server.port)
    losses = [relay.lose_answer(b"POST /documents HTTP"), relay.lose_answer(b"/process HTTP")]
    command = [
        sys.executable,
        EXAMPLES / "client.py",
        f"http://127.0.0.1:{relay.port}",
        ROOT / "app/samples/sample.pdf",
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, env={"API_KEY": api_key})
    relay.cut()
    assert done.stdout.strip()
    assert all(loss.happened for loss in losses)
    [document] = user.http.get("/documents").json()["items"]
    assert user.story(document["id"]) == ["queued", "started", "succeeded"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the example's package is installed, and nothing else."""
    return str(install(EXAMPLES / "processor", tmp_path_factory.mktemp("wheel")))


def test_a_processor_in_a_package(tmp_path: Path, installed: str) -> None:
    environment = {"PYTHONPATH": installed, "PATH": os.environ["PATH"]}
    run_by = [*("env", *(f"{name}={value}" for name, value in environment.items()))]
    with Server(tmp_path / "var", {"PROCESSORS": "text,bytes"}, prefix=run_by) as server:
        user = server.register()
        content = b"%PDF-1.7\n" + b"z" * 100 + b"\nstartxref\n0\n%%EOF\n"
        document = user.upload(content, "z.pdf")
        job = user.finished(user.start(document["id"], processor="bytes", params={"most": 1})["id"])
        data = user.http.get(job["result_url"]).json()["data"]
        assert data == {"size": len(content), "most_common": [ord("z")], "filename": "z.pdf"}
        schemas = user.http.get("/openapi.json").json()["components"]["schemas"]
        assert {"BytesParams", "BytesResult"} <= schemas.keys()
        listed = {each["name"]: each for each in user.http.get("/processors").json()["items"]}["bytes"]
        assert (listed["content_types"], listed["at_once"], listed["default"]) == ([PDF_TYPE], 2, False)
        assert listed["params"]["properties"]["most"]["maximum"] == 256
        assert listed["result"]["required"] == ["size", "most_common", "filename"]


@pytest.mark.long
def test_what_its_author_types(tmp_path: Path, installed: str) -> None:
    """It is installed, and yet not there for a service that does not name it."""
    samples = [ROOT / "app/samples/sample.pdf"]

    def typed(*command: str | Path, **settings: str) -> "subprocess.CompletedProcess[str]":
        environment = {
            "PATH": os.environ["PATH"],
            "DATA_DIR": str(tmp_path / "var"),
            "PYTHONPATH": installed,
            **settings,
        }
        run = [sys.executable, "-m", "app", "processors", *command]
        return subprocess.run(run, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=60)

    assert typed("list", PROCESSORS="bytes,text").stdout == "bytes 1 (byte-counter 1.0)\ntext 3 (built in)\n"
    assert "bytes" not in typed("list").stdout
    done = typed("check", "bytes", *samples)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 9
    assert all(line.startswith("ok: ") for line in done.stdout.splitlines())
    done = typed("check", "bytes", ROOT / "app/samples/sample.docx")
    assert (done.returncode, done.stdout.splitlines()[-1].partition(": its")[0]) == (
        1,
        "not ok: sample.docx: it reads such files",
    )
    assert typed("check", "bytes", *samples, "--params", '{"most": 0}').stderr.startswith("params: 1 validation error")
    done = typed("check", "letters", *samples)
    told, _, there_are = done.stderr.partition("; there are ")
    assert (done.returncode, told) == (1, "configuration: PROCESSORS: there is no processor letters")
    assert {"simulated", "text", "bytes"} <= set(there_are.rstrip().split(", "))


@pytest.fixture(scope="module")
def with_graph(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where the example of a LangGraph is installed, with what it needs."""
    if not LANGGRAPH.exists():
        pytest.skip("there is no LangGraph in .venv/langgraph")
    return f"{install(EXAMPLES / 'langgraph', tmp_path_factory.mktemp('wheel'))}:{LANGGRAPH}"


@pytest.mark.long
def test_a_graph_that_fails_or_is_killed_goes_on_after_the_last_node(tmp_path: Path, with_graph: str) -> None:
    """And LangGraph reports nothing to anybody, even if its environment asks for it."""
    checkpoints, tracer = tmp_path / "checkpoints", socket.create_server(("127.0.0.1", 0))
    settings = {
        "PROCESSORS": "text,summary",
        "GRAPH_CHECKPOINTS": str(checkpoints),
        "LEASE_SECONDS": "1.5",
        "LANGSMITH_TRACING": "true",
        "LANGSMITH_ENDPOINT": f"http://127.0.0.1:{tracer.getsockname()[1]}",
        "LANGSMITH_API_KEY": "of-nobody",
    }
    run_by = ("env", f"PYTHONPATH={with_graph}")
    with Server(tmp_path / "var", settings, module="tests.support.failing_model", prefix=run_by) as server:
        user = server.register()

        def summarised(text: str) -> str:
            """The id of a job on a document that says so."""
            document = user.upload(pdf(text, pages=2))
            user.finished(user.start(document["id"], processor="text")["id"])
            return str(user.start(document["id"], processor="summary")["id"])

        def begun(job_id: str) -> list[tuple[int, str]]:
            """Its attempts and their nodes."""
            return [(line["attempt"], line["node"]) for line in server.logs("graph.node") if line["job_id"] == job_id]

        refused = summarised("Refuse once. Page")
        job = user.finished(refused)
        assert (job["state"], job["attempt"]) == ("SUCCEEDED", 2)
        assert begun(refused) == [(1, "split"), (1, "summarise"), (2, "summarise"), (2, "collect")]
        assert user.http.get(job["result_url"]).json()["data"] == {
            "text": "Refuse once.\n\nRefuse once.",
            "sections": 2,
        }

        killed = summarised("Wait. Page")
        until(lambda: begun(killed) == [(1, "split"), (1, "summarise")])
        server.kill()
        assert [path.name for path in checkpoints.glob("*.db")] == [f"{killed}.db"]
        user = server.restarted(user, MODEL_ANSWERS="yes")
        job = user.finished(killed)
        assert (job["state"], job["attempt"]) == ("SUCCEEDED", 2)
        assert begun(killed)[2:] == [(2, "summarise"), (2, "collect")]

        document = user.upload()
        job = user.finished(user.start(document["id"], processor="summary")["id"])
        assert (job["attempt"], job["error"]["code"]) == (1, "text-needed")
    assert list(checkpoints.iterdir()) == []
    tracer.settimeout(0)
    with tracer, pytest.raises(BlockingIOError):
        tracer.accept()


@pytest.mark.long
def test_a_graph_keeps_the_contract(tmp_path: Path, with_graph: str) -> None:
    environment = {
        "DATA_DIR": str(tmp_path / "var"),
        "GRAPH_CHECKPOINTS": str(tmp_path / "checkpoints"),
        "PYTHONPATH": with_graph,
        "PROCESSORS": "summary",
    }
    run = [sys.executable, "-W", "error", "-m", "app", "processors", "check", "summary", "app/samples/sample.pdf"]
    done = subprocess.run(run, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=60)
    # The saver's thread may end after the loop of the run that was cancelled, and complain of that.
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("ok: ") for line in done.stdout.splitlines())
    assert "(it failed with text-needed)" in done.stdout


@contextmanager
def told(url: str, secret: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The program that is told, at work."""
    command = [sys.executable, EXAMPLES / "webhook_receiver.py", url.rpartition(":")[2].strip("/")]
    environment = {"WEBHOOK_SECRET": secret, "PATH": os.environ["PATH"]}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, cwd=folder, **pipes) as program:
        reaper.watch(program.pid)
        until(lambda: answers(url) == 401)
        try:
            yield program
        finally:
            program.terminate()


def test_a_program_that_is_told(server: Server, tmp_path: Path) -> None:
    user, url = server.register(), f"http://127.0.0.1:{free_port()}/"
    webhook = user.http.post("/webhooks", json={"url": url}).json()
    path = f"/webhooks/{webhook['id']}"
    with told(url, webhook["secret"], tmp_path) as program:
        ping = user.http.post(f"{path}/test").json()
        again = user.http.post(f"{path}/deliveries/{ping['id']}/redeliver").json()
        for each in (ping, again):
            until(lambda each=each: user.http.get(f"{path}/deliveries/{each['id']}").json()["state"] == "DELIVERED")
        program.terminate()
        assert program.stdout is not None
        [line] = program.stdout.read().decode().splitlines()
    assert line.split()[1] == "ping"
    assert webhook["id"] in line


def test_what_a_program_fails_at_is_as_if_it_was_not_told(tmp_path: Path) -> None:
    url, secret, body = f"http://127.0.0.1:{free_port()}/", b"s" * 32, b'{"timestamp": "", "type": "ping", "data": {}}'
    with told(url, shown(secret), tmp_path) as program:
        assert program.stdout is not None
        program.stdout.close()
        with pytest.raises(httpx2.TransportError):
            httpx2.post(url, content=body, headers=signed(uuid7(), datetime.now(UTC), body, [secret]), timeout=60)
        with closing(sqlite3.connect(tmp_path / "seen.db", timeout=0)) as seen:
            seen.execute("BEGIN IMMEDIATE")
            assert seen.execute("SELECT id FROM seen").fetchall() == []


def answers(url: str) -> int:
    """The status that an unsigned request is answered with; 0: there is nobody yet."""
    try:
        return httpx2.post(url, json={}, timeout=60).status_code
    except httpx2.TransportError:
        return 0
