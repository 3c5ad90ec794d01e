"""A worker elsewhere that keeps every rule but those that are named: `fallible_worker.py URL PROCESSOR [DEFECT...]`."""

import hashlib
import json
import os
import sys
import time
from threading import Event, Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

API, PROCESSOR, *DEFECTS = sys.argv[1:]
KEY = os.environ["API_KEY"]


def has(defect: str) -> bool:
    return defect in DEFECTS


class Redirects(HTTPRedirectHandler):
    def redirect_request(self, *told: Any) -> Request | None:
        return super().redirect_request(*told) if has("follows redirects") else None


open_url = build_opener(Redirects).open


def call(method: str, url: str, headers: dict[str, str], body: Any = None) -> tuple[int, bytes]:
    refused = 0
    content, headers = body and json.dumps(body).encode(), headers | {"Content-Type": "application/json"}
    while True:
        wait = 0.2
        try:
            with open_url(Request(url, content, headers, method=method), timeout=60) as answer:  # noqa: S310 - the test's
                return answer.status, answer.read()
        except HTTPError as error:
            status, said, wait = error.code, error.read(), float(error.headers.get("Retry-After", wait))
            refused += 1
            again = status == 409 and refused < 3 and has("repeats what is refused")
            if not again and (status not in {429, 503} or has("gives up at 503")):
                return status, said
            if has("is impatient"):
                wait = 0.2
        except OSError:
            if url.endswith("complete") and has("says it once"):
                return 0, b""
            if url.endswith("claim") and has("ends when a claim is lost"):
                raise SystemExit(3) from None
        time.sleep(wait)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class Attempt:
    def __init__(self, job: dict[str, Any]) -> None:
        self.here = f"{API}/remote/jobs/{job['job_id']}"
        self.token = bearer(KEY if has("uses the key for all") else job["token"])
        self.input = job["inputs"][0]
        self.lease = job["lease_seconds"]
        self.stop = Event()

    def beat(self) -> None:
        status, answer = call("POST", f"{self.here}/heartbeat", self.token, {"progress": 0})
        said = json.loads(answer)
        if (status != 200 and not has("beats on")) or (said.get("cancelled") and not has("is not cancelled")):
            self.stop.set()
        elif status == 200 and said["inputs"]:
            self.input = said["inputs"][0]

    def keep(self) -> None:
        while not self.stop.wait(self.lease / 3):
            if not has("is silent"):
                self.beat()

    def read(self) -> bytes:
        if has("reads nothing"):
            return b""
        headers = dict(self.input["headers"])
        if has("shows its key"):
            headers["X-Key"] = KEY
        status, content = call("GET", self.input["url"], headers)
        if status == 403 and has("does without"):
            return b""
        if status != 200:
            self.beat()
            status, content = call("GET", self.input["url"], headers)
        if hashlib.sha256(content).hexdigest() != self.input["sha256"] and not has("believes all"):
            raise ValueError("damaged")
        return content

    def do(self) -> None:
        Thread(target=self.keep, daemon=True).start()
        what, said = "complete", dict[str, Any]()
        try:
            said = {"data": {"count": len(self.read())}}
        except ValueError as error:
            transient = not has("is final")
            what, said = "fail", {"code": "input", "detail": str(error), "transient": transient}
        if not self.stop.is_set():
            self.stop.set()
            status, answer = call("POST", f"{self.here}/{what}", self.token, said)
            if status == 422 and not has("drops what is refused"):
                problem = json.loads(answer)
                code = "unknown" if has("gives no reason") else problem["code"]
                call("POST", f"{self.here}/fail", self.token, {"code": code, "detail": problem["detail"]})
            if status == 409 and has("fails what is lost"):
                call("POST", f"{self.here}/fail", self.token, {"code": "lost", "detail": "Lost.", "transient": True})


while True:
    status, answer = call("POST", f"{API}/remote/{PROCESSOR}/claim", bearer(KEY), {"worker": "fallible", "wait": 20})
    if status == 200:
        job = json.loads(answer)
        if not (has("knows all members") and any("a_later_member" in each for each in (job, job["metadata"]))):
            Attempt(job).do()
    elif status != 204:
        time.sleep(0.2)
