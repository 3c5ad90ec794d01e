"""Removes what only processes of revision 0003 used, and the triggers by which they lived beside those of 0004."""

from alembic import op

from app.migrations import online

revision = "0006"
down_revision = "0005"

_SQLITE_TRIGGERS = (
    "fill_job_of_0003",
    "fill_job_for_0003",
    *(f"fill_result_{which}_0003_{event}" for which in ("of", "for") for event in ("insert", "update")),
)
_INDEXES = ("ix_jobs_queued", "ix_jobs_running")
_COLUMNS = ("processor", "processor_version", "params", "hint_at")


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        for trigger in _SQLITE_TRIGGERS:
            op.execute(f"DROP TRIGGER IF EXISTS {trigger}")
        for index in _INDEXES:
            op.drop_index(index, "jobs")
        for column in _COLUMNS:
            op.drop_column("jobs", column)
        op.drop_table("results")
        return
    with op.get_context().autocommit_block():
        online.change(
            "DROP TRIGGER IF EXISTS fill_job ON jobs",
            "DROP TRIGGER IF EXISTS fill_result_for_0003 ON document_results",
            "DROP TABLE IF EXISTS results",
            "ALTER TABLE jobs " + ", ".join(f"DROP COLUMN IF EXISTS {column}" for column in _COLUMNS),
        )
        online.run("DROP FUNCTION IF EXISTS fill_job, fill_result_of_0003, fill_result_for_0003")
        for index in _INDEXES:
            online.run(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")
