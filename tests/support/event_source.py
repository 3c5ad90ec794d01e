"""Invokes the function of deploy/aws as the event source of its queue does: `event_source.py URL PROCESSOR`.

A hint of each job that waits comes again and again. The jobs are those that OWNER_KEY sees; API_KEY is the function's.
"""

import json
import os
import sys
import time
from pathlib import Path
from urllib.request import Request, urlopen
from uuid import uuid4

URL, PROCESSOR = sys.argv[1:]
OWNER = {"Authorization": f"Bearer {os.environ['OWNER_KEY']}"}
os.environ["API_URL"] = URL
sys.path.insert(0, str(Path(__file__).parents[2] / "deploy/aws/lambda"))

from handler import handler  # noqa: E402 - it is not installed


class Context:
    """Of an invocation that may take a minute."""

    def get_remaining_time_in_millis(self) -> float:
        return 60_000


while True:
    waiting = Request(f"{URL}/jobs?state=QUEUED&processor={PROCESSOR}", headers=OWNER)  # noqa: S310 - the test's
    with urlopen(waiting, timeout=60) as answer:  # noqa: S310
        jobs = json.load(answer)["items"]
    for job in jobs:
        hint = json.dumps({"job_id": job["id"], "processor": PROCESSOR, "api": URL})
        handler({"Records": [{"messageId": str(uuid4()), "body": hint}]}, Context())
    time.sleep(0.1)
