"""The states of a document, and who moves it on."""

from enum import StrEnum


class Status(StrEnum):
    INITIATED = "INITIATED"
    """A direct upload was announced; the bytes are not here yet. Moved on by completing it, or by its expiry."""

    UPLOADED = "UPLOADED"
    """Bytes stored and verified. Moved on by a process call."""

    PROCESSING = "PROCESSING"
    """A job exists that will finish or fail. Moved on by its outcome; a cancellation restores the state before."""

    COMPLETED = "COMPLETED"
    """Exactly one current result exists. Moved on by a new job: other processor, other params, or forced."""

    FAILED = "FAILED"
    """The last job gave up; `error` says why. Moved on by a process call."""


SOURCES: dict[Status, frozenset[Status]] = {
    Status.UPLOADED: frozenset({Status.INITIATED, Status.PROCESSING}),
    Status.PROCESSING: frozenset({Status.UPLOADED, Status.COMPLETED, Status.FAILED}),
    Status.COMPLETED: frozenset({Status.PROCESSING}),
    Status.FAILED: frozenset({Status.PROCESSING}),
}
"""For each state, the states it may be entered from."""
