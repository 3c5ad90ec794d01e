"""Two versions on one schema: the older one goes on, and starts, for as long as the schema has what it uses."""

import os
from pathlib import Path

import pytest
from sqlalchemy import text

from app import migrations
from app.errors import ConfigurationError
from tests.support import databases
from tests.support.databases import database
from tests.support.server import Server
from tests.support.zygote import run

EXPANDED = [
    "ALTER TABLE documents ADD COLUMN colour VARCHAR(10)",
    "ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE jobs ADD COLUMN twice INTEGER GENERATED ALWAYS AS (tries * 2) "
    + ("STORED NOT NULL" if databases.POSTGRESQL else "VIRTUAL NOT NULL"),
    "CREATE TABLE shares (id INTEGER PRIMARY KEY)",
    *(["ALTER TABLE jobs ADD COLUMN number BIGINT GENERATED ALWAYS AS IDENTITY"] if databases.POSTGRESQL else []),
]
CONTRACTED = {
    "a table less": (["DROP TABLE document_tags"], "document_tags is gone"),
    "a column less": (["ALTER TABLE jobs DROP COLUMN request_id"], "jobs.request_id is gone"),
    "a column that must be filled in": (
        [
            "DROP TABLE document_tags",
            "CREATE TABLE document_tags (tag VARCHAR(50), document_id VARCHAR(32), weight INTEGER NOT NULL)",
        ],
        "document_tags.weight has to be filled in",
    ),
    "a column that this version leaves empty": (
        ["ALTER TABLE documents ALTER COLUMN folder SET NOT NULL"]
        if databases.POSTGRESQL
        else [
            "ALTER TABLE documents RENAME COLUMN folder TO old_folder",
            "ALTER TABLE documents ADD COLUMN folder VARCHAR(255) NOT NULL DEFAULT ''",
        ],
        "documents.folder has to be filled in",
    ),
}


def migrate_beyond(data_dir: Path, statements: list[str], revision: str = "9999") -> None:
    """As the next version would."""
    with databases.engine(data_dir).begin() as conn:
        for statement in statements:
            conn.exec_driver_sql(statement)
        conn.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})


def refused(data_dir: Path, command: str) -> str:
    """The one line that says why."""
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(data_dir), "PORT": "0", **databases.settings(data_dir)}
    done = run(command, **environment)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    return line


def test_the_older_version_serves_on_and_starts_again(tmp_path: Path) -> None:
    with Server(tmp_path / "var") as server:
        user = server.register()
        migrate_beyond(tmp_path / "var", EXPANDED)
        for _ in range(2):
            document = user.upload(metadata={"tags": ["a"]})
            assert user.finished(user.start(document["id"])["id"])["state"] == "SUCCEEDED"
            assert server.stop() == 0
            user = server.restarted(user)
        told = server.logs("database.newer")[-1]
        assert (told["revision"], told["known"], told["level"]) == ("9999", migrations.HEAD, "warning")


@pytest.mark.parametrize("command", ["serve", "migrate"])
@pytest.mark.parametrize("contracted", CONTRACTED)
def test_a_schema_that_lacks_something_is_refused_in_one_line(tmp_path: Path, contracted: str, command: str) -> None:
    database(tmp_path / "var").migrate()
    statements, reason = CONTRACTED[contracted]
    migrate_beyond(tmp_path / "var", statements)
    beyond = f"the database is at revision 9999 and this version knows {migrations.HEAD}"
    assert refused(tmp_path / "var", command) == f"configuration: {beyond}: {reason}. Deploy a newer version"


@pytest.mark.parametrize("revision", ["0000", "000aa7", "ae1027a6acf", "00001"])
def test_a_schema_that_is_not_of_this_service_is_refused_in_one_line(tmp_path: Path, revision: str) -> None:
    database(tmp_path / "var").migrate()
    migrate_beyond(tmp_path / "var", [], revision)
    with pytest.raises(ConfigurationError, match=f"^the database is at revision {revision}, which is none"):
        database(tmp_path / "var").migrate()
