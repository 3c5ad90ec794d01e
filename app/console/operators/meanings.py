"""What checks, alarms and chores mean, and what to do about them. docs/operations.md says more."""

from collections.abc import Mapping
from typing import NamedTuple

from prometheus_client import Counter

from app.telemetry import metrics


class Meaning(NamedTuple):
    """What something means for the service, and what an operator does about it."""

    means: str
    remedy: str


class Count(NamedTuple):
    """What a process counts that should be little, and what it means if it is much."""

    counter: Counter
    means: str


CHECKS: Mapping[str, Meaning] = {
    "database": Meaning(
        "Without its database the process answers most requests with 503.",
        "See that the database runs, can be reached, and takes writes. Processes connect again by themselves.",
    ),
    "storage": Meaning(
        "Without its storage, files can be neither stored nor sent, and jobs that need them are tried again later.",
        "See that the folder or the bucket of STORAGE_URL is there, and that the credentials are right.",
    ),
    "background": Meaning(
        "The process runs no jobs, no upkeep and no deliveries: what does them has ended.",
        "The log says why; restart the process, and report it.",
    ),
    "shutdown": Meaning(
        "The process is stopping: it begins nothing, and lets its jobs end.", "Nothing, if it was meant to stop."
    ),
}

ALARMS: Mapping[str, Meaning] = {
    "audit": Meaning(
        "The audit trail is signed with a key that follows from JWT_SECRET, and goes with it.",
        "Set AUDIT_KEY on all processes.",
    ),
    "broker": Meaning(
        "The broker cannot be reached. Jobs start up to a second later; nothing is lost.",
        "Check the broker. Processes connect again by themselves.",
    ),
    "disk": Meaning(
        "A disk is almost full. Once its reserve is reached, nothing can be added until there is room.",
        "Free space or enlarge the disk; deleting for good and emptying the trash free it at once.",
    ),
    "encryption": Meaning("There is no key for the secrets of webhooks: none can be added.", "Set ENCRYPTION_KEYS."),
    "hints": Meaning(
        "A queue that tells workers elsewhere of jobs cannot be reached. Those that only watch it begin later.",
        "Check the queue. Hints are repeated once it is back.",
    ),
    "limits": Meaning(
        "Redis cannot be reached, so each process counts requests for itself, and grants more in all.",
        "Check the Redis of LIMITS_URL.",
    ),
    "paused": Meaning(
        "An operator has paused a processor: its jobs are accepted and wait.",
        "Resume it on the page of processors once the reason is gone.",
    ),
    "queues": Meaning(
        "Jobs are due that this process cannot run: of another processor or version, or of one whose workers are "
        "elsewhere and claim none.",
        "Start a process that has the processor at this version, or such a worker. If none ever will, cancel the jobs.",
    ),
    "results": Meaning(
        "No processor is chosen: the default one only simulates work.", "Set PROCESSORS to what documents are for."
    ),
    "sandbox": Meaning(
        "The kernel lacks a guard around the processes that parse untrusted files.",
        "Run on a kernel with what the text names, or accept the risk.",
    ),
    "scrub": Meaning(
        "Stored files are missing, or are not as they were stored.",
        "Find them with python -m app check --deep, and restore them from a backup.",
    ),
    "storage": Meaning(
        "The files may belong to another database, so nothing is removed.",
        "Stop what should not run; then let the right one claim the files with python -m app adopt.",
    ),
    "upkeep": Meaning(
        "A chore was skipped. What it removes piles up until it is done.",
        "The text says why. python -m app sweep tries all at once.",
    ),
}

CHORES: Mapping[str, str] = {
    "api-keys": "deletes API keys that have expired",
    "api-keys-expiring": "tells of API keys that are about to expire",
    "audit-seals": "seals the audit trail",
    "discarded-files": "forgets files that were removed long ago",
    "events": "deletes events that are older than EVENTS_TTL",
    "expired-documents": "moves documents whose time is over to the trash",
    "inbox": "takes in the files of the inbox",
    "many-idempotency-keys": "deletes the oldest Idempotency-Keys of accounts that have too many",
    "orphan-files": "removes files that belong to no document",
    "remote-hints": "repeats hints of jobs that no worker elsewhere has claimed",
    "remote-outputs": "forgets files that workers elsewhere have sent and never published",
    "previous-files": "removes files that documents had before, once they are old",
    "results": "deletes results that are older than RESULT_TTL",
    "scrub": "reads stored files back",
    "stage-results": "deletes results of stages that nothing has used for long",
    "too-many-files": "removes the oldest of too many files that a document had before",
    "trash": "deletes for good what has been in the trash for long",
    "webhook-log": "deletes the log of old deliveries",
}

SLOTS: Mapping[str, str] = {
    "jobs": "attempts under way",
    "deliveries": "requests to webhooks",
    "uploads": "files that are received",
    "downloads": "files, results and exports that are sent",
    "pictures": "pages that are drawn",
    "streams": "streams of events, and live pages",
}

COUNTED: Mapping[str, Count] = {
    "requests refused": Count(
        metrics.rate_limited, "Clients asked more often than they may, by the limit that they reached."
    ),
    "connections refused": Count(
        metrics.connections_refused, "There were too many connections, of all or of one client."
    ),
    "leases lost": Count(
        metrics.leases_lost,
        "Workers fell silent, and this process gave their jobs back: they died, or were overloaded.",
    ),
    "polls failed": Count(metrics.polls_failed, "The process could not look for jobs; it tries again by itself."),
    "storage errors": Count(metrics.storage_errors, "Calls of the storage failed, by reason."),
    "database errors": Count(metrics.database_unavailable, "The database could not be used, by reason."),
}
