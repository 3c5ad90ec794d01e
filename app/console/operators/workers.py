"""Processes and what they hold, queues and how fast they move, processors and how their jobs went."""

from typing import Any

from fastapi import Request, Response

from app.auth.dependencies import CurrentPrincipal
from app.auth.principal import Scope
from app.console.frame import forms as frame, pages
from app.console.frame.route import pages_for
from app.console.operators import forms
from app.operators import workload
from app.operators.dependencies import Operating, StatusOf
from app.operators.processes import SILENT
from app.operators.routes import ProcessorPath
from app.processing.routes import Service as Processing

router = pages_for(Scope.OPERATOR, "/operators")

_BOUNDS = {"jobs": workload.RECENT_JOBS, "events": workload.RECENT_EVENTS}


@router.get("/workers")
async def workers(request: Request, status_of: StatusOf, operators: Operating) -> Response:
    """The processes, the jobs that each holds, and the queues."""
    held, records = await operators.workload.held(), await operators.workload.records()
    shown: dict[str, Any] = {"held": held, "records": records, "most": workload.MOST_HELD, "silent": SILENT}
    return pages.page(request, "operators/workers.html", now=await status_of(), **shown)


@router.get("/processors")
async def processors(request: Request, operators: Operating, processing: Processing) -> Response:
    """The processors that this process offers, those that others have run lately, and those that are paused."""
    records = await operators.workload.records()
    paused = {each.processor: each for each in await operators.processors.all()}
    offered = {each.name: each for each in processing.offered.items}
    shown: dict[str, Any] = {
        "names": sorted(offered | records | paused),
        "offered": offered,
        "paused": paused,
        "records": records,
    }
    bounds = {"jobs": workload.RECENT_JOBS, "events": workload.RECENT_EVENTS}
    return pages.page(request, "operators/processors.html", bounds=bounds, **shown)


@router.post("/processors/{processor}/pause")
async def pause(
    request: Request, processor: ProcessorPath, principal: CurrentPrincipal, operators: Operating
) -> Response:
    """Have no process begin another attempt with it."""
    wanted = forms.pause_request(await frame.fields_of(request))
    await operators.processors.pause(processor, wanted.reason, principal)
    return pages.to("/operators/processors")


@router.post("/processors/{processor}/resume")
async def resume(processor: ProcessorPath, operators: Operating) -> Response:
    """Have its jobs begun again."""
    await operators.processors.resume(processor)
    return pages.to("/operators/processors")
