"""The examples do what they say."""

import os
import subprocess
import sys
from pathlib import Path

import httpx2

from tests.support import reaper
from tests.support.relay import Relay
from tests.support.server import Server, free_port
from tests.support.user import User
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


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


def test_a_processor_of_ones_own(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    run_by = [*("env", *(f"{name}={value}" for name, value in environment.items()))]
    with Server(tmp_path / "var", prefix=run_by, script=EXAMPLES / "own_processor.py") as server:
        user = server.register()
        content = b"%PDF-1.7\n" + b"z" * 100 + b"\nstartxref\n0\n%%EOF\n"
        document = user.upload(content)
        job = user.finished(user.start(document["id"], processor="bytes", params={"most": 1})["id"])
        data = user.http.get(job["result_url"]).json()["data"]
        assert data == {"size": len(content), "most_common": [ord("z")]}
        schemas = user.http.get("/openapi.json").json()["components"]["schemas"]
        assert {"BytesParams", "BytesResult"} <= schemas.keys()


def test_a_program_that_is_told(server: Server, tmp_path: Path) -> None:
    user, url = server.register(), f"http://127.0.0.1:{free_port()}/"
    webhook = user.http.post("/webhooks", json={"url": url}).json()
    path = f"/webhooks/{webhook['id']}"
    command = [sys.executable, EXAMPLES / "webhook_receiver.py", url.rpartition(":")[2].strip("/")]
    environment = {"WEBHOOK_SECRET": webhook["secret"], "PATH": os.environ["PATH"]}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, cwd=tmp_path, **pipes) as told:
        reaper.watch(told.pid)
        until(lambda: answers(url) == 401)
        ping = user.http.post(f"{path}/test").json()
        again = user.http.post(f"{path}/deliveries/{ping['id']}/redeliver").json()
        for each in (ping, again):
            until(lambda each=each: user.http.get(f"{path}/deliveries/{each['id']}").json()["state"] == "DELIVERED")
        told.terminate()
        assert told.stdout is not None
        [line] = told.stdout.read().decode().splitlines()
    assert line.split()[1] == "ping"
    assert webhook["id"] in line


def answers(url: str) -> int:
    """The status that an unsigned request is answered with; 0: there is nobody yet."""
    try:
        return httpx2.post(url, json={}).status_code
    except httpx2.TransportError:
        return 0
