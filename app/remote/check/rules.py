"""The rules of docs/remote-workers.md, each as a trial of a worker."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import NamedTuple

from app.remote.check import faults
from app.remote.check.credentials import require_own_credentials
from app.remote.check.traffic import Call
from app.remote.check.trial import Trial
from app.remote.check.watch import Broken

FEW = 5  # leases within which a worker goes on that has lost its job
MORE = 2  # heartbeats that it may send after one was answered `cancelled`
_EARLY = 0.1  # seconds that a worker may be earlier than `Retry-After`: clocks tick


class Rule(NamedTuple):
    """A rule, and the section of docs/remote-workers.md that states it. `check` raises Broken, NotJudged."""

    name: str
    promise: str
    section: str
    check: Callable[[Trial], Awaitable[None]]


async def _job(trial: Trial) -> None:
    await trial.claimed()
    await trial.completed()


async def _lease(trial: Trial) -> None:
    trial.hold_input()
    claim = await trial.claimed()
    await trial.reads()
    lease, end = trial.pace.lease, time.monotonic() + 2 * trial.pace.lease
    while time.monotonic() < end:
        trial.still_reads()
        held = [claim.ended_at, *(each.at for each in trial.calls("heartbeat"))]
        if time.monotonic() - held[-1] > lease:
            raise Broken(f"{lease:g} seconds passed without a heartbeat while it held a lease of {lease:g} seconds")
        await asyncio.sleep(0.02)


async def _lost_answer(trial: Trial) -> None:
    trial.proxy.faults["complete"] = faults.in_turn(faults.lost)
    await trial.claimed()
    await trial.seen("complete", 1, "it did not complete the job")
    await trial.seen("complete", 2, "it did not repeat `complete` whose answer was lost")
    await trial.completed()


async def _lost_claim(trial: Trial) -> None:
    await trial.disturb_claims(faults.lost_claim())
    claim = await trial.claimed()
    await trial.until(lambda: trial.claims()[-1].at > claim.ended_at, lambda: "it claims nothing more since then")


async def _busy(trial: Trial) -> None:
    wait = trial.pace.retry_after
    unavailable, limited = faults.busy(503, wait), faults.busy(429, wait)
    trial.proxy.lease = 3 * trial.pace.lease  # so that a heartbeat that is late for `Retry-After` is in time
    await trial.disturb_claims(faults.in_turn(unavailable, limited))
    trial.proxy.faults |= {
        "heartbeat": faults.in_turn(unavailable),
        "output": faults.in_turn(unavailable),
        "complete": faults.in_turn(unavailable, limited),
    }
    trial.hold_input()
    await trial.claimed()  # one that is told of jobs claims nothing before there is one
    await trial.until(
        lambda: [each for each in trial.claims() if each.status in {429, 503}][1:],
        lambda: "it did not repeat a claim",
    )
    await trial.reads()
    await trial.seen("heartbeat", 2, "it did not repeat a heartbeat that was answered 503")
    trial.release()
    await trial.seen("complete", 1, "it did not complete the job")
    await trial.seen("complete", 2, "it did not repeat `complete` that was answered 503")
    await trial.seen("complete", 3, "it did not repeat `complete` that was answered 429")
    await trial.completed()
    for calls in (trial.claims(), trial.calls("heartbeat"), trial.calls("complete")):
        _require_patience(calls, wait)


def _require_patience(calls: list[Call], wait: float) -> None:
    """Raises Broken if a call was repeated before `Retry-After`."""
    if any(again.at < call.ended_at for call, again in pairwise(calls)):
        return  # there are several at once: which of them is a repetition?
    for call, again in pairwise(calls):
        after = again.at - call.ended_at
        if call.disturbed and call.status in {429, 503} and after < wait - _EARLY:
            early = f"after {after:.1f} seconds, and was to wait for {wait} (`Retry-After`)"
            raise Broken(f"it repeated a {call.kind} that was answered {call.status} {early}")


async def _cancelled(trial: Trial) -> None:
    trial.hold_input()
    await trial.claimed()
    await trial.reads()
    await trial.service.cancel()

    def told() -> list[Call]:
        return [each for each in trial.calls("heartbeat") if each.answer and each.answer.said.get("cancelled")]

    await trial.until(told, lambda: "it sent no heartbeat")
    await asyncio.sleep(2 * trial.pace.lease)
    if len(told()) > 1 + MORE:
        raise Broken(f"it sent {len(told()) - 1} more heartbeats after one was answered `cancelled`")
    await _goes_on(trial)


async def _lost_lease(trial: Trial) -> None:
    trial.proxy.faults |= dict.fromkeys(("heartbeat", "output", "complete", "fail"), faults.taken_over)
    trial.hold_input()
    job_id = (await trial.claimed()).job_id
    await trial.reads()
    await trial.seen("heartbeat", 1, "it sent no heartbeat")
    await asyncio.sleep(max(trial.pace.lease, trial.pace.grace))
    if trial.calls("heartbeat")[1:]:
        raise Broken("it repeated a heartbeat that was answered 409 `lease-lost`")
    await _goes_on(trial)
    _require_silence(trial, job_id)


async def _refused(trial: Trial) -> None:
    trial.proxy.faults["complete"] = trial.proxy.faults["fail"] = faults.taken_over
    job_id = (await trial.claimed()).job_id
    await trial.seen("complete", 1, "it did not complete the job")
    await asyncio.sleep(trial.pace.grace)
    _require_silence(trial, job_id)
    await _goes_on(trial)
    _require_silence(trial, job_id)


async def _rejected(trial: Trial) -> None:
    trial.proxy.faults["complete"] = faults.rejected
    await trial.claimed()
    await trial.seen("complete", 1, "it did not complete the job")
    told = f"`complete` that was answered 422 `{faults.REJECTION}`"
    failed = await trial.seen("fail", 1, f"it did not fail the job after {told}")
    if failed.status != 200:
        raise Broken(f"it did not fail the job after {told}: fail was answered {failed.answer}")
    code, detail = failed.said["code"], failed.said["detail"]
    if faults.REJECTION not in f"{code} {detail}":
        raise Broken(f"it failed the job after {told} without that code, so nobody learns why: {code}: {detail}")


def _require_silence(trial: Trial, job_id: str) -> None:
    """Raises Broken if what came of a job that was lost was said more than once."""
    if trial.calls("fail", job_id=job_id):
        raise Broken("it failed a job that it had lost")
    if trial.calls("complete", job_id=job_id)[1:]:
        raise Broken("it repeated `complete` that was answered 409 `lease-lost`")


async def _goes_on(trial: Trial) -> None:
    limit = FEW * trial.pace.lease
    try:
        await trial.goes_on(limit)
    except Broken:
        raise Broken(
            f"it claimed no other job within {limit:g} seconds: it goes on with the one that is lost"
        ) from None


async def _damaged(trial: Trial) -> None:
    trial.proxy.faults["input"] = faults.in_turn(faults.damaged)
    await trial.claimed()
    await trial.recovers()


async def _expired(trial: Trial) -> None:
    trial.proxy.faults["input"] = faults.expired()
    await trial.claimed()
    await trial.recovers()


async def _unknown(trial: Trial) -> None:
    await trial.disturb_claims(faults.extended)
    trial.proxy.faults |= dict.fromkeys(("heartbeat", "output", "complete"), faults.extended)
    trial.hold_input()
    await trial.claimed()
    await trial.reads()
    await trial.seen("heartbeat", 1, "it sent no heartbeat")
    trial.release()
    await trial.completed()


async def _credentials(trial: Trial) -> None:
    await trial.claims_answered()
    trial.proxy.faults["input"] = faults.in_turn(faults.redirected(trial.proxy.other_port))
    await trial.claimed()
    await trial.until(
        lambda: [each for each in trial.calls("complete", "fail") if each.ended],
        lambda: "it neither completed the job nor said that it has failed",
    )
    require_own_credentials(trial.proxy)


_JOB, _WRONG = "One job", "When something goes wrong"
RULES = (
    Rule("job", "claims a job, and completes it with a result that the service takes", _JOB, _job),
    Rule("lease", "sends heartbeats within each lease while it works", _WRONG, _lease),
    Rule("lost-answer", "repeats `complete` whose answer was lost", _WRONG, _lost_answer),
    Rule("lost-claim", "goes on claiming when the answer to a claim was lost", _WRONG, _lost_claim),
    Rule("busy", "repeats what was answered 503 or 429, after `Retry-After`", _WRONG, _busy),
    Rule("cancelled", "stops when a heartbeat says `cancelled`, and goes on to the next job", _WRONG, _cancelled),
    Rule("lost-lease", "stops when a heartbeat is answered 409, and goes on to the next job", _WRONG, _lost_lease),
    Rule("refused", "lets go of a job when `complete` is answered 409, and goes on to the next", _WRONG, _refused),
    Rule("rejected", "fails a job whose result is refused, with what it was told", _WRONG, _rejected),
    Rule("damaged", "does not complete a job with bytes that have another SHA-256", _WRONG, _damaged),
    Rule("expired", "takes a fresh URL when that of an input has expired, or fails as transient", _WRONG, _expired),
    Rule("unknown", "ignores members of answers that it does not know", _WRONG, _unknown),
    Rule("credentials", "sends key, token and an input's headers to where they belong", _JOB, _credentials),
)
