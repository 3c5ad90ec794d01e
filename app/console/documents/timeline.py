"""What is drawn of a document's jobs: how long each waited, each attempt and its stages, and the pauses between them.

A document has one job at a time, so each has a picture of its own, from its acceptance to its end or to now. Lengths
are in percent of the picture's width. What would be too short to be seen is drawn wider, and the rest gives way.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import accumulate
from typing import Any, NamedTuple
from uuid import UUID

from app.events import TimelineItem
from app.events.catalogue.jobs import (
    JobCancelled,
    JobFailed,
    JobLeaseLost,
    JobQueued,
    JobReleased,
    JobRetried,
    JobStageFailed,
    JobStageFinished,
    JobStarted,
    JobSucceeded,
)
from app.jobs.schemas import Job

_MOST = 40  # spans in one picture, the latest
_LEAST = 1.2  # percent that an attempt has at least
_LEAST_WAIT = 0.4


class Look(StrEnum):
    """What a bar is a picture of."""

    QUEUED = "queued"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"
    ENDED = "ended"
    RUNNING = "running"
    SKIPPED = "skipped"


WORDS = {
    Look.QUEUED: "waits in the queue",
    Look.PAUSED: "pauses before it is tried again",
    Look.SUCCEEDED: "succeeded",
    Look.FAILED: "failed",
    Look.LOST: "the worker fell silent",
    Look.ENDED: "was ended from outside",
    Look.RUNNING: "runs",
    Look.SKIPPED: "was not needed",
}
WAITS = (Look.QUEUED, Look.PAUSED)


class Bar(NamedTuple):
    """A part of the picture."""

    look: Look
    x: float
    width: float
    seconds: float
    name: str


class Stage(NamedTuple):
    """A stage of a pipeline in one attempt."""

    name: str
    look: Look
    began: datetime
    ended: datetime
    cached: bool
    error: dict[str, str] | None

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.ended - self.began).total_seconds()


class Attempt(NamedTuple):
    """An attempt. Its number is that of its event: one that a shutdown ended does not count."""

    number: int
    look: Look
    began: datetime
    ended: datetime
    error: dict[str, str] | None
    delay: float | None
    stages: list[Stage]

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.ended - self.began).total_seconds()


class Picture(NamedTuple):
    """A job's time, as it is drawn. `now` is where it stands; None: it has ended. `cut`: its beginning is left out."""

    bars: list[Bar]
    stages: list[Bar]
    now: float | None
    seconds: float
    attempts: list[Attempt]
    cut: bool

    @property
    def error(self) -> dict[str, str] | None:
        """What the last attempt failed with, if it did."""
        return self.attempts[-1].error if self.attempts else None


class _Span(NamedTuple):
    look: Look
    began: datetime
    ended: datetime
    attempt: Attempt | None = None

    @property
    def seconds(self) -> float:
        return (self.ended - self.began).total_seconds()

    @property
    def name(self) -> str:
        return f"Attempt {self.attempt.number}" if self.attempt else ""


def pictures(jobs: Sequence[Job], happened: Iterable[TimelineItem], now: datetime) -> dict[UUID, Picture]:
    """The pictures of jobs by their ids. One whose beginning is not among what happened has none."""
    of_jobs: dict[UUID | None, list[TimelineItem]] = {}
    for each in happened:
        if each.event == JobQueued.name:
            of_jobs[each.job_id] = [each]
        elif each.job_id in of_jobs:
            of_jobs[each.job_id].append(each)
    return {job.id: _picture(_Story(job, of_jobs[job.id], now)) for job in jobs if job.id in of_jobs}


def legend(drawn: Iterable[Picture]) -> dict[Look, str]:
    """What the bars of these pictures mean, in words."""
    looks = {bar.look for each in drawn for bar in (*each.bars, *each.stages)}
    return {look: said for look, said in WORDS.items() if look in looks}


