"""The migrations make the schema that the code is written for, however they are run."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from app import migrations, wiring
from app.database import metadata
from app.database.sqlite import SqliteDatabase

assert wiring  # imports every module that defines a table


def migrated(path: Path) -> Path:
    SqliteDatabase(path).migrate()
    return path


def test_migrations_and_tables_agree(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{migrated(tmp_path / 'app.db')}")
    with engine.connect() as conn:
        # FTS5 makes tables of its own.
        opts = {"include_name": lambda name, kind, _: kind != "table" or not name.startswith("document_words")}
        differences = compare_metadata(MigrationContext.configure(conn, opts=opts), metadata)
    engine.dispose()
    assert not differences


def test_head_is_the_newest_revision_and_none_is_left_out() -> None:
    revisions = [each.revision for each in ScriptDirectory(str(Path(migrations.__file__).parent)).walk_revisions()]
    assert revisions == [f"{number:04}" for number in range(int(migrations.HEAD), 0, -1)]


def test_two_starters_at_once_serialize(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with ThreadPoolExecutor(4) as starters:
        list(starters.map(migrated, [path] * 4))
    with sqlite3.connect(path) as conn:
        assert conn.execute("SELECT version_num FROM alembic_version").fetchall() == [(migrations.HEAD,)]
        assert conn.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    conn.close()
