"""The catalogue of events: what can happen, and what is recorded of it.

Each class is an event, and its fields are the event's `data`. Events are read as they were written, whichever version
of this catalogue wrote them: a field may be added, but none may change its meaning.
"""

from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, dataclass_transform

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import TypeAliasType


class Failure(BaseModel):
    """Why a job failed, or an upload was rejected."""

    code: str = Field(examples=["password-protected"])
    detail: str = Field(examples=["The file is protected with a password."])


Level = Literal["info", "warning"]
RemovalReason = TypeAliasType("RemovalReason", Literal["deleted", "expired", "too-many"])
Content = TypeAliasType("Content", Literal["content", "result"])
_Fence = Annotated[int, Field(description="Rises with every attempt.")]

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


class DocumentInitiated(TimelineEvent):
    """A direct upload was announced."""

    name = "document.initiated"
    size: int
    sha256: str | None
    content_type: str


class DocumentUploaded(TimelineEvent):
    """The file is stored and verified."""

    name = "document.uploaded"
    size: int
    sha256: str
    content_type: str


class DocumentChildrenPublished(TimelineEvent):
    """Documents were made of this one, and published together."""

    name = "document.children_published"
    processor: str
    children: Annotated[int, Field(description="How many.")]


class DocumentStatusChanged(TimelineEvent):
    """The document went from one status to another."""

    name = "document.status_changed"
    old: str
    new: str


class DocumentUploadRejected(TimelineEvent):
    """The file that was sent is not the one announced, or not acceptable. It was removed."""

    name = "document.upload_rejected"
    error: Failure


class DocumentEdited(TimelineEvent):
    """Metadata was changed: these fields of it."""

    name = "document.edited"
    fields: list[str]


class DocumentContentRead(TimelineEvent):
    """The document's file was sent, or a part of it. Recorded only if AUDIT_READS says so."""

    name = "document.content_read"
    start: Annotated[int, Field(description="The first byte that was sent.")]
    length: int
    number: Annotated[int | SkipJsonSchema[None], Field(description="Which of its files, if that was said.")] = None
    page: Annotated[int | SkipJsonSchema[None], Field(description="The bytes are of a picture of this page.")] = None


class DocumentDeleted(TimelineEvent):
    """The document was moved to the trash, or deleted for good: `document.purged` tells them apart.

    `version` is the one that it has since then; it is missing if the operator erased the account.
    """

    name = "document.deleted"
    version: int | SkipJsonSchema[None] = None
    reason: Annotated[Literal["expired"] | SkipJsonSchema[None], Field(description="Missing: somebody did it.")] = None


class DocumentRestored(TimelineEvent):
    """The document was taken out of the trash."""

    name = "document.restored"
    version: int


class DocumentPurged(Event):
    """The document is gone for good, with its jobs, results and previous files. What was stored is removed soon."""

    name = "document.purged"
    version: int | SkipJsonSchema[None] = None


class DocumentHeld(TimelineEvent):
    """An operator has forbidden to remove the document."""

    name = "document.held"
    version: int
    reason: str


class DocumentReleased(TimelineEvent):
    """The document may be removed again."""

    name = "document.released"
    version: int


class DocumentFileReplaced(TimelineEvent):
    """The document has another file from now on. `restored`: it is a copy of the previous one of this number."""

    name = "document.file_replaced"
    number: int
    size: int
    sha256: str
    content_type: str
    restored: int | SkipJsonSchema[None] = None


class DocumentFileEdited(TimelineEvent):
    """What is stated about one of the document's files was changed: these fields of it."""

    name = "document.file_edited"
    number: int
    fields: list[str]


class DocumentFileRemoved(TimelineEvent):
    """A previous file of the document was deleted, with its results: by somebody, for its age, or for their number."""

    name = "document.file_removed"
    number: int
    reason: RemovalReason


class DocumentResultsExpired(TimelineEvent):
    """Results of the document were deleted for their age."""

    name = "document.results_expired"
    processors: list[str]


class DocumentUploadExpired(Event):
    """The document was deleted, because its direct upload was not completed in time."""

    name = "document.upload_expired"


class JobQueued(TimelineEvent):
    """A job was accepted. `processor` is what it is to run, if it is to process a document."""

    name = "job.queued"
    processor: str | SkipJsonSchema[None] = None


