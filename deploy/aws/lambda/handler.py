"""A worker elsewhere, as a function of AWS Lambda: each message of its queue is the hint that a job is due.

It claims that job, does what `work.py` says, sends what was made, and completes the job (docs/remote-workers.md). A
message comes again if the service could not be asked, or said that it is too early. Environment: API_URL, and
API_KEY_SECRET_ID, the secret that is an API key with the scope `worker`, or API_KEY, that key itself.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from functools import cache
from http.client import HTTPException
from threading import Event, Thread
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPRedirectHandler, Request, build_opener
from uuid import UUID

from work import Permanent, work

MARGIN = 10.0  # seconds before the function would be killed: time to give the job back
REPEAT = 1.0  # seconds after a call that got no answer, or one without Retry-After
Json = dict[str, Any]


class Away(Exception):
    """The service did not answer for as long as there was time."""


class Stay(HTTPRedirectHandler):
    """Follows no redirect: the key would go there, too."""

    def redirect_request(self, *_: Any) -> None:
        return None


open_url = build_opener(Stay).open


class Lost(Exception):
    """The job is somebody else's, was cancelled, or takes too long."""


class Refused(Exception):
    """The service did not take what was made. `said` fails the job."""

    def __init__(self, status: int, answer: bytes) -> None:
        super().__init__(status)
        self.said = refusal(status, answer)


def handler(event: Json, context: Any) -> Json:
    """Do the jobs of a batch of messages, and name those messages that are to come again."""
    ends = time.monotonic() + context.get_remaining_time_in_millis() / 1000 - MARGIN
    again = [record["messageId"] for record in event["Records"] if not done_with(record, ends)]
    return {"batchItemFailures": [{"itemIdentifier": each} for each in again]}


def done_with(record: Json, ends: float) -> bool:
    """Whether a message is of no more use."""
    try:
        job_id = UUID(str(json.loads(record["body"])["job_id"]))
    except (ValueError, KeyError, TypeError):
        say("no hint", message=record["messageId"])
        return False  # for the queue of dead letters, where somebody sees it
    try:
        name = f"lambda:{os.environ.get('AWS_LAMBDA_LOG_STREAM_NAME', '')}"[:80]
        here = f"{os.environ['API_URL'].rstrip('/')}/remote/jobs/{job_id}"
        status, said = call("POST", f"{here}/claim", api_key(), {"worker": name}, ends=ends)
        if status in {401, 403}:
            api_key.cache_clear()  # it was replaced, perhaps
        if status != 200:
            say("not claimed", job=str(job_id), status=status)
            return status in {404, 409}  # it is gone, done, or somebody else's
        Attempt(json.loads(said), here, ends).run()
    except Away:
        say("nobody answers", job=str(job_id))
        return False
    return True


