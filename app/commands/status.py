"""python -m app status: the service on one screen."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Annotated

import typer

from app.commands import processors
from app.commands.services import with_services
from app.operators.status import Process, ServiceStatus

_AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def status(*, as_json: _AsJson = False) -> None:
    """Show queues, processes and their attempts, pauses, alarms, upkeep and disks."""
    found = with_services(lambda services: services.status())
    typer.echo(found.model_dump_json(indent=2) if as_json else "\n".join(_screen(found)))


def _screen(found: ServiceStatus) -> Iterator[str]:
    at = f"{found.at:%Y-%m-%d %H:%M:%S}Z"
    yield f"Version {found.version}, {found.database} at revision {found.revision}, {at}"
    yield "Jobs: " + ", ".join(f"{number} {state.lower()}" for state, number in found.jobs.items())
    yield f"Dead letters: {found.dead_letters}"
    told = found.deliveries
    yield f"Deliveries: {told.waiting} waiting, {told.under_way} under way, oldest {_age(told.oldest_seconds)}"
    queues = [(each.processor, each.state, str(each.jobs), _age(each.oldest_seconds)) for each in found.queues]
    yield from _table("Queues", ("processor", "state", "jobs", "oldest"), queues)
    running = [_process(each, found.at) for each in found.processes]
    yield from _table("Processes", ("name", "version", "attempts", "longest", "heartbeat", "seen"), running)
    yield from _list("Paused", (f"{each.processor} {processors.since(each)}" for each in found.paused))
    yield from _list("Alarms", _alarms(found))
    upkeep = [(each.name, _ago(found.at, each.last_run_at)) for each in found.upkeep]
    yield from _table("Upkeep", ("chore", "last run"), upkeep)
    if found.last_backup_at:
        yield f"\nLast backup: {_ago(found.at, found.last_backup_at)}"
    disks = [(each.folder, _size(each.free), _size(each.size)) for each in found.disks.items]
    yield from _table("Disks", ("folder", "free", "of"), disks)


def _process(each: Process, at: datetime) -> tuple[str, ...]:
    attempts = str(each.attempts) if each.capacity is None else f"{each.attempts} of {each.capacity}"
    longest = "" if each.longest_seconds is None else _age(each.longest_seconds)
    heard = (_ago(at, moment) if moment else "" for moment in (each.heartbeat_at, each.seen_at))
    kind = f"{each.kind} " if each.kind else ""
    return (f"{kind}{each.name}", each.version or "", attempts, longest, *heard)


def _alarms(found: ServiceStatus) -> Iterator[str]:
    """Those of each process, and of this one; what several have, once."""
    said = dict.fromkeys(found.alarms.items(), "")
    for each in found.processes:
        for alarm in each.alarms.items():
            said.setdefault(alarm, f" ({each.name})")
    yield from (f"{name}: {text}{where}" for (name, text), where in said.items() if name != "paused")


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if rows:
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        yield f"\n{title}"
        for row in (heads, *rows):
            yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _list(title: str, lines: Iterable[str]) -> Iterator[str]:
    found = list(lines)
    if found:
        yield f"\n{title}"
        yield from (f"  {line}" for line in found)


def _ago(now: datetime, moment: datetime) -> str:
    return f"{_age((now - moment).total_seconds())} ago"


def _age(seconds: float) -> str:
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def _size(number: int) -> str:
    return f"{number / 1024**3:.1f} GiB"
