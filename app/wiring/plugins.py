"""Processors that are not part of the service: installed packages offer them by entry points, or a class is named."""

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import NamedTuple

from app.errors import ConfigurationError
from app.processing.contract import violation
from app.processors.base import Processor

GROUP = "document_api.processors"
BUILT_IN = "built in"


class Offer(NamedTuple):
    """A processor, and where it comes from: `built in`, a package at its version, or `module:Class`."""

    processor: Processor
    origin: str


def choose(built_in: Iterable[Processor], names: Iterable[str], lacking: Mapping[str, str]) -> list[Offer]:
    """Return the processors of these names, in their order. What is not named is not imported.

    A name is that of one that is built in, of an entry point in GROUP, or `module:Class`. `lacking` says what keeps
    others from being built in, by their names. Raises ConfigurationError.
    """
    own = {each.name: Offer(each, BUILT_IN) for each in built_in}
    installed = list(entry_points(group=GROUP))
    chosen = [_find(name, own, installed, lacking) for name in dict.fromkeys(names)]
    named = [each.processor.name for each in chosen]
    if twice := [name for name in named if named.count(name) > 1]:
        raise ConfigurationError(f"PROCESSORS: {twice[0]} is the name of two of them")
    return chosen


def _find(name: str, own: Mapping[str, Offer], installed: list[EntryPoint], lacking: Mapping[str, str]) -> Offer:
    """Raises ConfigurationError unless exactly one processor has the name, and can work."""
    if ":" in name:
        return Offer(_made(name, EntryPoint("", name, GROUP)), name)
    points = [each for each in installed if each.name == name]
    origins = [*(own[name].origin for _ in own.keys() & {name}), *map(_package, points)]
    if len(origins) > 1:
        raise ConfigurationError(f"PROCESSORS: {name} is offered more than once: {', '.join(origins)}")
    if name in own:
        return own[name]
    if not points and name in lacking:
        raise _refusal(name, lacking[name])
    if not points:
        there_are = ", ".join([*own, *sorted({each.name for each in installed} - own.keys())])
        raise ConfigurationError(f"PROCESSORS: there is no processor {name}; there are {there_are}")
    processor = _made(name, points[0])
    if processor.name != name:
        raise ConfigurationError(f"PROCESSORS: {name}: its class calls itself {processor.name}")
    return Offer(processor, origins[0])


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


@cache  # a server reads its settings several times, and a model may take long to load
def _made(name: str, point: EntryPoint) -> Processor:
    """Import the class, and make a processor of it. Raises ConfigurationError."""
    try:
        kind = point.load()
    except (Exception, SystemExit) as error:
        extra = f"; its package may need the extra {', '.join(point.extras)}" if point.extras else ""
        raise _refusal(name, f"it cannot be imported: {_in_words(error)}{extra}") from error
    try:
        processor: Processor = kind()
    except (Exception, SystemExit) as error:
        raise _refusal(name, f"it cannot be made without arguments: {_in_words(error)}") from error
    if reason := violation(processor):
        raise _refusal(name, reason)
    return processor


def _refusal(name: str, reason: str) -> ConfigurationError:
    return ConfigurationError(" ".join(f"PROCESSORS: {name}: {reason}".split()))


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