class _AttemptEvent(TimelineEvent):
    attempt: Annotated[int, Field(description="Counts from 1, without those that a shutdown ended.")]
    fence: _Fence


class JobStarted(_AttemptEvent):
    """A worker began an attempt."""

    name = "job.started"


class JobLeaseLost(_AttemptEvent):
    """The worker fell silent. The job goes back to the queue, or fails if it has no try left."""

    name = "job.lease_lost"
    _level = "warning"


class JobReleased(_AttemptEvent):
    """The worker was shut down. The job goes back to the queue."""

    name = "job.released"


class JobRetried(_AttemptEvent):
    """The attempt failed. The next one begins after `delay` seconds."""

    name = "job.retried"
    delay: float
    error: Failure


class JobFenced(TimelineEvent):
    """An outcome was refused, because the worker no longer held the job."""

    name = "job.fenced"
    fence: _Fence


class JobStageFinished(_AttemptEvent):
    """A stage of a pipeline is done, after so many seconds. `cached`: its result was there. `skipped`: the document did
    not need it."""

    name = "job.stage_finished"
    stage: str
    version: str
    seconds: float
    cached: bool
    skipped: bool


class JobStageFailed(_AttemptEvent):
    """A stage of a pipeline failed, after so many seconds. What becomes of the job is an event of its own."""

    name = "job.stage_failed"
    stage: str
    version: str
    seconds: float
    error: Failure


class JobSucceeded(_AttemptEvent):
    """The job is done."""

    name = "job.succeeded"


class JobFailed(TimelineEvent):
    """The job gave up. `dead`: it used up its tries.

    `attempt` and `fence` are missing if the worker of the last attempt fell silent.
    """

    name = "job.failed"
    attempt: int | SkipJsonSchema[None] = None
    fence: int | SkipJsonSchema[None] = None
    dead: bool
    error: Failure

    @property
    def level(self) -> Level:
        """A job that failed for good because of what it was given is no concern of the operator's."""
        return "warning" if self.dead else "info"


class JobCancelled(TimelineEvent):
    """The job's owner cancelled it, or an operator: the job alone, or with others, or with its account."""

    name = "job.cancelled"
    error: Failure


class OperatorContentRead(TimelineEvent):
    """An operator asked for the document's content or a result of it, and stated this reason."""

    name = "operator.content_read"
    _level = "warning"
    what: Content
    reason: str


class OperatorRead(Event):
    """An operator called this operation, which shows what accounts have. `filters` are what it was asked for, without
    free text. The event's account is the one that it is about, if it is about one."""

    name = "operator.read"
    operation: str
    filters: dict[str, Any]


class ProcessorPaused(Event):
    """An operator paused a processor: its jobs wait."""

    name = "processor.paused"
    processor: str
    reason: str | None


class ProcessorResumed(Event):
    """An operator resumed a processor that was paused."""

    name = "processor.resumed"
    processor: str


class _DeliveryEvent(TimelineEvent):
    """`type` is that of the message, and `attempt` counts from 1."""

    webhook_id: str
    delivery_id: str
    type: str
    attempt: int


class WebhookDelivered(_DeliveryEvent):
    """A webhook was told what happened to the document."""

    name = "webhook.delivered"


class WebhookFailed(_DeliveryEvent):
    """A webhook could not be told what happened to the document, and will not be."""

    name = "webhook.failed"
    error: Failure


class _WebhookEvent(Event):
    webhook_id: str


class WebhookCreated(_WebhookEvent):
    """A user added a webhook."""

    name = "webhook.created"


class WebhookEdited(_WebhookEvent):
    """A user changed a webhook: these fields of it."""

    name = "webhook.edited"
    fields: list[str]


class WebhookSecretRotated(_WebhookEvent):
    """A user replaced the secret of a webhook. The one before signed, too, for so many seconds more."""

    name = "webhook.secret_rotated"
    previous_valid_for: int


class WebhookTested(_WebhookEvent):
    """A user asked for a test of a webhook."""

    name = "webhook.tested"


class WebhookRedelivered(_WebhookEvent):
    """Its owner has a message sent to it again."""

    name = "webhook.redelivered"
    delivery_id: str


class WebhookRecovered(_WebhookEvent):
    """Its owner has messages sent to it that it missed: so many deliveries in one transaction."""

    name = "webhook.recovered"
    deliveries: int


