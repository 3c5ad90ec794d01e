"""The settings of what processes documents, and of how jobs are run."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field
from pydantic_settings import NoDecode

from app.settings import conversion
from app.settings.conversion import ConversionService
from app.settings.fields import parsed

_PROCESSOR = r"([a-z0-9-]+|[\w.]+:\w+)"
_PIPELINE = r"[a-z0-9-]{1,50}\s*=\s*[a-z0-9-]+\??(\s*,\s*[a-z0-9-]+\??)*"


class Processing(BaseModel):
    """Processors, pipelines and jobs."""

    processors: str = Field(
        "",
        pattern=rf"^({_PROCESSOR}(\s*,\s*{_PROCESSOR})*)?$",
        description="Names of the processors to offer, the default one first: of the service, of an installed package, "
        "or `module:Class`. Empty: all of the service, and `simulated` is the default. `python -m app processors list` "
        "shows them.",
    )
    pipelines: str = Field(
        "",
        pattern=rf"^({_PIPELINE}(\s*;\s*{_PIPELINE})*)?$",
        description="Pipelines to offer by names of their own: `scan=ocr?,text,keywords;quick=text,keywords`. A stage "
        "with a `?` runs only on documents that need it.",
    )
    remote_processors: Annotated[Path | None, parsed(Path)] = Field(
        None,
        description="A JSON file of the processors that are run by workers elsewhere, which claim their jobs over HTTP "
        "(below). Empty: there are none.",
    )
    lease_seconds: float = Field(30, gt=0, description="A job whose worker is silent for this long is taken over.")
    job_max_tries: int = Field(5, ge=1, le=100, description="Attempts before a job is a dead letter.")
    job_timeout: float = Field(600, gt=0, description="Hard limit of one attempt.")
    # A short job mostly waits for its commits, which jobs share: with 64 at once 1.2 times as many are done as with 16.
    job_concurrency: int = Field(
        64, ge=0, description="Jobs run at once by one process; 0: a server that only accepts them, for workers to run."
    )
    max_result_bytes: int = Field(50 * 1024**2, ge=1, description="Largest result of a processor, as JSON.")
    text_max_characters: int = Field(
        1_000_000, ge=1, description="Most characters that the processors `text` and `ocr` can be asked for."
    )
    conversion_url: Annotated[ConversionService | None, NoDecode, parsed(conversion.parse)] = Field(
        None,
        description="`http://host:port` of a Gotenberg, with which the processor `convert` makes PDF of DOCX (below). "
        "Empty: there is none.",
    )
    drain_seconds: float = Field(20, ge=0, description="On SIGTERM, running jobs get this long to finish.")
    shutdown_delay_seconds: float = Field(
        0, ge=0, description="On SIGTERM, requests are served for at least this long: a load balancer has to notice."
    )
