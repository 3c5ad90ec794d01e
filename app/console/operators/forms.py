"""What operators' forms send, as the models that the API's JSON makes."""

from collections.abc import Mapping
from typing import Any

from app.accounts.schemas import AccountChanges, QuotaChange
from app.console.frame.forms import valid
from app.jobs.models import JobState
from app.operators.schemas import CancelRequest, HoldRequest, JobsFilters, PauseRequest, RerunRequest

_WHETHER = {"true": True, "false": False}


def account_changes(fields: Mapping[str, str]) -> AccountChanges:
    """What is to become of an account. Raises ValidationFailed."""
    return valid(AccountChanges, {name: _WHETHER.get(value, value) for name, value in fields.items()})


def quota_change(fields: Mapping[str, str]) -> QuotaChange:
    """How much an account may use: what is left empty is as the settings say. Raises ValidationFailed."""
    return valid(QuotaChange, {name: _whole(value) for name, value in fields.items()})


def hold_request(fields: Mapping[str, str]) -> HoldRequest:
    """Why a document must not be removed. Raises ValidationFailed."""
    return valid(HoldRequest, fields)


def pause_request(fields: Mapping[str, str]) -> PauseRequest:
    """Why a processor is paused. Raises ValidationFailed."""
    return valid(PauseRequest, fields)


def rerun_request(filters: JobsFilters, fields: Mapping[str, str]) -> RerunRequest:
    """Which jobs to run again, of those that the list shows with these filters; to count them without fields.

    Raises ValidationFailed for filters that jobs to run again do not have.
    """
    given = _given(filters)
    if given.get("state") is JobState.FAILED:  # as all are
        del given["state"]
    return valid(RerunRequest, {"filter": given, **_confirmed(fields)})


def cancel_request(filters: JobsFilters, fields: Mapping[str, str]) -> CancelRequest:
    """Which unfinished jobs to cancel, as above. Raises ValidationFailed for filters that they do not have."""
    return valid(CancelRequest, {"filter": _given(filters), **_confirmed(fields)})


def _given(filters: JobsFilters) -> dict[str, Any]:
    return filters.model_dump(exclude_none=True)


def _confirmed(fields: Mapping[str, str]) -> dict[str, Any]:
    return {name: _whole(fields[name]) if name == "confirm" else fields[name] for name in fields}


def _whole(typed: str) -> int | str:
    return int(typed) if typed.isdecimal() and len(typed) < 20 else typed
