"""python -m app check: whether anything is lost, damaged, left behind, or contradicts itself."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from app.check import repair as repairs, scrubber
from app.check.findings import Finding
from app.check.service import MEGABYTE, Check
from app.commands.services import require_service, with_services
from app.errors import AppError, ConfigurationError
from app.settings import load
from app.wiring.services import Services

COULD_NOT = 2  # the exit code

_Deep = Annotated[bool, typer.Option("--deep", help="Read all files back, and compare their SHA-256.")]
_Rate = Annotated[float, typer.Option(min=0, help="Megabytes a second that --deep reads; 0: as fast as possible.")]
_Repair = Annotated[bool, typer.Option("--repair", help="Repair what loses nothing, and say what was done.")]
_AsJson = Annotated[bool, typer.Option("--json", help="A line of JSON for each finding, and a summary.")]


def check(*, deep: _Deep = False, rate: _Rate = 20, repair: _Repair = False, as_json: _AsJson = False) -> None:
    """Check files, documents, jobs, usage and the audit trail. The service may run meanwhile.

    Exit code 0: nothing is wrong. 1: something is, one line each. 2: it could not be checked.
    """

    async def work(services: Services) -> int:
        checked = Check(
            services.db,
            services.storage,
            services.claim,
            services.settings,
            deep=deep,
            bytes_per_second=rate * MEGABYTE,
        )
        known = await services.db.read(scrubber.tally)
        repairable = list[Finding]()
        async for finding in checked.run():
            _say(finding.as_json() if as_json else finding, as_json=as_json)
            if finding.code in repairs.REPAIRED and len(repairable) < repairs.MOST:
                repairable.append(finding)
        if deep and any(known) and checked.codes.keys().isdisjoint(repairs.BAD):
            await services.db.write(partial(scrubber.forgive, known=known))
        summary = checked.summary()
        if repair:
            summary["repaired"] = await _repair(services, repairable, checked, as_json=as_json)
        _say({"summary": summary} if as_json else _sentence(summary), as_json=as_json)
        return int(bool(summary["findings"]))

    try:
        _require_service()
        code = with_services(work)
    except (ConfigurationError, AppError) as error:
        reason = error.detail if isinstance(error, AppError) else error
        typer.echo(f"check: it could not be checked: {reason}", err=True)
        code = COULD_NOT
    raise typer.Exit(code)


def _require_service() -> None:
    """Raise ConfigurationError if there is none: nothing is made then, not even in a disk that is not mounted."""
    settings = load()
    require_service(settings)
    if isinstance(settings.storage, Path) and not any(settings.storage.iterdir()):
        raise ConfigurationError(f"STORAGE_URL: there is nothing in {settings.storage}")


async def _repair(services: Services, found: list[Finding], checked: Check, *, as_json: bool) -> int:
    """Repair what can be repaired, and return how much was."""
    count = 0
    async for finding, (done, what) in repairs.repair(services.db, found, files=checked.looked_at["files"]):
        count += done
        line = finding.as_json() | {"repaired": done, "detail": what} if as_json else f"repair of {finding}: {what}"
        _say(line, as_json=as_json)
    return count


def _say(what: Any, *, as_json: bool) -> None:
    typer.echo(json.dumps(what) if as_json else str(what))


def _sentence(summary: dict[str, Any]) -> str:
    looked_at = ", ".join(f"{name}: {value}" for name, value in summary.items() if isinstance(value, int))
    return f"{looked_at}" if summary["findings"] else f"Nothing is wrong. {looked_at}"
