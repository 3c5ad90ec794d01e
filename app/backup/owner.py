"""Whose backups are in a target: those of one service. Another's would push them out, and remove their files."""

from contextlib import closing, suppress
from functools import partial

from app.backup import BackupError, manifest
from app.backup.manifest import Manifest
from app.backup.plan import Plan
from app.backup.snapshots import happened
from app.backup.target import Target, backup_ids
from app.backup.verify import load_list
from app.database import Database
from app.files import repository


async def require_own(target: Target, db: Database) -> None:
    """Raise BackupError if there are backups in the target, and none of them is of the database: neither as it was
    before, nor as it was before a restore."""
    ids = await backup_ids(target)
    for backup_id in reversed(ids):
        with suppress(BackupError):  # it is damaged: another may tell
            if await _is_own(await manifest.read(target.storage, backup_id), target, db):
                return
    if ids:
        raise BackupError("the backups in the target are of another database: name another target")


async def _is_own(found: Manifest, target: Target, db: Database) -> bool:
    """By its latest event; by its files, if the service has forgotten that since."""
    if found.event is not None and await db.read(partial(happened, event=found.event)):
        return True
    with closing(Plan()) as plan:
        await load_list(target, found, plan.add)
        for batch in plan.batches():
            if await db.read(partial(repository.known, keys=[each.key for each in batch])):
                return True
    return False
