"""How values are written on pages."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

_HASH = re.compile(r"[0-9a-f]{64}")
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_SHAPES = {
    "INITIATED": "◌",
    "UPLOADED": "○",
    "PROCESSING": "◐",
    "COMPLETED": "✓",
    "FAILED": "✕",
    "QUEUED": "○",
    "RUNNING": "◐",
    "WAITING": "◔",
    "SUCCEEDED": "✓",
    "CANCELLED": "⊘",
    "PENDING": "◔",
    "DELIVERED": "✓",
    "DISCARDED": "⊘",
    "ACTIVE": "●",
    "PAUSED": "‖",
    "DISABLED": "✕",
}
# Most pose as others, too: the first that is found counts.
_BROWSERS = {"Edg/": "Edge", "OPR/": "Opera", "Firefox/": "Firefox", "Chrome/": "Chrome", "Safari/": "Safari"}
_SYSTEMS = ("Android", "iPhone", "iPad", "Windows", "Mac", "Linux")
_TYPES = {"application/pdf": "PDF"}


def shape(state: str) -> str:
    """The sign before a state, so that it is told without its colour."""
    return _SHAPES[state]


def day(value: datetime) -> str:
    """The date of a time, in UTC."""
    return f"{value.astimezone(UTC):%Y-%m-%d}"


def clock(value: datetime) -> str:
    """The rest of a time, to the second."""
    return f"{value.astimezone(UTC):%H:%M:%S}"


def machine(value: datetime) -> str:
    """A time as programs read it."""
    return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def field(value: datetime | None) -> str:
    """A time as the field of a form has it."""
    return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%S}" if value else ""


def moment(text: str) -> datetime:
    """Return the time that a parameter of a query says, once that was validated."""
    return datetime.fromisoformat(text)


def program(agent: str | None) -> str:
    """Return the browser and the system that a User-Agent names; all of it if it names no browser that is known."""
    browser = next((name for sign, name in _BROWSERS.items() if sign in (agent or "")), None)
    system = next((each for each in _SYSTEMS if each in (agent or "")), None)
    return " on ".join(each for each in (browser, system) if each) if browser else agent or "Unknown"


def size(count: int) -> str:
    """A number of bytes in the largest unit of which there is one."""
    amount, unit = float(count), 0
    while amount >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.1f} {_UNITS[unit]}" if unit else f"{count} {'byte' if count == 1 else 'bytes'}"


def duration(seconds: float) -> str:
    """A length of time in the two largest units of which there is one."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    counts = ((days, "d"), (hours, "h"), (minutes, "min"), (left, "s"))
    first = next(place for place, (count, _) in enumerate(counts) if count)
    return " ".join(f"{count} {unit}" for count, unit in counts[first : first + 2] if count)


def number(count: int) -> str:
    """A number that can be read when it is large."""
    return f"{count:,}"


def kind(content_type: str) -> str:
    """A short name of the content type of a document."""
    return _TYPES.get(content_type, "DOCX")


def json(value: Any) -> str:
    """A value as JSON, over several lines."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def line(value: Any) -> str:
    """A value as JSON, in one line."""
    return orjson.dumps(value).decode()


def said(value: Any) -> str:
    """A value of an event. A hash is recognised by its first digits."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {said(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(said(each) for each in value)
    if not isinstance(value, str):
        return orjson.dumps(value).decode()
    return f"{value[:12]}…" if _HASH.fullmatch(value) else value


def who(actor: str, owner_id: object) -> str:
    """Who did something, as its owner reads it."""
    kind, _, name = actor.partition(":")
    return "you" if name == str(owner_id) else kind


def words(name: str) -> str:
    """A name from the API as words: `document.status_changed`, `SUCCEEDED`."""
    return name.lower().replace("_", " ").replace(".", ": ")


FILTERS: Mapping[str, Any] = {
    each.__name__: each
    for each in (
        *(shape, day, clock, machine, field, moment, program),
        *(size, duration, number, kind, json, line, said, who, words),
    )
}
