"""Removes old backups, and the files that no other names."""

from contextlib import closing

from app.backup import Report, manifest
from app.backup.plan import Plan
from app.backup.target import FILES, Target, backup_ids, stored_files
from app.backup.verify import load_list

_NAMES = (manifest.MANIFEST, manifest.DATABASE, manifest.LIST)  # without the manifest, there is no backup


async def remove_unfinished(target: Target) -> None:
    """Remove what killed processes have left of backups and of their removal. Files stay: the next backup has them."""
    complete = set(await backup_ids(target))
    for backup_id in await backup_ids(target, complete=False):
        if backup_id not in complete:
            await _remove(target, backup_id)


async def prune(target: Target, keep: int, report: Report) -> None:
    """Remove all but the newest backups, then the files that none of these names. Raises BackupError, before any file
    is removed, if it is not known which they are."""
    ids = await backup_ids(target)
    old = ids[:-keep]
    with closing(Plan()) as named:
        for backup_id in ids[-keep:]:
            found = await manifest.read(target.storage, backup_id)
            await load_list(target, found, lambda batch: named.hold((each.sha256, each.size) for each in batch))
        for backup_id in old:
            await _remove(target, backup_id)
        removed = await _remove_files(target, named)
    report(f"kept: {len(ids) - len(old)} backups; {len(old)} removed, and {removed} files that only they had")


async def _remove(target: Target, backup_id: str) -> None:
    for name in _NAMES:
        await target.storage.delete(manifest.key(backup_id, name))


async def _remove_files(target: Target, named: Plan) -> int:
    removed = 0
    async for files in stored_files(target):
        for sha256, size in files:
            if not named.holds(sha256, size):
                await target.storage.delete(f"{FILES}/{sha256}")
                removed += 1
    return removed
