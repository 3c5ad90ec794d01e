"""Runs the rules on a worker, one after the other."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from app.client.api import Api, Credentials
from app.client.calls import Problem, Stopped
from app.remote.check.program import Program
from app.remote.check.proxy import Proxy
from app.remote.check.rules import Rule
from app.remote.check.service import Service
from app.remote.check.trial import NotJudged, Pace, Trial
from app.remote.check.watch import Broken, Watch

_SAMPLES = Path(__file__).parents[2] / "samples"
_SAMPLE = {
    "application/pdf": _SAMPLES / "sample.pdf",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": _SAMPLES / "sample.docx",
}


class Verdict(NamedTuple):
    """What became of a rule: it `held` or not, or was not judged (None), for a reason."""

    rule: Rule
    held: bool | None
    reason: str = ""

    def __str__(self) -> str:
        word = {True: "ok", False: "FAILED", None: "-"}[self.held]
        line = f"{word:7} {self.rule.name:12} {self.rule.promise}"
        if self.held is None:
            return f"{line}: not judged: {self.reason}"
        return line if self.held else f'{line}: {self.reason} (docs/remote-workers.md, "{self.rule.section}")'


@dataclass(frozen=True)
class Checked:
    """What is checked: a worker that `command` starts, or somebody else, at the service at a URL.

    Without a key in the credentials, their account is made. Without a processor, it is the one that the worker claims
    jobs of; without a file, a sample that it reads.
    """

    url: str
    credentials: Credentials
    rules: Sequence[Rule]
    processor: str = ""
    params: Mapping[str, Any] | None = None
    file: Path | None = None
    command: Sequence[str] = ()
    listen: tuple[str, int] = ("127.0.0.1", 0)
    pace: Pace = field(default_factory=Pace)


async def check(checked: Checked, serving: Callable[[str], None], judged: Callable[[Verdict], None]) -> None:
    """Judge the worker by each rule. `serving` takes the URL that stands for the service meanwhile.

    Raises Problem, Stopped, OSError if it cannot be checked.
    """
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(Api(checked.url, checked.credentials, 2))
        if not checked.credentials.api_key:
            await api.register()
        proxy, service = Proxy(checked.url), Service(api)
        url = await stack.enter_async_context(proxy.serving(*checked.listen))
        words = {"{url}": url, "{processor}": checked.processor}
        program = Program([_filled(each, words) for each in checked.command])
        stack.push_async_callback(program.stop)
        serving(url)
        await program.start()
        processor = checked.processor or await _first_claimed(Watch(proxy, program, checked.pace.limit))
        file = checked.file or await _sample(service, processor)
        proxy.document_id = await service.upload(file)
        stack.push_async_callback(_cancelled, service)
        for rule in checked.rules:
            await program.start()
            trial = Trial(proxy, program, service, processor, checked.params or {}, checked.pace)
            judged(await _verdict(rule, trial))
            if not proxy.calls:
                raise Stopped("the worker has called nothing")


def _filled(word: str, words: Mapping[str, str]) -> str:
    for name, value in words.items():
        word = word.replace(name, value)
    return word


async def _first_claimed(watch: Watch) -> str:
    """The processor whose jobs the worker claims first. Raises Stopped."""
    try:
        return await watch.until(
            lambda: next((each.processor for each in watch.claims() if each.processor), ""),
            lambda: "the worker has claimed nothing",
        )
    except Broken as error:
        raise Stopped(str(error)) from None


async def _sample(service: Service, processor: str) -> Path:
    """A file that the processor reads. Raises Stopped."""
    for content_type in await service.reads(processor):
        if file := _SAMPLE.get(content_type):
            return file
    raise Stopped(f"the service offers no processor {processor!r}")


async def _verdict(rule: Rule, trial: Trial) -> Verdict:
    try:
        await rule.check(trial)
    except Broken as error:
        return Verdict(rule, held=False, reason=str(error))
    except NotJudged as error:
        return Verdict(rule, held=None, reason=str(error))
    finally:
        trial.end()
    return Verdict(rule, held=True)


async def _cancelled(service: Service) -> None:
    """Leave no job behind."""
    with suppress(Problem, Stopped):
        await service.cancel()
