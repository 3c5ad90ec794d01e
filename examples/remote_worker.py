"""A worker elsewhere: `API_KEY=dla_… python remote_worker.py https://documents.example.com count` does the jobs of the
processor `count`. The key needs the scope `worker`, and Python's standard library is enough."""

import hashlib
import json
import os
import sys
import time
from functools import partial
from http.client import HTTPException
from threading import Event, Thread
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

say = partial(print, flush=True)


class Stay(HTTPRedirectHandler):
    """Follows no redirect: the key would go there, too."""

    redirect_request = lambda *_: None  # noqa: E731 - as short as it can be


open_url = build_opener(Stay).open


def work(content, params, stop):
    """The work itself: put yours here. Once `stop` is set, nothing of what it makes is used."""
    stop.wait(float(os.environ.get("WORK_SECONDS", "0")))
    return {"count": len(content) if params["of"] == "bytes" else content.count(b"\n")}


def call(url, headers, said=None):
    """POST what is said as JSON, or GET. The same again after no answer, 429 or 5xx: it is done once all the same."""
    body, headers = said and json.dumps(said).encode(), {"Content-Type": "application/json"} | headers
    while True:
        wait = ""
        try:
            with open_url(Request(url, body, headers), timeout=60) as answer:  # noqa: S310 - the user's own
                return answer.status, answer.read()
        except HTTPError as error:
            if error.code < 500 and error.code != 429:
                return error.code, error.read()
            wait = error.headers.get("Retry-After", "")  # a proxy's may be a date
        except (OSError, HTTPException):
            say("nobody answers", url)
        time.sleep(float(wait) if wait.isdecimal() else 1)


def keep(job, here, headers, stop):
    """Send heartbeats until the job is done. Once it is lost or cancelled, `stop` is set."""
    while not stop.wait(job["lease_seconds"] / 3):
        status, said = call(f"{here}/heartbeat", headers, {"progress": 0})
        if status != 200 or json.loads(said)["cancelled"]:
            stop.set()


def do(job, here):
    """Do a job, and return what became of it."""
    headers, source, stop = {"Authorization": f"Bearer {job['token']}"}, job["inputs"][0], Event()
    Thread(target=keep, args=(job, here, headers, stop), daemon=True).start()
    how, said = "fail", {"code": "worker-error", "detail": "It did not work this time.", "transient": True}
    try:
        status, content = call(source["url"], source["headers"])
        if status == 200 and hashlib.sha256(content).hexdigest() == source["sha256"]:
            how, said = "complete", {"data": work(content, job["params"], stop)}
    except Exception as error:  # noqa: BLE001 - whatever it is, another attempt may succeed
        say(job["job_id"], repr(error))
    status, answer = (409, b"lost") if stop.is_set() else call(f"{here}/{how}", headers, said)
    if status in {404, 413, 422}:  # it is refused, and the job still held
        problem = json.loads(answer)
        said = {"code": problem["code"], "detail": problem["detail"], "transient": status == 404}
        _, answer = call(f"{here}/fail", headers, said)
    stop.set()
    return answer.decode()


if __name__ == "__main__":
    if len(sys.argv) != 3 or "API_KEY" not in os.environ:
        sys.exit("usage: API_KEY=dla_… python remote_worker.py URL PROCESSOR")
    api, key = f"{sys.argv[1].rstrip('/')}/remote", {"Authorization": f"Bearer {os.environ['API_KEY']}"}
    while True:
        status, said = call(f"{api}/{sys.argv[2]}/claim", key, {"worker": f"example-{os.getpid()}", "wait": 20})
        if status not in {200, 204}:
            sys.exit(f"{status} {said.decode()}")
        if status == 200:
            job = json.loads(said)
            say(job["job_id"], do(job, f"{api}/jobs/{job['job_id']}"))
