"""The settings that say how much clients may do, and how much of it at once."""

from pydantic import BaseModel, Field, SecretStr

_RATE = r"^(0|[1-9]\d{0,8}/(second|minute|hour|day))$"


class Limits(BaseModel):
    """Requests, uploads and downloads, quotas of accounts, and room on the disks."""

    rate_limit: str = Field(
        "12000/minute", pattern=_RATE, description="Requests of an account, such as `100/second`; `0`: any number."
    )
    rate_limit_anonymous: str = Field(
        "6000/minute", pattern=_RATE, description="Requests of a client's address that come without an account."
    )
    limits_url: SecretStr | None = Field(
        None,
        description="`redis://host`: requests are counted there, for all processes. Empty: each counts for itself.",
    )

    max_upload_bytes: int = Field(100 * 1024**2, ge=1, description="Largest file accepted.")
    upload_slots: int = Field(
        16, ge=1, description="Uploads received at once by one process; one account has at most three quarters."
    )
    upload_idle_seconds: float = Field(15, gt=0, description="An upload that sends nothing for this long is cut off.")
    upload_min_rate: float = Field(1024, ge=0, description="Bytes a second an upload must average over 10 s.")
    upload_max_seconds: float = Field(3600, gt=0, description="An upload that takes longer than this is cut off.")
    upload_url_ttl: int = Field(
        900, ge=1, le=604800, description="Life of the URL of a direct upload, in whole seconds; at most a week."
    )
    download_slots: int = Field(
        64,
        ge=1,
        description="Files and large results sent at once by one process; one account has at most three quarters.",
    )
    event_streams: int = Field(
        256, ge=1, description="Streams of events sent at once by one process; one account has at most three quarters."
    )

    quota_bytes: int = Field(
        10 * 1024**3, ge=0, description="Bytes that the files of one account may have; 0: no limit."
    )
    quota_documents: int = Field(100_000, ge=0, description="Documents that one account may have; 0: no limit.")
    quota_announced: int = Field(
        10_000, ge=0, description="Direct uploads under way that one account may have; 0: no limit."
    )
    quota_jobs: int = Field(10_000, ge=0, description="Unfinished jobs that one account may have; 0: no limit.")
    quota_api_keys: int = Field(50, ge=0, description="API keys that one account may have; 0: no limit.")
    quota_webhooks: int = Field(10, ge=0, description="Webhooks that one account may have; 0: no limit.")
    reserve_bytes: int | None = Field(
        None,
        ge=0,
        description="While less is free on the disk of the database or the files, nothing can be added; 0: off. "
        "Empty: 5 % of the disk, at most 1 GiB.",
    )
