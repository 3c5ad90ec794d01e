"""What errors mean to whoever filled in a form: the API's own texts speak of requests."""

from collections.abc import Mapping

from app import errors
from app.console.frame.formats import words
from app.errors import AppError

_SAID: Mapping[type[AppError], str] = {
    errors.InsufficientScope: "Your account may not do this.",
    errors.StorageQuotaExceeded: "Your files would be larger in all than they may be, as the page of the account says. "
    "What is in the trash counts: delete documents for good to make room.",
    errors.DocumentQuotaExceeded: "You would have more documents than you may, as the page of the account says. "
    "What is in the trash counts: delete some for good.",
    errors.BreakGlassRequired: "Say why: what is not yours is read for a reason only, which its owner sees.",
    errors.WrongPassword: "The current password is another one.",
    errors.RotationInProgress: "The secret before the last one is still good. Wait until it is not, or have both end "
    "at once.",
    errors.WebhookInactive: "The webhook is disabled, and is told nothing until it is activated.",
    errors.PreconditionFailed: "It was changed meanwhile, so nothing was done. Go back, load the page again, and do it "
    "with what it shows then.",
    errors.ValidationFailed: "Something is missing, or cannot be as it was filled in.",
    errors.MalformedMultipart: "The form did not arrive whole, or has no file.",
    errors.UnsupportedContentType: "The processor does not read documents of this type.",
    errors.InvalidCursor: "The list is in another order now. Begin at its first page.",
    errors.SearchTooBroad: "The search took longer than it may. Narrow it by another filter, or by more letters.",
    errors.IdempotencyKeyReused: "This form was sent before, with something else in it. Load its page again.",
    errors.RateLimited: "You have done as much as you may for now. Wait a moment.",
}
_LABELS: Mapping[str, str] = {  # of fields that are not called as their names are
    "bytes": "Bytes of files",
    "cursor": "Page",
    "document_id": "Document",
    "event_types": "Events",
    "expires_at": "Moved to the trash at",
    "expires_in": "Expires in",
    "ip": "Address",
    "owner_id": "Account",
    "parent_id": "Made of",
    "previous_valid_for": "The one before is good for",
    "process": "Processor",
    "q": "Search",
    "query": "Filters",
    "sha256": "SHA-256",
    "sort": "Order",
    "status": "State",
    "url": "URL",
    "user_id": "Account",
}
_DETAILS: Mapping[str, str] = {  # by their beginnings
    "Field required": "It has to be filled in.",
    "String should match pattern": "It is not written as it has to be.",
}
_AROUND = ("filter", "header", "metadata", "params", "path", "process_params", "query")  # fields; no page names them


def said(error: AppError) -> str:
    """What happened: what this error says by itself, or instead of what all of its kind say."""
    of_all = error.detail == type(error)().detail
    return _SAID.get(type(error), error.detail) if of_all else error.detail


def wrong(error: AppError) -> list[tuple[str, str]]:
    """What is wrong with which field, beside what `said` says."""
    found = error.extra.get("errors", [])
    return [(_label(each["pointer"]), _detail(each["detail"])) for each in found if each["detail"] != error.detail]


def _detail(text: str) -> str:
    return next((said for begin, said in _DETAILS.items() if text.startswith(begin)), text)


def _label(pointer: str) -> str:
    """What a field is called on its page, by its JSON Pointer: of a list, with the number of the line."""
    steps = [each.replace("~1", "/").replace("~0", "~") for each in pointer.split("/")[1:]]
    own = steps[1:] if len(steps) > 1 and steps[0] in _AROUND else steps
    return " ".join(str(int(each) + 1) if each.isdecimal() else _called(each) for each in own)


def _called(name: str) -> str:
    return _LABELS.get(name) or words(name).capitalize()