class WebhookDisabled(_WebhookEvent):
    """A webhook is told nothing any more, because it failed for too long, or said that it is gone."""

    name = "webhook.disabled"
    _level = "warning"
    reason: str


class WebhookDeleted(_WebhookEvent):
    """A user deleted a webhook, with what it had not been told yet."""

    name = "webhook.deleted"


class UserRegistered(Event):
    """An account was created."""

    name = "user.registered"


class UserDisabled(Event):
    """The operator disabled an account, which ends its sessions. Its API keys are refused until it is enabled."""

    name = "user.disabled"


class UserEnabled(Event):
    """The operator enabled a disabled account."""

    name = "user.enabled"


class UserRoleChanged(Event):
    """An operator gave the account another role."""

    name = "user.role_changed"
    old: str
    new: str


class UserQuotaChanged(Event):
    """An operator changed quotas of the account: these. null: as the settings say; 0: no limit."""

    name = "user.quota_changed"
    limits: dict[str, int | None]


class UserErased(Event):
    """The operator erased an account with all that it owned."""

    name = "user.erased"


class UserPasswordChanged(Event):
    """The password was changed, which ended all sessions but the user's own. `family_id` is that one; it is missing if
    the operator changed the password."""

    name = "user.password_changed"
    family_id: str | SkipJsonSchema[None] = None


class _SessionEvent(Event):
    """`family_id` is the session's id: that of a login and all refresh tokens that descend from it."""

    family_id: str


class UserLoggedIn(_SessionEvent):
    """A user logged in with their password, which began a session."""

    name = "user.logged_in"


class UserLoginFailed(Event):
    """Somebody sent a wrong password, or an address that has no account."""

    name = "user.login_failed"
    _level = "warning"
    client: str | None


class UserSessionEnded(_SessionEvent):
    """A user or the operator ended a session from outside of it."""

    name = "user.session_ended"


class UserLoggedOut(_SessionEvent):
    """A user ended a session with its own refresh token."""

    name = "user.logged_out"


class UserRefreshTokenReused(_SessionEvent):
    """A refresh token was used again after its successor, so somebody else may have it: the session was
    ended."""

    name = "user.refresh_token_reused"
    _level = "warning"


class _KeyEvent(Event):
    """`key_id` is the API key's id. Its owner's account is the event's."""

    key_id: str


class KeyCreated(_KeyEvent):
    """An API key was made, which may do this until then. It never expires without `expires_at`."""

    name = "key.created"
    scopes: list[str]
    expires_at: str | SkipJsonSchema[None] = None


class KeyRotated(_KeyEvent):
    """An API key got another secret. The one before was good for so many seconds more."""

    name = "key.rotated"
    previous_valid_for: int


class KeyRevoked(_KeyEvent):
    """An API key was revoked, by its owner or the operator."""

    name = "key.revoked"


class KeyExpiring(_KeyEvent):
    """An API key expires within a week."""

    name = "key.expiring"
    expires_at: str


class AuditRead(Event):
    """Somebody read a page of the audit trail, with these filters."""

    name = "audit.read"
    filters: dict[str, str]


class AuditExported(Event):
    """Somebody began to export the audit trail, with these filters."""

    name = "audit.exported"
    filters: dict[str, str]


class SettingsStarted(Event):
    """A process began to serve or to work, at this version, with these settings: their SHA-256, secrets left out."""

    name = "settings.started"
    version: str
    sha256: str


class SecretsRotated(Event):
    """What is encrypted under older keys was encrypted with the newest: so many secrets. Of others, no key is there."""

    name = "secrets.rotated"
    changed: int
    unreadable: int


class StorageClaimed(Event):
    """This database claimed the files of its storage."""

    name = "storage.claimed"


class StorageDisputed(Event):
    """Another database claims the files of this one's storage."""

    name = "storage.disputed"
    _level = "warning"


class StorageMismatch(Event):
    """A stored file is missing, or not as it was stored: it has another size, or another content.

    The scrubber found it. `document_id` is missing if the file is none of a document's.
    """

    name = "storage.mismatch"
    _level = "warning"
    kind: Literal["missing", "size", "content"]
    file: str
    document_id: str | SkipJsonSchema[None] = None


class UsageRecounted(Event):
    """An operator had counted anew what the account uses, because something else was counted than it has."""

    name = "usage.recounted"
    before: dict[str, int]
    after: dict[str, int]
