"""The states of a document, and what moves it from one to the next."""

from enum import StrEnum


class Status(StrEnum):
    """The state of a document."""

    INITIATED = "INITIATED"
    """A direct upload was announced, and its bytes are not verified yet. Ends when it is completed, or expires."""

    UPLOADED = "UPLOADED"
    """The bytes are stored and verified, and no job has read them yet. Ends with a process call."""

    PROCESSING = "PROCESSING"
    """A job exists that will succeed or fail. Ends with its outcome; a cancellation restores the state before."""

    COMPLETED = "COMPLETED"
    """The latest job succeeded. Ends with a process call for work without a current result, or with `force`, or
    when its file is replaced."""

    FAILED = "FAILED"
    """The last job failed, or the operator's check has found the file missing; `error` says why. Ends with a process
    call, or when its file is replaced."""


REPLACEABLE = frozenset({Status.UPLOADED, Status.COMPLETED, Status.FAILED})
"""The states in which a document's file can be replaced, after which it is UPLOADED."""

SOURCES: dict[Status, frozenset[Status]] = {
    Status.UPLOADED: frozenset({Status.INITIATED, Status.PROCESSING}) | REPLACEABLE,
    Status.PROCESSING: frozenset({Status.UPLOADED, Status.COMPLETED, Status.FAILED}),
    Status.COMPLETED: frozenset({Status.PROCESSING}),
    Status.FAILED: frozenset({Status.PROCESSING, Status.UPLOADED}),
}
"""For each state, the states from which it may be entered."""
