"""What a network, a busy service or another worker does to a call."""

import asyncio
import json

from app.remote.check.proxy import Fault, PassOn
from app.remote.check.traffic import Answer, Call

REJECTION = "result-invalid"
"""The code with which results are refused."""


def in_turn(*faults: Fault) -> Fault:
    """Each of these for one call, then none."""
    left = list(faults)

    async def fault(call: Call, pass_on: PassOn) -> Answer | None:
        return await (left.pop(0)(call, pass_on) if left else pass_on())

    return fault


def held_back(until: asyncio.Event) -> Fault:
    """The call is passed on at some later time."""

    async def fault(_: Call, pass_on: PassOn) -> Answer:
        await until.wait()
        return await pass_on()

    return fault


def busy(status: int, retry_after: int) -> Fault:
    """The service has no time for the call."""

    async def fault(call: Call, _: PassOn) -> Answer:
        call.disturbed = True
        problem = {"code": "too-busy", "detail": "The check answers so in place of the service."}
        return Answer.of(status, problem, **{"Retry-After": str(retry_after)})

    return fault


async def lost(call: Call, pass_on: PassOn) -> None:
    """The service does what it is asked, but its answer is lost."""
    call.disturbed = True
    await pass_on()


def lost_claim() -> Fault:
    """The first answer that gives the worker a job of the check is lost; jobs of others are left alone."""
    lost = list[Call]()

    async def fault(call: Call, pass_on: PassOn) -> Answer | None:
        answer = await pass_on()
        if lost or not call.job_id:
            return answer
        lost.append(call)
        call.disturbed = True
        return None

    return fault


async def taken_over(call: Call, _: PassOn) -> Answer:
    """Somebody else has the job by now."""
    call.disturbed = True
    return Answer.of(409, {"code": "lease-lost", "detail": "The check answers so in place of the service."})


async def rejected(call: Call, _: PassOn) -> Answer:
    """The service does not take the result."""
    call.disturbed = True
    return Answer.of(422, {"code": REJECTION, "detail": "The check answers so in place of the service."})


async def damaged(call: Call, pass_on: PassOn) -> Answer:
    """As many bytes come as there are, but the first of them is another one."""
    call.disturbed = True
    answer = await pass_on()
    return answer._replace(body=bytes(each ^ 1 for each in answer.body[:1]) + answer.body[1:])


async def extended(_: Call, pass_on: PassOn) -> Answer:
    """The service is newer than the worker, and says more."""
    answer = await pass_on()
    said = answer.said
    for each in (said, said.get("metadata"), *said.get("inputs", ())):
        if each:
            each["a_later_member"] = {"of": ["a", "later", "release"]}
    return answer._replace(body=json.dumps(said).encode()) if said else answer


def redirected(port: int) -> Fault:
    """The answer leads to another port."""

    async def fault(call: Call, _: PassOn) -> Answer:
        call.disturbed = True
        host = call.headers["Host"].rpartition(":")[0]
        return Answer(307, {"Location": f"http://{host}:{port}{call.path}"})

    return fault


def expired() -> Fault:
    """The URL that is tried first is good no more."""
    paths = list[str]()

    async def fault(call: Call, pass_on: PassOn) -> Answer:
        paths.append(call.path)
        if call.path != paths[0]:
            return await pass_on()
        call.disturbed = True
        return Answer(403, {"Content-Type": "application/xml"}, b"<Error><Code>AccessDenied</Code></Error>")

    return fault
