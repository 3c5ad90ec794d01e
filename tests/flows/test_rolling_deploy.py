"""Two versions on one schema: the older one goes on, and starts, for as long as the schema has what it uses."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app import migrations
from tests import databases
from tests.server import Server

EXPANDED = [
    "ALTER TABLE documents ADD COLUMN colour VARCHAR(10)",
    "ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0",
    "CREATE TABLE shares (id INTEGER PRIMARY KEY)",
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
}


def migrate_beyond(data_dir: Path, statements: list[str]) -> None:
    """As the next version would."""
    with databases.engine(data_dir).begin() as conn:
        for statement in [*statements, "UPDATE alembic_version SET version_num = '9999'"]:
            conn.exec_driver_sql(statement)


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
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path / "var"), "PORT": "0"}
    environment |= databases.settings(tmp_path / "var")
    subprocess.run([sys.executable, "-m", "app", "migrate"], env=environment, check=True, capture_output=True)
    statements, reason = CONTRACTED[contracted]
    migrate_beyond(tmp_path / "var", statements)
    done = subprocess.run(
        [sys.executable, "-m", "app", command], env=environment, check=False, capture_output=True, text=True, timeout=30
    )
    beyond = f"the database is at revision 9999 and this version knows {migrations.HEAD}"
    assert done.stderr == f"configuration: {beyond}: {reason}. Deploy a newer version\n"
    assert (done.returncode, done.stdout) == (1, "")
