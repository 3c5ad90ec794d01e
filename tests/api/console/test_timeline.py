"""What is drawn of the time of a document's jobs."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from app.console.documents import timeline
from app.console.documents.timeline import Picture
from app.events import TimelineItem
from app.jobs.models import JobState
from app.jobs.schemas import Job

BEGIN = datetime(2026, 11, 30, 12, tzinfo=UTC)
ERROR = {"code": "broken", "detail": "It broke."}


def happened(*story: tuple[float, str, dict[str, Any]]) -> tuple[Job, list[TimelineItem]]:
    """A job that ended, and its events: seconds after it was accepted, what, and more about that."""
    job_id = uuid4()
    items = [
        TimelineItem(
            id=uuid4(),
            event=f"job.{event}",
            at=BEGIN + timedelta(seconds=seconds),
            actor="worker:a",
            request_id=None,
            job_id=job_id,
            data={"attempt": 1, "fence": 1, **data},
        )
        for seconds, event, data in ((0, "queued", {}), *story)
    ]
    live = story[-1][1] in ("started", "retried", "released", "lease_lost") if story else True
    job = Job(
        id=job_id,
        document_id=None,
        file_number=1,
        kind="process",
        processor="text",
        params={},
        state=JobState.RUNNING if live else JobState.FAILED,
        attempt=1,
        max_attempts=5,
        progress=0,
        error=None,
        dead=False,
        run_at=BEGIN,
        created_at=BEGIN,
        started_at=None,
        finished_at=None,
        result_url=None,
    )
    return job, items


def drawn(*story: tuple[float, str, dict[str, Any]], now: float = 0) -> Picture:
    job, items = happened(*story)
    picture = timeline.pictures([job], items, BEGIN + timedelta(seconds=now))[job.id]
    ends = [0.0, *(bar.x + bar.width for bar in picture.bars)]
    assert [bar.x for bar in picture.bars] == pytest.approx(ends[:-1])
    assert all(bar.width > 0 and bar.seconds >= 0 for bar in (*picture.bars, *picture.stages))
    assert ends[-1] == pytest.approx(100 if picture.bars else 0)
    return picture


def looks(picture: Picture) -> list[tuple[str, float]]:
    return [(str(bar.look), round(bar.seconds, 3)) for bar in picture.bars]


def test_a_retry_after_a_pause_and_a_place_in_the_queue() -> None:
    picture = drawn(
        (1, "started", {}),
        (3, "retried", {"delay": 4.0, "error": ERROR}),
        (8, "started", {"attempt": 2}),
        (9, "lease_lost", {"attempt": 2}),
        (9, "started", {"attempt": 3}),
        (10, "failed", {"attempt": 3, "dead": True, "error": ERROR}),
    )
    assert looks(picture) == [
        *(("queued", 1), ("failed", 2), ("paused", 4), ("queued", 1)),
        *(("lost", 1), ("failed", 1)),
    ]
    assert [(each.number, each.error, each.delay) for each in picture.attempts] == [
        (1, ERROR, 4.0),
        (2, None, None),
        (3, ERROR, None),
    ]
    assert (picture.now, picture.seconds) == (None, 10)
    assert picture.bars[1].width == pytest.approx(20)


def test_a_short_attempt_after_a_long_wait_is_seen() -> None:
    picture = drawn((7200, "started", {}), (7200.005, "succeeded", {}))
    assert looks(picture) == [("queued", 7200), ("succeeded", 0.005)]
    assert 1 < picture.bars[1].width < 2


def test_no_time_goes_backwards() -> None:
    picture = drawn((-5, "started", {}), (-7, "retried", {"delay": 1.0, "error": ERROR}), (-9, "cancelled", {}))
    assert looks(picture) == [("failed", 0)]
    running = drawn((5, "started", {}), now=-60)
    assert looks(running) == [("queued", 5), ("running", 0)]


def test_where_it_stands_now() -> None:
    assert drawn(now=3).now == pytest.approx(100)
    running = drawn((1, "started", {}), now=4)
    assert (looks(running), running.now) == ([("queued", 1), ("running", 3)], pytest.approx(100))
    job, items = happened((0, "started", {}), (1, "retried", {"delay": 9.0, "error": ERROR}))
    job = job.model_copy(update={"state": JobState.QUEUED, "run_at": BEGIN + timedelta(seconds=10)})
    paused = timeline.pictures([job], items, BEGIN + timedelta(seconds=5.5))[job.id]
    assert (looks(paused), paused.now) == ([("failed", 1), ("paused", 9)], pytest.approx(55))


def test_stages_are_within_their_attempt() -> None:
    stage = {"version": "1", "cached": False, "skipped": False}
    picture = drawn(
        (10, "started", {}),
        (13, "stage_finished", stage | {"stage": "text", "seconds": 3}),
        (13, "stage_finished", stage | {"stage": "ocr", "seconds": 0, "skipped": True}),
        (17, "stage_failed", {"version": "1", "stage": "keywords", "seconds": 99, "error": ERROR}),
        (20, "failed", {"dead": False, "error": ERROR}),
    )
    assert [(each.name, str(each.look)) for each in picture.stages] == [
        ("text", "succeeded"),
        ("ocr", "skipped"),
        ("keywords", "failed"),
    ]
    attempt, last = picture.bars[-1], picture.stages[-1]
    assert picture.stages[0].x == attempt.x
    assert last.x + last.width < attempt.x + attempt.width
    assert picture.attempts[0].stages[-1].seconds == 4


def test_many_attempts_are_not_all_drawn() -> None:
    story = [each for n in range(100) for each in ((n, "started", {}), (n + 0.5, "released", {}))]
    picture = drawn(*story, now=100)
    assert (len(picture.bars), picture.cut, len(picture.attempts)) == (40, True, 100)


def test_a_job_whose_beginning_is_not_known_is_not_drawn() -> None:
    job, items = happened((1, "started", {}), (2, "failed", {"dead": False, "error": ERROR}))
    assert timeline.pictures([job], items[1:], BEGIN) == {}
    assert timeline.legend([]) == {}
