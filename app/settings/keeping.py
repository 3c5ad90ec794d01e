"""The settings that say how long things are kept, and how many of them."""

from pydantic import BaseModel, Field

DAY = 86400  # seconds


class Keeping(BaseModel):
    """All in seconds, but where a description says otherwise."""

    trash_seconds: float = Field(
        30 * DAY,
        ge=0,
        description="A deleted document stays in the trash, from which it can be restored, for this long; 0: it is "
        "deleted for good at once.",
    )
    retention_seconds: float = Field(
        0,
        ge=0,
        description="Documents are moved to the trash this long after their upload, or when their own `expires_at` "
        "says so, if that is earlier; 0: kept.",
    )
    result_ttl: float = Field(0, ge=0, description="Results are deleted after this long; 0: kept with their document.")
    file_versions_max: int = Field(
        100,
        ge=0,
        description="Previous files of a document that are kept, beside those marked `keep`; 0: a file that is "
        "replaced is deleted at once.",
    )
    file_version_ttl: float = Field(
        30 * DAY,
        ge=0,
        description="Previous files are deleted this long after they were replaced, unless marked `keep`; 0: kept.",
    )
    scrub_bytes_per_second: int = Field(
        0,
        ge=0,
        description="Bytes that one of the processes reads back and compares with their SHA-256, again and again, to "
        "find files that have rotted; 0: none.",
    )
    orphan_grace_seconds: float = Field(
        3600,
        gt=0,
        description="Files that belong to no document are removed after this long. So are direct uploads that were "
        "not completed, counted from the expiry of their URL.",
    )
    idempotency_ttl: float = Field(
        DAY,
        gt=0,
        description="How long an Idempotency-Key is remembered; that of a direct upload only while its URL is valid.",
    )
    stage_cache_ttl: float = Field(
        7 * DAY, ge=0, description="What a stage of a pipeline has made is kept until it was of no use for this long."
    )
    stage_cache_bytes: int = Field(
        1024**3, ge=0, description="Bytes of such results that are kept for all accounts; the latest used ones are."
    )
    webhook_log_ttl: float = Field(
        30 * DAY, gt=0, description="Deliveries that are over, and their attempts, are deleted after this long."
    )
    events_ttl: float = Field(
        400 * DAY,
        ge=0,
        description="Events, which are the timelines and the audit trail, are deleted after this long; 0: kept.",
    )
