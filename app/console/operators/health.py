"""The first page of operators: whether all is well, and if not, what it means and what to do."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import Request, Response

from app.auth.principal import Scope
from app.console.frame import pages
from app.console.frame.route import pages_for
from app.console.operators.meanings import ALARMS, CHECKS, CHORES, COUNTED, SLOTS
from app.limiter import Usage
from app.operators.dependencies import StatusOf
from app.operators.status import ServiceStatus
from app.telemetry import context, counted, metrics
from app.web.dependencies import service

router = pages_for(Scope.OPERATOR, "/operators")


_Usages = Annotated[Mapping[str, Callable[[], Usage]], service("usages")]
_USUAL = 0.99  # of all times


@router.get("/health")
async def health(request: Request, status_of: StatusOf, usages: _Usages) -> Response:
    """What the checks, the alarms, the database and the process that answers tell."""
    ready, status = await request.app.state.health.report(), await status_of()
    told: dict[str, Any] = {"checks": ready.checks, "alarms": _alarms(status), "chores": CHORES, "now": status}
    told |= {"about_checks": CHECKS, "about_alarms": ALARMS, "about_slots": SLOTS, "about_counts": COUNTED}
    return pages.page(request, "operators/health.html", **told, **_own(usages))


def _own(usages: Mapping[str, Callable[[], Usage]]) -> dict[str, Any]:
    """What is true of the process that answers, and of no other."""
    return {
        "process": context.worker(),
        "slots": {name: usage() for name, usage in usages.items()},
        "counts": {name: counted.by_label(about.counter) for name, about in COUNTED.items()},
        "lag": counted.within(metrics.loop_lag, _USUAL),
    }


def _alarms(status: ServiceStatus) -> dict[tuple[str, str], list[str]]:
    """Each alarm with its text, and the processes that have it; the one that answers may not be known by name yet."""
    found: dict[tuple[str, str], list[str]] = {alarm: [] for alarm in status.alarms.items()}
    for process in status.processes:
        for alarm in process.alarms.items():
            found.setdefault(alarm, []).append(process.name)
    return dict(sorted(found.items(), key=_by_name))


def _by_name(item: tuple[tuple[str, str], Any]) -> tuple[str, str]:
    return item[0]
