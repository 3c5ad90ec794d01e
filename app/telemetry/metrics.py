"""The instruments, defined once. `health.py` serves them.

With several worker processes `python -m app serve` gives them a shared folder (prometheus-client's multiprocess mode),
so any worker answers for all. What is a fact of the database is not counted here but read when scraped.
"""

import os
import shutil
import socket
from functools import cache
from pathlib import Path

from prometheus_client import Counter, Histogram

requests = Counter("http_requests_total", "Requests answered.", ["method", "route", "status"])
request_seconds = Histogram(
    "http_request_duration_seconds",
    "Time from the first byte of the request to the last byte of the answer.",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
_request = cache(requests.labels)  # to find an instrument by its labels takes longer than to use it
_seconds = cache(request_seconds.labels)
uploaded_bytes = Counter("uploaded_bytes_total", "Bytes of the files accepted.")
jobs_finished = Counter("jobs_finished_total", "Jobs that ended, by outcome.", ["outcome"])
jobs_retried = Counter("jobs_retried_total", "Attempts that failed and will be repeated.")
leases_lost = Counter("job_leases_lost_total", "Running jobs taken back from a silent worker.")
finishes_fenced = Counter("job_finishes_fenced_total", "Outcomes refused because the worker no longer held the lease.")
hints_not_sent = Counter("hints_not_sent_total", "Hints that the broker did not take; a sweep repeats them.")

upkeep_skipped = Counter("upkeep_skipped_total", "Runs of a chore that were skipped or failed.", ["chore"])


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    _request(method, route, status).inc()
    _seconds(method, route).observe(seconds)


def share_between_workers(data_dir: Path) -> None:
    """Call before any worker starts: an empty folder of this server's own, and the ones of dead servers removed."""
    root, host = data_dir / "metrics", socket.gethostname()
    for folder in root.glob(f"{host}-*"):
        pid = folder.name.removeprefix(f"{host}-")
        if not pid.isdecimal() or int(pid) == os.getpid() or not _alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
    mine = root / f"{host}-{os.getpid()}"
    mine.mkdir(parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(mine)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
