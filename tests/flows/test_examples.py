"""The examples do what they say."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.relay import Relay
from tests.support.server import Server
from tests.support.user import User

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
