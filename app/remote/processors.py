"""The processors that REMOTE_PROCESSORS names: described here, run elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.errors import ConfigurationError
from app.processing.contract import makes_files, violation
from app.processors.base import MakingParams, Params, Processor
from app.remote.schema_models import DescribedMakingParams, DescribedParams, DescribedResult, model_of
from app.settings.broker import BrokerConfig, parse

LONGEST_LEASE = 3600.0  # seconds


class RemoteProcessor:
    """A processor whose jobs are claimed by workers elsewhere, each for `lease_seconds` unless it renews that.

    `hinted`: the queue that is told of jobs which are due, if there is one.
    """

    runs_elsewhere = True
    at_once = None

    def __init__(
        self,
        name: str,
        version: str,
        description: str,
        params: type[Params],
        result: type[BaseModel],
        *,
        lease_seconds: float,
        hinted: BrokerConfig | None = None,
        content_types: list[str] | None = None,
        max_result_bytes: int | None = None,
        makes_documents: bool = False,
    ) -> None:
        self.name = name
        self.version = version
        self.description = description
        self.params = params
        self.result = result
        self.lease_seconds = lease_seconds
        self.hinted = hinted
        self.content_types = content_types
        self.max_result_bytes = max_result_bytes
        self.makes_documents = makes_documents

    async def run(self, source: Any, params: Any, report: Any) -> dict[str, Any]:
        """Not here: no process of the service serves its queue."""
        raise NotImplementedError


class _Stated(BaseModel):
    """What the file says of one processor."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    version: str | None = None
    description: str | None = None
    content_types: list[str] | None = Field(None, min_length=1)
    params: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    makes_documents: bool | None = Field(None, strict=True)
    lease_seconds: float = Field(120, ge=10, le=LONGEST_LEASE)
    queue: str | None = None

    @property
    def own(self) -> bool:
        """Whether it is none of the service's."""
        return self.params is not None or self.result is not None

    @property
    def hinted(self) -> BrokerConfig | None:
        """The queue. Raises ValueError."""
        try:
            return parse(self.queue) if self.queue is not None else None
        except ValidationError as error:
            raise ValueError(f"its queue {_first(error)}") from None
        except ValueError as error:
            raise ValueError(f"its queue {error}") from None


_FILE = TypeAdapter(dict[str, _Stated])


def with_remote(
    offered: Mapping[str, Processor], file: Path | None, lacking: Mapping[str, str]
) -> dict[str, Processor]:
    """Return the processors that are offered, with those in the file: they come last, or in the place of one that the
    service has. `lacking` says what others of the service need. Raises ConfigurationError."""
    found = dict(offered)
    for name, stated in _read(file).items() if file else ():
        try:
            own = stated.own
            found[name] = _described(name, stated, offered) if own else _elsewhere(name, stated, offered, lacking)
        except ValueError as error:
            raise _refusal(f"{name!r:.60}: {error}") from None
        if reason := violation(found[name]):
            raise _refusal(f"{name!r:.60}: {reason}")
    return found


def _read(file: Path) -> dict[str, _Stated]:
    try:
        return _FILE.validate_python(orjson.loads(file.read_bytes()))
    except OSError as error:
        raise _refusal(f"{file}: {error.strerror}") from None
    except orjson.JSONDecodeError:
        raise _refusal(f"{file} is no JSON") from None
    except ValidationError as error:
        raise _refusal(_first(error)) from None


def _first(error: ValidationError) -> str:
    """What is wrong, and where."""
    first = error.errors(include_url=False, include_input=False)[0]
    return ": ".join([*(f"{step!r:.60}" for step in first["loc"]), first["msg"].removeprefix("Value error, ")])


def _described(name: str, stated: _Stated, offered: Mapping[str, Processor]) -> RemoteProcessor:
    """Raises ValueError."""
    if name in offered:
        raise ValueError("the name is taken: without params and result, it would be that processor, run elsewhere")
    if stated.version is None or stated.description is None:
        raise ValueError("it needs a version and a description")
    base = DescribedMakingParams if stated.makes_documents else DescribedParams
    words = name.title().replace("-", "")
    nothing = {"additionalProperties": False}
    return RemoteProcessor(
        name,
        stated.version,
        stated.description,
        _model(base, f"{words}Params", "params", stated.params if stated.params is not None else nothing),
        _model(DescribedResult, f"{words}Result", "result", stated.result or {}),
        lease_seconds=stated.lease_seconds,
        hinted=stated.hinted,
        content_types=stated.content_types,
        makes_documents=bool(stated.makes_documents),
    )


def _model(base: type[BaseModel], name: str, what: str, schema: Mapping[str, Any]) -> type[Any]:
    try:
        return model_of(base, name, schema)
    except ValueError as error:
        raise ValueError(f"its {what} {error}") from None


def _elsewhere(
    name: str, stated: _Stated, offered: Mapping[str, Processor], lacking: Mapping[str, str]
) -> RemoteProcessor:
    """The processor of the service, to be run elsewhere. Raises ValueError."""
    if name in lacking and name not in offered:
        raise ValueError(f"the service cannot offer its processor {name}: {lacking[name]}")
    if name not in offered:
        raise ValueError("PROCESSORS has no such processor; one of your own needs params, result, or both")
    processor = offered[name]
    if fixed := sorted(stated.model_fields_set - {"lease_seconds", "queue"}):
        raise ValueError(f"it is a processor of the service, whose {fixed[0]} is its own")
    return RemoteProcessor(
        processor.name,
        processor.version,
        processor.description,
        processor.params,
        processor.result,
        lease_seconds=stated.lease_seconds,
        hinted=stated.hinted,
        content_types=getattr(processor, "content_types", None),
        max_result_bytes=getattr(processor, "max_result_bytes", None),
        makes_documents=makes_files(processor) and issubclass(processor.params, MakingParams),
    )


def _refusal(reason: str) -> ConfigurationError:
    return ConfigurationError(" ".join(f"REMOTE_PROCESSORS: {reason}".split()))