class _Story:
    """Reads the events of a job, the oldest first. No time goes backwards, whatever clocks they were taken from."""

    def __init__(self, job: Job, happened: Sequence[TimelineItem], now: datetime) -> None:
        self.spans: list[_Span] = []
        self._at = happened[0].at
        self._pause: datetime | None = None
        self._open: tuple[int, datetime] | None = None  # an attempt: its number, and when it began
        self._stages: list[Stage] = []
        for each in happened:
            self._read(each, max(self._at, each.at))
        self.now = max(self._at, now) if job.state.live else None
        if self.now:
            self._go_on(self.now, job.run_at)

    def _read(self, item: TimelineItem, at: datetime) -> None:
        error, data = item.data.get("error"), item.data
        match item.event:
            case JobStarted.name:
                self._end(at, Look.ENDED)
                self._wait(at)
                self._open = (data["attempt"], at)
            case JobStageFinished.name | JobStageFailed.name:
                self._stage(data, at)
            case JobRetried.name:
                self._end(at, Look.FAILED, error, data["delay"])
                self._pause = at + timedelta(seconds=max(0.0, data["delay"]))
            case JobLeaseLost.name:
                self._end(at, Look.LOST)
            case JobReleased.name | JobCancelled.name:
                self._end(at, Look.ENDED, error)
                self._wait(at)
            case JobSucceeded.name:
                self._end(at, Look.SUCCEEDED)
            case JobFailed.name:
                self._end(at, Look.FAILED, error)
                self._wait(at)

    def _stage(self, data: dict[str, Any], at: datetime) -> None:
        if self._open:
            earliest = self._stages[-1].ended if self._stages else self._open[1]
            began = min(at, max(earliest, at - timedelta(seconds=max(0.0, data["seconds"]))))
            skipped = Look.SKIPPED if data.get("skipped") else Look.SUCCEEDED
            look, cached = (Look.FAILED if "error" in data else skipped), bool(data.get("cached"))
            self._stages.append(Stage(data["stage"], look, began, at, cached, data.get("error")))

    def _end(self, at: datetime, look: Look, error: dict[str, str] | None = None, delay: float | None = None) -> None:
        """End the attempt, if there is one."""
        if self._open:
            number, began = self._open
            attempt = Attempt(number, look, began, at, error, delay, self._stages)
            self.spans.append(_Span(look, began, at, attempt))
            self._open, self._stages, self._at = None, [], at

    def _wait(self, at: datetime) -> None:
        """What was between the last attempt and this moment: a pause, and then the queue."""
        paused = min(max(self._at, self._pause or self._at), at)
        self.spans += [
            span
            for span in (_Span(Look.PAUSED, self._at, paused), _Span(Look.QUEUED, paused, at))
            if span.ended > span.began
        ]
        self._at, self._pause = at, None

    def _go_on(self, now: datetime, run_at: datetime) -> None:
        """Up to now; a pause that is not over, up to its end."""
        if self._open:
            self._end(now, Look.RUNNING)
        elif self._pause and run_at > now:
            self._pause = run_at
            self._wait(run_at)
        else:
            self._wait(now)


def _picture(story: _Story) -> Picture:
    spans = story.spans[-_MOST:]
    least = [_LEAST_WAIT if span.look in WAITS else _LEAST for span in spans]
    widths = _shares([span.seconds for span in spans], least, 100)
    places = [0.0, *accumulate(widths)]
    drawn = list(zip(spans, places, widths, strict=False))
    return Picture(
        [Bar(span.look, x, width, span.seconds, span.name) for span, x, width in drawn],
        [bar for span, x, width in drawn if span.attempt for bar in _stages(span.attempt, x, width)],
        _place(spans, widths, story.now) if story.now else None,
        sum(span.seconds for span in spans),
        [span.attempt for span in story.spans if span.attempt],
        len(spans) < len(story.spans),
    )


def _stages(attempt: Attempt, x: float, width: float) -> Iterator[Bar]:
    """Yield the bars of the stages of an attempt that is drawn there, one after the other."""
    seconds = [stage.seconds for stage in attempt.stages]
    rest = max(0.0, attempt.seconds - sum(seconds))
    least = min(_LEAST, width / 2 / len(seconds)) if seconds else 0.0
    widths = _shares([*seconds, rest], [*(least for _ in seconds), 0.0], width)
    for stage, place, length in zip(attempt.stages, accumulate([x, *widths]), widths, strict=False):
        yield Bar(stage.look, place, length, stage.seconds, stage.name)


def _shares(seconds: Sequence[float], least: Sequence[float], whole: float) -> list[float]:
    """The whole, dealt in proportion to the seconds, but so that each has its least."""
    fixed: dict[int, float] = {}
    while len(fixed) < len(seconds):
        left = whole - sum(fixed.values())
        free = {number: each for number, each in enumerate(seconds) if number not in fixed}
        total = sum(free.values())
        small = {number: least[number] for number, each in free.items() if each * left <= least[number] * total}
        if not small:
            return [fixed.get(number, each * left / total) for number, each in enumerate(seconds)]
        fixed |= small
    wide = whole / (sum(fixed.values()) or 1)
    return [fixed[number] * wide for number in range(len(seconds))]


def _place(spans: Sequence[_Span], widths: Sequence[float], moment: datetime) -> float:
    """Where a moment is in the picture."""
    place = 0.0
    for span, width in zip(spans, widths, strict=True):
        if moment < span.ended:
            return place + width * max(0.0, (moment - span.began).total_seconds()) / span.seconds
        place += width
    return place
