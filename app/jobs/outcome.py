"""What came of an attempt at a job, wherever it was made: whatever the work raises is an outcome."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from app.events.failure import Failure
from app.jobs import containment
from app.jobs.containment import Exited
from app.jobs.kinds import Failed, Outcome, Released, Retryable

log = structlog.get_logger()

CANCEL_TIMEOUT = 5.0  # seconds that work has to end in, once it is cancelled
TIMED_OUT = Retryable(Failure(code="job-timeout", detail="The attempt exceeded its time limit."))


async def outcome_of_work(work: Callable[[], Awaitable[Outcome]], queue: str, seconds: float) -> Outcome:
    """Do the work within so many seconds. Run it as a task of its own: it contains all tasks that the work makes."""
    limit = asyncio.timeout(seconds)
    containment.contained.set(True)
    try:
        async with limit:
            return await work()
    except asyncio.CancelledError:
        raise
    except (SystemExit, KeyboardInterrupt) as error:
        # Raised by the work, not by the interpreter: a signal's handler runs outside of any task here.
        return _exited(type(error).__name__, queue)
    except BaseException as error:
        if limit.expired():
            return TIMED_OUT
        if exited := _exit_in(error):
            return _exited(str(exited), queue)
        log.exception("job.broke", queue=queue)
        return _broken("The processor failed unexpectedly.")


def outcome_of_task(work: asyncio.Task[Outcome], *, stopping: bool) -> Outcome:
    """The outcome of a task that is done. It was cancelled by a shutdown, or by itself."""
    if not work.cancelled():
        return work.result()
    return Released() if stopping else _broken("The processor cancelled itself.")


def _exited(error: str, queue: str) -> Outcome:
    log.error("job.exited", queue=queue, error=error)
    return Failed(Failure(code="processor-exited", detail=f"The work raised {error}."))


def _broken(detail: str) -> Outcome:
    return Retryable(Failure(code="processor-error", detail=detail))


def _exit_in(error: BaseException) -> Exited | None:
    """The Exited that was raised, by itself or in a group."""
    if isinstance(error, Exited):
        return error
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return next(filter(None, map(_exit_in, inner)), None)
