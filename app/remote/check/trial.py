"""What rules have at hand: the proxy, the service, and waiting for what the worker does."""

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from app.remote.check.faults import held_back
from app.remote.check.program import Program
from app.remote.check.proxy import Fault, Proxy
from app.remote.check.service import Service
from app.remote.check.traffic import Call
from app.remote.check.watch import Broken, Watch


class NotJudged(Exception):
    """Whether the worker keeps a rule was not to be seen; the message says why."""


class Pace(NamedTuple):
    """Seconds: that a rule's next step may take, of the lease that is told, of `Retry-After`, and that a worker is
    watched for what it should not do."""

    limit: float = 60
    lease: float = 3
    retry_after: int = 2
    grace: float = 1.5


class Trial(Watch):
    """One rule on trial. What disturbs the worker ends with `end`."""

    def __init__(
        self,
        proxy: Proxy,
        program: Program,
        service: Service,
        processor: str,
        params: Mapping[str, Any],
        pace: Pace,
    ) -> None:
        super().__init__(proxy, program, pace.limit)
        self.service = service
        self.pace = pace
        self._processor = processor
        self._params = params
        self._held = asyncio.Event()
        proxy.lease = pace.lease

    def end(self) -> None:
        """Disturb nothing any more."""
        self.proxy.faults.clear()
        self.proxy.job_id = ""
        self.release()

    def hold_input(self) -> None:
        """Have the inputs of the next job come when they are released."""
        self.proxy.faults["input"] = held_back(self._held)

    def release(self) -> None:
        """Let inputs come that were held back."""
        self._held.set()

    async def disturb_claims(self, fault: Fault) -> None:
        """Disturb claims, once those that are under way are answered."""
        self.proxy.faults["claim"] = fault
        await self.claims_answered()

    async def claims_answered(self) -> None:
        """Wait for the answers to claims that are under way: they are disturbed as was wanted when they came."""
        before = [each for each in self.claims() if not each.ended]
        await self.until(lambda: all(each.ended for each in before), lambda: "a claim is never answered")

    async def claimed(self, limit: float | None = None) -> Call:
        """Begin a job, and wait until the worker has claimed it. Raises Broken."""
        job_id = await self.service.start(self._processor, self._params)

        def claim() -> Call | None:
            ended = [each for each in self.calls("claim", job_id=job_id) if each.ended]
            return next((each for each in ended if each.status == 200 or each.disturbed), None)

        return await self.until(claim, lambda: f"it did not claim the job{_refusal(self.claims())}", limit)

    async def seen(self, kind: str, count: int, otherwise: str) -> Call:
        """The call of a kind about the job that makes so many of them, once it has ended. Raises Broken."""

        def last() -> Call | None:
            ended = [each for each in self.calls(kind) if each.ended]
            return ended[count - 1] if len(ended) >= count else None

        return await self.until(last, lambda: self._failure() or otherwise)

    async def reads(self) -> None:
        """Wait until the worker reads the input that is held back. Raises Broken, NotJudged."""
        await self.until(lambda: self.calls("input", "complete", "fail"), lambda: "it did not read its input")
        self.still_reads()

    def still_reads(self) -> None:
        """Raises NotJudged if the worker has given up an input that is held back, or needs none."""
        if not self.calls("input"):
            raise NotJudged("it reads no input")
        if self.calls("complete", "fail"):
            raise NotJudged("it did not wait for its input for so long")

    async def completed(self) -> None:
        """Wait until the job is completed, as the service sees it, too. Raises Broken."""

        def settled() -> bool:
            final = {200, 401, 404}  # what else is refused may be mended
            return any(each.status in final for each in self.calls("complete", "fail"))

        def otherwise() -> str:
            about = ("heartbeat", "input", "output", "complete", "fail")
            return f"it did not complete the job{_refusal(self.calls(*about))}"

        await self.until(settled, otherwise)
        if failure := self._failure():
            raise Broken(failure)
        if self.calls("complete")[-1].status != 200:
            raise Broken(otherwise())
        states = await self.service.state()
        if states != ("COMPLETED", "SUCCEEDED"):
            raise Broken(f"in the end the document is {states[0]}, and the job {states[1]}")

    async def recovers(self) -> None:
        """Wait until the job is completed with an input that was read undisturbed, or failed as transient.

        Raises Broken, NotJudged.
        """
        ends = await self.until(
            lambda: self.calls("complete", "fail"), lambda: "it neither completed the job nor said that it has failed"
        )
        if not self.calls("input"):
            raise NotJudged("it reads no input")
        if ends[0].kind == "fail":
            if ends[0].said.get("transient") is not True:
                raise Broken("it failed the job for good, though another attempt may succeed")
        elif not any(each.status in {200, 206} and not each.disturbed for each in self.calls("input")):
            raise Broken("it completed the job with what came in place of its input")

    async def goes_on(self, limit: float) -> None:
        """Wait until the worker claims another job. Raises Broken."""
        self.end()
        await self.claimed(limit)

    def _failure(self) -> str:
        """What the worker has failed the job for; empty if it has not."""
        said = next((each.said for each in self.calls("fail")), None)
        return f"it failed the job: {said.get('code')}: {said.get('detail')}" if said else ""


def _refusal(calls: list[Call]) -> str:
    """How the last of the calls was refused; empty if it was not."""
    refused = [each for each in calls[-1:] if each.status >= 400]
    return f": {refused[0].kind} was answered {refused[0].answer}" if refused else ""