class Attempt:
    """A job that was claimed."""

    def __init__(self, job: Json, here: str, ends: float) -> None:
        self.job, self.here, self.ends = job, here, ends
        self.over = Event()

    def run(self) -> None:
        """Do the work, and settle the job. Raises Away."""
        keeping = Thread(target=self.keep, daemon=True)
        keeping.start()
        try:
            what, said = "complete", self.made()
        except Lost:
            say("lost", job=self.job["job_id"])
            return
        except Permanent as error:
            what, said = "fail", {"code": error.code, "detail": str(error)}
        except Refused as error:
            what, said = "fail", error.said
        except Away:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the job can be tried again
            what, said = "fail", failure("worker-error", f"The worker failed: {type(error).__name__}.")
        finally:
            self.over.set()
        status, answer = self.ask("POST", what, said)
        if what == "complete" and status not in {200, 409}:
            what, (status, answer) = "fail", self.ask("POST", "fail", refusal(status, answer))
        say(what, job=self.job["job_id"], status=status)

    def made(self) -> Json:
        """Send what the work makes, and return what completes the job. Raises Lost, Permanent, Refused, Away."""
        outputs = []
        data, parts = work(self.input(), self.job["params"], self.job["filename"])
        for number, part in enumerate(self.until_over(parts)):
            query = urlencode({"name": part.name, "document": "true"})
            status, answer = self.ask("PUT", f"outputs/{number}?{query}", part.content)
            if status == 409:
                raise Lost
            if status != 200:
                raise Refused(status, answer)
            outputs.append({"number": number} | ({"metadata": part.metadata} if part.metadata else {}))
        return {"data": data, "outputs": outputs}

    def until_over(self, parts: Iterator[Any]) -> Iterator[Any]:
        for part in parts:
            if self.over.is_set():
                raise Lost
            yield part

    def input(self) -> bytes:
        """The document. Raises Lost, Away, and ValueError for what is not as it was stored."""
        given = self.job["inputs"][0]
        status, content = call("GET", given["url"], headers=given["headers"], ends=self.ends)
        if status == 409:
            raise Lost
        if status != 200:
            raise ValueError(f"the input was answered with {status}")
        if hashlib.sha256(content).hexdigest() != given["sha256"]:
            raise ValueError("the input is damaged")
        return content

    def keep(self) -> None:
        """Renew the lease until it is over, and give the job back when there is no more time."""
        while not self.over.wait(max(0.0, min(self.job["lease_seconds"] / 3, self.ends - time.monotonic()))):
            try:
                if time.monotonic() >= self.ends:
                    self.over.set()
                    self.ask("POST", "fail", failure("out-of-time", "The function had no more time for it."))
                    return
                status, answer = self.ask("POST", "heartbeat", {})
                if status != 200 or json.loads(answer)["cancelled"]:
                    self.over.set()
            except Away:
                return

    def ask(self, method: str, what: str, body: Any) -> tuple[int, bytes]:
        return call(method, f"{self.here}/{what}", self.job["token"], body, ends=self.ends + MARGIN / 2)


def call(
    method: str, url: str, token: str = "", body: Any = None, *, headers: Json | None = None, ends: float
) -> tuple[int, bytes]:
    """The status of the answer, and the answer. Raises Away.

    A call that got none, 408, 429 or 5xx is repeated, after Retry-After, unless that is later than `ends`.
    """
    said = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    kind = "application/pdf" if isinstance(body, bytes) else "application/json"
    sent = {"Authorization": f"Bearer {token}", "Content-Type": kind} if headers is None else headers
    while True:
        pause = REPEAT
        try:
            with open_url(Request(url, said, sent, method=method), timeout=30) as answer:  # noqa: S310 - the service's
                return answer.status, answer.read()
        except HTTPError as error:
            if error.code < 500 and error.code not in {408, 429}:
                return error.code, error.read()
            if (asked := error.headers.get("Retry-After", "")).isdecimal():
                pause = max(REPEAT, int(asked))
        except (OSError, HTTPException):
            pass
        if time.monotonic() + pause > ends:
            raise Away
        time.sleep(pause)


@cache
def api_key() -> str:
    """The key, read once in the life of this process."""
    if key := os.environ.get("API_KEY"):
        return key
    from botocore.session import get_session  # noqa: PLC0415 - Lambda's own runtime has it, others need not

    client = get_session().create_client("secretsmanager")
    key = client.get_secret_value(SecretId=os.environ["API_KEY_SECRET_ID"])["SecretString"]
    return key.strip()


def failure(code: str, detail: str) -> Json:
    """What may succeed at another attempt."""
    return {"code": code, "detail": detail, "transient": True}


def refusal(status: int, answer: bytes) -> Json:
    """Why the service did not take what was made."""
    if status in {401, 404}:  # it is not about what was made: settings that another process does not have yet, perhaps
        return failure("worker-error", f"The service answered {status} to what was made.")
    try:
        problem = json.loads(answer)
        return {"code": str(problem["code"]), "detail": str(problem["detail"])[:2000]}
    except (ValueError, KeyError, TypeError):
        return {"code": "worker-error", "detail": "The service did not take what was made."}


def say(event: str, **about: Any) -> None:
    sys.stdout.write(json.dumps({"event": event} | about) + "\n")
    sys.stdout.flush()
