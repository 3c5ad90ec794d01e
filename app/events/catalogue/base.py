"""What an event is."""

from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Literal, dataclass_transform

from pydantic import ConfigDict

Level = Literal["info", "warning"]

CATALOGUE: dict[str, type["Event"]] = {}
"""Every event by its name."""


# Frozen to the type checker only: at run time, that would double the cost of making one.
@dataclass_transform(frozen_default=True, kw_only_default=True)
class Event:
    """Something that happened. Each subclass is a dataclass by itself."""

    name: ClassVar[str]
    _level: ClassVar[Level] = "info"
    __pydantic_config__: ClassVar[ConfigDict]
    _optional: ClassVar[list[str]] = []

    def __init_subclass__(cls) -> None:
        dataclass(kw_only=True)(cls)
        cls._optional = [field.name for field in fields(cls) if field.default is not MISSING]  # type: ignore[arg-type]
        if "name" in vars(cls):
            cls.__pydantic_config__ = ConfigDict(title=cls.name)
            CATALOGUE[cls.name] = cls

    @property
    def level(self) -> Level:
        """The level of its log line; `warning`: an operator should look into it, or into many of them."""
        return self._level

    @property
    def data(self) -> dict[str, Any]:
        """What is recorded of the event, as JSON can hold it. An optional field is left out while it is None."""
        data = vars(self).copy()
        for name in self._optional:
            if data[name] is None:
                del data[name]
        if "error" in data:
            data["error"] = data["error"].model_dump()
        return data


class TimelineEvent(Event):
    """An event that the timeline of its document shows."""
