"""What operators' forms send, as the models that the API's JSON makes."""

from collections.abc import Mapping

from app.accounts.schemas import AccountChanges, QuotaChange
from app.console.frame.forms import valid, whole
from app.operators.schemas import HoldRequest, PauseRequest

_WHETHER = {"true": True, "false": False}


def account_changes(fields: Mapping[str, str]) -> AccountChanges:
    """What is to become of an account. Raises ValidationFailed."""
    return valid(AccountChanges, {name: _WHETHER.get(value, value) for name, value in fields.items()})


def quota_change(fields: Mapping[str, str]) -> QuotaChange:
    """How much an account may use: what is left empty is as the settings say. Raises ValidationFailed."""
    return valid(QuotaChange, {name: whole(value) for name, value in fields.items()})


def hold_request(fields: Mapping[str, str]) -> HoldRequest:
    """Why a document must not be removed. Raises ValidationFailed."""
    return valid(HoldRequest, fields)


def pause_request(fields: Mapping[str, str]) -> PauseRequest:
    """Why a processor is paused. Raises ValidationFailed."""
    return valid(PauseRequest, {"reason": fields.get("reason")})
