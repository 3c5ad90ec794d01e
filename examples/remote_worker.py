"""A worker elsewhere: `API_KEY=dla_… python remote_worker.py https://documents.example.com count` claims jobs of the
processor `count` over HTTP, does them, and completes them.

The key needs the scope `worker`. Python's standard library is enough. A network that fails, or a service that is away,
costs nothing: each call may be repeated, and is done once.
"""

import hashlib
import json
import os
import sys
import time
from threading import Event, Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

NAME = os.environ.get("WORKER_NAME", f"worker-{os.getpid()}")
Job = dict[str, Any]


def work(content: bytes, params: dict[str, Any], stop: Event) -> dict[str, Any]:
    """The work itself: put yours here. Whatever it makes is thrown away once `stop` is set."""
    stop.wait(float(os.environ.get("WORK_SECONDS", "0")))
    return {"count": len(content) if params["of"] == "words" else 1}


def call(url: str, token: str, body: Any) -> tuple[int, bytes]:
    """POST what is said to the service."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    return ask("POST", url, headers, json.dumps(body).encode())


def ask(method: str, url: str, headers: dict[str, str], content: bytes | None = None) -> tuple[int, bytes]:
    """The status of the answer, and the answer. A call that got none, 429 or 5xx, is repeated."""
    while True:
        try:
            with urlopen(Request(url, content, headers, method=method), timeout=60) as answer:  # noqa: S310 - the user's
                return answer.status, answer.read()
        except HTTPError as error:
            if error.code < 500 and error.code != 429:
                return error.code, error.read()
        except OSError:
            say("nobody answers", url)
        time.sleep(1)


def beat(job: Job, here: str, stop: Event) -> None:
    """Keep the job, and set `stop` when it is lost or cancelled."""
    while not stop.wait(job["lease_seconds"] / 3):
        status, said = call(f"{here}/heartbeat", job["token"], {})
        if status != 200 or json.loads(said)["cancelled"]:
            stop.set()


def do(job: Job, here: str) -> None:
    stop = Event()
    Thread(target=beat, args=(job, here, stop), daemon=True).start()
    source = job["inputs"][0]
    _, content = ask("GET", source["url"], source["headers"])
    whole = hashlib.sha256(content).hexdigest() == source["sha256"]  # else it is damaged, or no longer this worker's
    try:
        data = work(content, job["params"], stop) if whole else None
        what, said = "complete", {"data": data}
    except Exception as error:  # noqa: BLE001 - whatever it is, the job can be tried again
        what, said = "fail", {"code": "worker-error", "detail": type(error).__name__, "transient": True}
    lost = stop.is_set() or not whole
    stop.set()
    say(job["job_id"], "lost" if lost else call(f"{here}/{what}", job["token"], said)[1].decode())


def say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    api, processor = sys.argv[1].rstrip("/"), sys.argv[2]
    while True:
        status, said = call(f"{api}/remote/{processor}/claim", os.environ["API_KEY"], {"worker": NAME, "wait": 20})
        if status not in {200, 204}:
            raise SystemExit(said.decode())
        if status == 200:
            job = json.loads(said)
            do(job, f"{api}/remote/jobs/{job['job_id']}")
