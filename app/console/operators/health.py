"""The first page of operators: whether all is well, and if not, what it means and what to do."""

from typing import Any

from fastapi import Request, Response

from app.auth.principal import Scope
from app.console.frame import pages
from app.console.frame.route import pages_for
from app.console.operators.meanings import ALARMS, CHECKS, CHORES
from app.operators.dependencies import StatusOf
from app.operators.status import ServiceStatus

router = pages_for(Scope.OPERATOR, "/operators")


@router.get("/health")
async def health(request: Request, status_of: StatusOf) -> Response:
    """What the checks, the alarms and the database tell."""
    ready, status = await request.app.state.health.report(), await status_of()
    told: dict[str, Any] = {"checks": ready.checks, "alarms": _alarms(status), "chores": CHORES, "now": status}
    return pages.page(request, "operators/health.html", about_checks=CHECKS, about_alarms=ALARMS, **told)


def _alarms(status: ServiceStatus) -> dict[tuple[str, str], list[str]]:
    """Each alarm with its text, and the processes that have it; the one that answers may not be known by name yet."""
    found: dict[tuple[str, str], list[str]] = {alarm: [] for alarm in status.alarms.items()}
    for process in status.processes:
        for alarm in process.alarms.items():
            found.setdefault(alarm, []).append(process.name)
    return dict(sorted(found.items(), key=_by_name))


def _by_name(item: tuple[tuple[str, str], Any]) -> tuple[str, str]:
    return item[0]
