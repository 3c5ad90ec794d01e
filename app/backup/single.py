"""Brings single files of a service back, while it runs: those that its storage has lost, or that have rotted there."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, select

from app.backup import BackupError, Report
from app.backup.manifest import Content
from app.backup.plan import Listed
from app.backup.snapshots import STORED
from app.backup.target import FILES, Target, copy
from app.backup.verify import compare
from app.database import Database
from app.errors import ConfigurationError, NotFound
from app.files.claim import Claim
from app.files.models import files
from app.storage.base import Storage


@dataclass(frozen=True, slots=True)
class Return:
    """Brings files back from a target. What they must be, the database says: whichever backup has that will do."""

    target: Target
    storage: Storage
    db: Database

    async def run(self, keys: Iterable[str], report: Report) -> None:
        """Bring back the files of these keys, and close everything. A file that is as it was stored is left alone.

        Raises BackupError, ConfigurationError, and what the database and the storages raise.
        """
        try:
            await self.target.open()
            await self.storage.open()
            await Claim(self.db, self.storage).check()
            if await self.storage.read_mark() is None:
                raise ConfigurationError(
                    "STORAGE_URL: there is no mark of this service, so the files must be elsewhere"
                )
            for key in keys:
                report(await self._one(key))
        finally:
            for part in (self.db, self.storage, self.target):
                await part.close()

    async def _one(self, key: str) -> str:
        file = await self.db.read(partial(_stored, key=key))
        if file is None:
            raise BackupError(f"the database has no stored file {key}")
        before = await compare(self.storage, key, Content.of(file.content))
        if before == "right":
            return f"{key} is there, and as it was stored: it is left alone"
        source = f"{FILES}/{file.sha256}"
        try:
            whole = await copy(self.target.storage, source, self.storage, key, file.content)
        except NotFound:
            raise BackupError(f"{source}, which is {key}, is missing") from None
        if not whole:
            raise BackupError(f"{source}, which is {key}, is damaged")
        return f"{key} was {before}, and is restored"


def _stored(conn: Connection, key: str) -> Listed | None:
    row = conn.execute(
        select(files.c.key, files.c.sha256, files.c.size).where(*STORED, files.c.key == key)
    ).one_or_none()
    return Listed(*row) if row else None
