"""What this process has counted since it started, read from its instruments for a page about it."""

from collections.abc import Iterator

from prometheus_client import Counter, Histogram
from prometheus_client.samples import Sample


def by_label(counter: Counter) -> dict[str, int]:
    """What was counted, by the value of the label; without a label, by an empty text. What is zero is left out."""
    samples = (each for each in _samples(counter) if each.value)
    return {" ".join(each.labels.values()): int(each.value) for each in samples}


def within(histogram: Histogram, share: float) -> float | None:
    """The smallest bound that this share of the values did not exceed; infinity if there is none, None without values.

    The histogram has no labels.
    """
    buckets = [(float(each.labels["le"]), each.value) for each in _samples(histogram) if "le" in each.labels]
    total = max((count for _, count in buckets), default=0)
    return next((bound for bound, count in buckets if count >= share * total), None) if total else None


def _samples(instrument: Counter | Histogram) -> Iterator[Sample]:
    for family in instrument.collect():
        yield from family.samples
