"""Processes and what they hold, queues and how fast they move, processors and how their jobs went."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fastapi import Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console.frame import forms, pages
from app.console.frame.route import pages_for
from app.console.operators import requests
from app.operators import workload
from app.operators.dependencies import Operating, Operators
from app.operators.processes import SILENT
from app.operators.routes import ProcessorPath
from app.operators.status import AtWork, Process, Queue
from app.processing.routes import Service as Processing
from app.processing.schemas import Offered
from app.processing.service import ProcessingService

router = pages_for(Scope.OPERATOR, "/operators")

_BOUNDS = {
    "jobs": workload.RECENT_JOBS,
    "events": workload.RECENT_EVENTS,
    "held": workload.MOST_HELD,
    "silent": SILENT,
}


class _Row(NamedTuple):
    """The unfinished jobs of a processor, by state, and how many at once there can be, if that is known."""

    queues: Sequence[Queue]
    capacity: int | None


@router.get("/workers")
async def workers(request: Request, operators: Operating, processing: Processing) -> Response:
    """The processes, the jobs that each holds, and the queues."""
    now, held = await operators.workload.now(), await operators.workload.held()
    shown = await _processors(operators, processing)
    rows = _rows(now, shown["names"], shown["offered"])
    return pages.page(request, "operators/workers.html", now=now, held=held, rows=rows, **shown)


@router.get("/processors")
async def processors(request: Request, operators: Operating, processing: Processing) -> Response:
    """The processors that this process offers, those that others have run lately, and those that are paused."""
    return pages.page(request, "operators/processors.html", **await _processors(operators, processing))


@router.post("/processors/{processor}/pause")
async def pause(
    request: Request, processor: ProcessorPath, principal: CurrentPrincipal, operators: Operating
) -> Response:
    """Have no process begin another attempt with it."""
    fields = await forms.fields_of(request)
    await operators.processors.pause(processor, requests.pause_request(fields).reason, principal)
    return pages.to(forms.there(fields, "/operators/processors"), "paused")


@router.post("/processors/{processor}/resume")
async def resume(request: Request, processor: ProcessorPath, operators: Operating) -> Response:
    """Have its jobs begun again."""
    fields = await forms.fields_of(request)
    await operators.processors.resume(processor)
    return pages.to(forms.there(fields, "/operators/processors"), "resumed")


async def _processors(operators: Operators, processing: ProcessingService) -> dict[str, Any]:
    records = await operators.workload.records()
    paused = {each.processor: each for each in await operators.processors.all()}
    offered = {each.name: each for each in processing.offered.items}
    shown = {"offered": offered, "paused": paused, "records": records, "bounds": _BOUNDS}
    return shown | {"names": sorted({*offered, *records, *paused}), "known": operators.processors.offered}


def _rows(now: AtWork, names: Sequence[str], offered: Mapping[str, Offered]) -> dict[str, _Row]:
    """By the processor: those that are known, and those that only have jobs."""
    every = sorted({*names, *(each.processor for each in now.queues)})
    queues = {name: [each for each in now.queues if each.processor == name] for name in every}
    return {name: _Row(queues[name], _capacity(offered.get(name), now.processes)) for name in every}


def _capacity(processor: Offered | None, processes: Sequence[Process]) -> int | None:
    """How many jobs of the processor there can be at once, if all processes offer it as this one does."""
    if processor is None:
        return None
    capacities = [each.capacity for each in processes if each.capacity is not None]
    return sum(min(each, processor.at_once or each) for each in capacities)
