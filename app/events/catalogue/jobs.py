"""What happens to jobs: to their attempts, and to the stages of a pipeline."""

from typing import Annotated

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from app.events.catalogue.base import Level, TimelineEvent
from app.events.failure import Failure

_Fence = Annotated[int, Field(description="Rises with every attempt.")]


class JobQueued(TimelineEvent):
    """A job was accepted. `processor` is what it is to run, if it is to process a document."""

    name = "job.queued"
    processor: str | SkipJsonSchema[None] = None


class _AttemptEvent(TimelineEvent):
    attempt: Annotated[int, Field(description="Counts from 1, without those that a shutdown ended.")]
    fence: _Fence


class JobStarted(_AttemptEvent):
    """A worker began an attempt."""

    name = "job.started"


class JobLeaseLost(_AttemptEvent):
    """The worker fell silent. The job goes back to the queue, or fails if it has no try left."""

    name = "job.lease_lost"
    _level = "warning"


class JobReleased(_AttemptEvent):
    """The worker was shut down. The job goes back to the queue."""

    name = "job.released"


class JobRetried(_AttemptEvent):
    """The attempt failed. The next one begins after `delay` seconds."""

    name = "job.retried"
    delay: float
    error: Failure


class JobFenced(TimelineEvent):
    """An outcome was refused, because the worker no longer held the job."""

    name = "job.fenced"
    fence: _Fence


class JobStageFinished(_AttemptEvent):
    """A stage of a pipeline is done, after so many seconds. `cached`: its result was there. `skipped`: the document did
    not need it."""

    name = "job.stage_finished"
    stage: str
    version: str
    seconds: float
    cached: bool
    skipped: bool


class JobStageFailed(_AttemptEvent):
    """A stage of a pipeline failed, after so many seconds. What becomes of the job is an event of its own."""

    name = "job.stage_failed"
    stage: str
    version: str
    seconds: float
    error: Failure


class JobSucceeded(_AttemptEvent):
    """The job is done."""

    name = "job.succeeded"


class JobFailed(TimelineEvent):
    """The job gave up. `dead`: it used up its tries.

    `attempt` and `fence` are missing if the worker of the last attempt fell silent.
    """

    name = "job.failed"
    attempt: int | SkipJsonSchema[None] = None
    fence: int | SkipJsonSchema[None] = None
    dead: bool
    error: Failure

    @property
    def level(self) -> Level:
        """A job that failed for good because of what it was given is no concern of the operator's."""
        return "warning" if self.dead else "info"


class JobCancelled(TimelineEvent):
    """The job's owner cancelled it, or an operator: the job alone, or with others, or with its account."""

    name = "job.cancelled"
    error: Failure
