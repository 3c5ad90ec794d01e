"""What the service answers, as the worker reads it: more members than are known do no harm, what would harm is refused.

The models of `app.remote.schemas` say what the service writes.
"""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, field_validator

from app.documents.schemas import StatedMetadata
from app.remote.schemas import ClaimedJob, Held, Input


def _fetchable(inputs: list[Input]) -> list[Input]:
    """The inputs. Raises ValueError for one that no GET over HTTP is to be sent for."""
    for each in inputs:
        if urlsplit(each.url).scheme not in {"http", "https"}:
            raise ValueError("the URL of an input is to begin with http:// or https://")
        if not "".join(text for header in each.headers.items() for text in header).isprintable():
            raise ValueError("a header of an input has characters that no header can have")
    return inputs


class _Metadata(StatedMetadata):
    model_config = ConfigDict(extra="ignore")


class TakenJob(ClaimedJob):
    """A job that was claimed."""

    metadata: _Metadata
    inputs: Annotated[list[Input], Field(min_length=1)]

    _inputs = field_validator("inputs")(_fetchable)


class RenewedLease(Held):
    """The answer to a heartbeat."""

    _inputs = field_validator("inputs")(_fetchable)
