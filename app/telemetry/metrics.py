"""The instruments, defined once. `server/health.py` serves them.

With several worker processes `python -m app serve` gives them a shared folder (prometheus-client's multiprocess mode),
so any worker answers for all. What is in the database is read when metrics are scraped: see `wiring/gauges.py`.
"""

import os
import shutil
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics, multiprocess

disable_created_metrics()  # type: ignore[no-untyped-call] # a time for each series would double their number

_requests = Counter("document_api_http_requests_total", "Requests answered.", ["method", "route", "status"])
_request_seconds = Histogram(
    "document_api_http_request_duration_seconds",
    "Time from the first byte of the request to the last byte of the answer.",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
_request = cache(_requests.labels)  # finding a child by its labels takes longer than using it
_seconds = cache(_request_seconds.labels)
connections_refused = Counter(
    "document_api_connections_refused_total",
    "Connections refused: too many of this `process`, or of one `client`.",
    ["limit"],
)
rate_limited = Counter(
    "document_api_rate_limited_total", "Requests refused because there were too many, by policy.", ["policy"]
)
logins = Counter("document_api_logins_total", "Logins by outcome: succeeded, failed, throttled.", ["outcome"])
removed = Counter(
    "document_api_removed_total",
    "What upkeep has removed: documents that `expired` or were `purged`, announced `uploads`, previous `files`, "
    "`results`, and stored files that were `orphans`.",
    ["what"],
)
uploaded_bytes = Counter("document_api_uploaded_bytes_total", "Bytes of the files accepted.")
inbox_files = Counter(
    "document_api_inbox_files_total",
    "Files of the inbox by outcome: accepted, already_there, refused, postponed (each time).",
    ["outcome"],
)

job_wait = Histogram(
    "document_api_job_wait_seconds",
    "Time from the moment at which a job was due to the beginning of an attempt.",
    ["processor"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600),
)
job_run = Histogram(
    "document_api_job_run_seconds",
    "Time that an attempt took, by what came of it: succeeded, failed, dead, retried, released, fenced.",
    ["processor", "outcome"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800),
)
jobs_finished = Counter(
    "document_api_jobs_finished_total",
    "Jobs that ended, by outcome: succeeded, failed, dead (out of tries), cancelled.",
    ["processor", "outcome"],
)
leases_lost = Counter("document_api_job_leases_lost_total", "Running jobs whose worker stopped renewing its lease.")
polls_failed = Counter("document_api_job_polls_failed_total", "Polls and claims of jobs that failed.")
wakeups_not_sent = Counter("document_api_wakeups_not_sent_total", "Wake-ups that the broker did not accept.")

webhook_attempts = Counter(
    "document_api_webhook_attempts_total",
    "Requests to webhooks by outcome: delivered, refused (another status than 2xx), unreachable (no answer).",
    ["outcome"],
)
webhooks_disabled = Counter(
    "document_api_webhooks_disabled_total", "Webhooks that were disabled because they failed for too long, or are gone."
)

upkeep_skipped = Counter("document_api_upkeep_skipped_total", "Runs of a chore that were skipped or failed.", ["chore"])
upkeep_succeeded = Gauge(
    "document_api_upkeep_last_success_timestamp_seconds",
    "When a chore was done last; when the process started, if it was not since.",
    ["chore"],
    multiprocess_mode="max",
)
upkeep_interval = Gauge(
    "document_api_upkeep_interval_seconds", "Time between two runs of a chore.", ["chore"], multiprocess_mode="max"
)

database_unavailable = Counter(
    "document_api_database_unavailable_total",
    "Calls of the database that failed because it could not be used, by reason.",
    ["reason"],
)
storage_errors = Counter(
    "document_api_storage_errors_total", "Calls of the storage that failed: `full` or `unavailable`.", ["reason"]
)
storage_mismatches = Counter(
    "document_api_storage_mismatches_total",
    "Stored files that the scrubber found `missing`, or of another `size` or `content` than was stored.",
    ["kind"],
)
loop_lag = Histogram(
    "document_api_event_loop_lag_seconds",
    "How much later than asked for the event loop called back; it is asked for four times a second.",
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30),
)

# Sampled once a second by `wiring/gauges.py`.
requests_in_flight = Gauge(
    "document_api_http_requests_in_flight", "Requests being answered.", multiprocess_mode="livesum"
)
slots = Gauge(
    "document_api_slots",
    "How many at once: `jobs`, `deliveries`, `uploads`, `downloads`.",
    ["resource"],
    multiprocess_mode="livesum",
)
slots_in_use = Gauge(
    "document_api_slots_in_use", "How many of them are in use.", ["resource"], multiprocess_mode="livesum"
)
alarms = Gauge(
    "document_api_alarm", "1 while /readyz shows an alarm of this name.", ["alarm"], multiprocess_mode="livemax"
)


_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def count_request(method: str, route: str, status: int, seconds: float) -> None:
    """Count a finished request and its duration. All methods that no route has count as one: clients make them up."""
    method = method if method in _METHODS else "other"
    _request(method, route, status).inc()
    _seconds(method, route).observe(seconds)


def share_between_workers(data_dir: Path) -> None:
    """Give this server's processes an empty folder for their counters, and remove those of dead servers.

    Call it before any worker process starts.
    """
    root, host = data_dir / "metrics", socket.gethostname()
    for folder in root.glob(f"{host}-*"):
        pid = folder.name.removeprefix(f"{host}-")
        if pid.isdecimal() and (int(pid) == os.getpid() or not _alive(int(pid))):  # or of a host with a longer name
            shutil.rmtree(folder, ignore_errors=True)
    mine = root / f"{host}-{os.getpid()}"
    mine.mkdir(parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(mine)


def forget_dead_processes() -> None:
    """Remove the gauges of server processes that have ended: what was in use there is no more. Counters stay."""
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    for pid in {path.stem.rpartition("_")[2] for path in folder.glob("gauge_live*.db")}:
        if not _alive(int(pid)):
            with suppress(FileNotFoundError):  # another process was faster
                multiprocess.mark_process_dead(int(pid))  # type: ignore[no-untyped-call]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
