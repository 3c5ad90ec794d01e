"""The maintenance that every process does: see `app/upkeep.py`."""

from functools import partial

from app import idempotency
from app.audit.anchors import anchoring
from app.auth import attempts
from app.auth.keys import repository as api_keys
from app.auth.keys.uses import INTERVAL as USES_INTERVAL, Uses
from app.auth.sessions import forget_expired as forget_expired_sessions
from app.check.scrubber import Scrubber
from app.database import Database
from app.documents.deletion import Deletion
from app.documents.file_versions.service import FileVersions
from app.documents.search import INDEX_INTERVAL, index_documents
from app.documents.uploads import expire_uploads
from app.events import seals
from app.files import repository as stored_files
from app.files.claim import REFRESH, Claim
from app.files.orphans import Orphans
from app.inbox.watcher import Watcher
from app.processing.retention import expire_results
from app.processing.stages import retention
from app.remote import outputs as remote_outputs
from app.remote.hints import Hints
from app.settings import Settings
from app.storage.base import Storage
from app.upkeep import Chore
from app.webhooks import retention as webhooks

MINUTE = 60.0  # seconds
HOUR = 3600.0  # seconds
KEYS = 10_000  # Idempotency-Keys of one account that are remembered


def chores(
    db: Database,
    storage: Storage,
    claim: Claim,
    orphans: Orphans,
    deletion: Deletion,
    file_versions: FileVersions,
    *,
    uses: Uses,
    inbox: Watcher | None,
    settings: Settings,
) -> list[Chore]:
    often, grace = settings.lease_seconds / 2, settings.orphan_grace_seconds
    found = [
        Chore("mark", REFRESH, claim.refresh),
        Chore("idempotency-keys", often, partial(idempotency.forget_expired, db)),
        Chore("login-attempts", often, partial(attempts.forget_expired, db)),
        Chore("many-idempotency-keys", HOUR, partial(idempotency.forget_beyond_limit, db, KEYS), shared=True),
        Chore("logins", often, partial(forget_expired_sessions, db, settings.access_token_ttl)),
        Chore("api-key-uses", USES_INTERVAL, uses.flush),
        Chore("api-keys-expiring", HOUR, partial(api_keys.warn_of_expiry, db), shared=True),
        Chore("api-keys", HOUR, partial(api_keys.forget_expired, db), shared=True),
        Chore("uploads", often, partial(expire_uploads, db, orphans, grace=grace)),
        Chore("search-index", INDEX_INTERVAL, partial(index_documents, db)),
        Chore("audit-seals", MINUTE, partial(seals.seal, db, anchoring(storage)), shared=True),
        Chore("remote-outputs", HOUR, partial(remote_outputs.forget_expired, db), shared=True),
        Chore("discarded-files", grace, partial(stored_files.forget_discarded, db, grace), shared=True),
        Chore("webhook-log", HOUR, partial(webhooks.forget, db, settings.webhook_log_ttl), shared=True),
        Chore(
            "stage-results",
            min(HOUR, grace),
            partial(retention.sweep, db, settings.stage_cache_ttl, settings.stage_cache_bytes),
            shared=True,
        ),
        Chore("expired-documents", often, deletion.expire, shared=True),
        Chore("trash", often, deletion.purge_overdue, shared=True),
        Chore("orphan-files", grace, orphans.sweep, shared=True),
    ]
    if settings.result_ttl:
        run = partial(expire_results, db, settings.result_ttl)
        found.append(Chore("results", min(HOUR, settings.result_ttl), run, shared=True))
    if settings.file_version_ttl:
        found.append(Chore("previous-files", often, file_versions.expire, shared=True))
    found.append(Chore("too-many-files", min(HOUR, grace), file_versions.prune, shared=True))
    if settings.events_ttl:
        found.append(Chore("events", grace, partial(claim.forget_events, settings.events_ttl), shared=True))
    if inbox:
        found.append(Chore("inbox", settings.inbox_settle_seconds, inbox.look, shared=True))
    return found


def hinting(hints: Hints, settings: Settings) -> list[Chore]:
    """Repeating hints, if there is a queue for any."""
    often = settings.lease_seconds / 2
    return [Chore("remote-hints", often, partial(hints.repeat, often), shared=True)] if hints else []


def scrubbing(scrubber: Scrubber, settings: Settings) -> list[Chore]:
    """Reading files back, if that is wanted. Every process learns what was found."""
    often = min(MINUTE, settings.orphan_grace_seconds)
    found = [Chore("scrub", often, scrubber.scrub, shared=True), Chore("scrub-alarm", often, scrubber.refresh)]
    return found if settings.scrub_bytes_per_second else []
