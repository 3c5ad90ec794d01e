"""The instruments, defined once. `server/health.py` serves them.

With several worker processes `python -m app serve` gives them a shared folder (prometheus-client's multiprocess mode),
so any worker answers for all. Gauges are read from the database when metrics are scraped.
"""

import os
import shutil
import socket
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily

_requests = Counter("http_requests_total", "Requests answered.", ["method", "route", "status"])
_request_seconds = Histogram(
    "http_request_duration_seconds",
    "Time from the first byte of the request to the last byte of the answer.",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
_request = cache(_requests.labels)  # finding a child by its labels takes longer than using it
_seconds = cache(_request_seconds.labels)
uploaded_bytes = Counter("uploaded_bytes_total", "Bytes of the files accepted.")
jobs_finished = Counter("jobs_finished_total", "Jobs that ended, by outcome.", ["outcome"])
jobs_retried = Counter("jobs_retried_total", "Attempts that failed and will be repeated.")
leases_lost = Counter("job_leases_lost_total", "Running jobs whose worker stopped renewing its lease.")
finishes_fenced = Counter("job_finishes_fenced_total", "Outcomes refused because the worker no longer held the lease.")
polls_failed = Counter("job_polls_failed_total", "Polls and claims of jobs that failed.")
wakeups_not_sent = Counter("wakeups_not_sent_total", "Wake-ups that the broker did not accept.")


upkeep_skipped = Counter("upkeep_skipped_total", "Runs of a chore that were skipped or failed.", ["chore"])


def gauge_by(label: str, name: str, documentation: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    """A gauge with one label, for one scrape. prometheus-client's own Gauge would be shared between processes."""
    family = GaugeMetricFamily(name, documentation, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count a finished request and its duration."""
    _request(method, route, status).inc()
    _seconds(method, route).observe(seconds)


def share_between_workers(data_dir: Path) -> None:
    """Give this server's processes an empty folder for their counters, and remove those of dead servers.

    Call it before any worker process starts.
    """
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
        pass
    return True
