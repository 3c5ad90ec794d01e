"""Jobs of any kind, in queues; the last good result of each processor. Revision 0006 removes what they replace."""

import sqlalchemy as sa
from alembic import op

from app.migrations import online

revision = "0004"
down_revision = "0003"

_STATES = "state IN ('QUEUED', 'RUNNING', 'WAITING', 'SUCCEEDED', 'FAILED', 'CANCELLED')"
_JOB_INDEXES = {
    "uq_jobs_key": (["key"], "finished_at IS NULL"),
    "ix_jobs_due": (["queue", "run_at"], "state = 'QUEUED'"),
    "ix_jobs_held": (["locked_until"], "state IN ('RUNNING', 'WAITING')"),
    "ix_jobs_document_id_created_at_id": (["document_id", "created_at", "id"], None),
}
_RESULT_COLUMNS = "document_id, processor, job_id, processor_version, params, input_sha256, data, created_at"


def upgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        _rebuild_jobs()
        _create_results()
        op.execute(_RESULTS)
        return
    with op.get_context().autocommit_block():
        _alter_jobs()
        if not sa.inspect(op.get_bind()).has_table("document_results"):
            _create_results()
        online.by_batch("jobs", "id", _FILL_JOBS)
        online.by_batch("results", "document_id", _FILL_RESULTS)
        for name, (columns, where) in _JOB_INDEXES.items():
            online.build_index(name, "jobs", columns, where, unique=name.startswith("uq"))
        # Last: nothing looks these up any more.
        online.run("DROP INDEX CONCURRENTLY IF EXISTS uq_jobs_live")
        online.run("DROP INDEX CONCURRENTLY IF EXISTS ix_jobs_document_id")


def _create_results() -> None:
    op.create_table(
        "document_results",
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("processor", sa.String(length=50), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("processor_version", sa.String(length=50), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("input_sha256", sa.String(length=64), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["documents.id"],
            name=op.f("fk_document_results_document_id_documents"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("document_id", "processor", name=op.f("pk_document_results")),
    )


# --- SQLite ----------------------------------------------------------------------------------------------------------


def _rebuild_jobs() -> None:
    """Make the table anew: SQLite cannot alter its columns or its check. No other table refers to it."""
    op.create_table(
        "new_jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=50), nullable=False, server_default="process"),
        sa.Column("queue", sa.String(length=120), nullable=False, server_default=""),
        sa.Column("key", sa.String(length=100), nullable=True),
        sa.Column("args", sa.JSON(), nullable=False, server_default="{}"),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=True),
        sa.Column("processor", sa.String(length=50), nullable=True),
        sa.Column("processor_version", sa.String(length=50), nullable=True),
        sa.Column("params", sa.JSON(), nullable=True),
        sa.Column("state", sa.String(length=9), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("settled_fence", sa.Integer(), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("max_tries", sa.Integer(), nullable=False),
        sa.Column("locked_by", sa.String(length=100), nullable=True),
        sa.Column("locked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("locked_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("run_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("hint_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("progress", sa.Float(), nullable=False),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("dead", sa.Boolean(), nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(_STATES, name=op.f("ck_jobs_state")),
        sa.ForeignKeyConstraint(
            ["document_id"], ["documents.id"], name=op.f("fk_jobs_document_id_documents"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.execute(
        f"""
        INSERT INTO new_jobs ({_KEPT_COLUMNS}, queue, key, args, queued_at)
        SELECT {_KEPT_COLUMNS}, {_sqlite_job("jobs")}, run_at FROM jobs
        """  # noqa: S608 - names of our own
    )
    op.drop_table("jobs")
    op.rename_table("new_jobs", "jobs")
    kept = {
        "ix_jobs_owner_id_created_at_id": (["owner_id", "created_at", "id"], None),
        "ix_jobs_owner_id_state_created_at_id": (["owner_id", "state", "created_at", "id"], None),
        "ix_jobs_ended": (["state"], "state IN ('SUCCEEDED', 'FAILED', 'CANCELLED')"),
        "ix_jobs_dead": (["owner_id", "created_at", "id"], "dead IS 1"),
        "ix_jobs_queued": (["hint_at"], "state = 'QUEUED'"),
        "ix_jobs_running": (["locked_until"], "state = 'RUNNING'"),
    }
    for name, (columns, where) in (_JOB_INDEXES | kept).items():
        condition = sa.text(where) if where else None
        op.create_index(name, "jobs", columns, unique=name.startswith("uq"), sqlite_where=condition)


_KEPT_COLUMNS = (
    "id, document_id, owner_id, processor, processor_version, params, state, fence, tries, max_tries, locked_by,"
    " locked_until, run_at, hint_at, progress, error, dead, request_id, created_at, started_at, finished_at"
)


def _sqlite_job(row: str) -> str:
    """The queue, key and args of a job that has its processor, version and params in columns of their own."""
    # The id as Python writes it; SQLite stores it without hyphens.
    spans = ("1, 8", "9, 4", "13, 4", "17, 4", "21")
    document = " || '-' || ".join(f"substr({row}.document_id, {span})" for span in spans)
    return f"""
        'process/' || {row}.processor || '@' || {row}.processor_version,
        'document:' || {document},
        json_object('processor', {row}.processor, 'version', {row}.processor_version, 'params', json({row}.params),
            'file', (SELECT json_object('key', 'documents/' || {document}, 'content_type', d.content_type,
                                        'size', d.size, 'sha256', d.sha256)
                     FROM documents d WHERE d.id = {row}.document_id))
    """  # noqa: S608 - names of our own


_RESULTS = f"""
    INSERT INTO document_results ({_RESULT_COLUMNS})
    SELECT r.document_id, j.processor, r.job_id, j.processor_version, j.params, d.sha256, r.data, r.created_at
    FROM results r JOIN jobs j ON j.id = r.job_id JOIN documents d ON d.id = r.document_id
"""  # noqa: S608 - names of our own


# --- PostgreSQL ------------------------------------------------------------------------------------------------------


def _alter_jobs() -> None:
    online.change(
        """
        ALTER TABLE jobs
            ADD COLUMN IF NOT EXISTS kind VARCHAR(50) NOT NULL DEFAULT 'process',
            ADD COLUMN IF NOT EXISTS queue VARCHAR(120) NOT NULL DEFAULT '',
            ADD COLUMN IF NOT EXISTS key VARCHAR(100),
            ADD COLUMN IF NOT EXISTS args JSON NOT NULL DEFAULT '{}',
            ADD COLUMN IF NOT EXISTS settled_fence INTEGER,
            ADD COLUMN IF NOT EXISTS locked_at TIMESTAMP WITH TIME ZONE,
            ADD COLUMN IF NOT EXISTS queued_at TIMESTAMP WITH TIME ZONE,
            ALTER COLUMN document_id DROP NOT NULL,
            ALTER COLUMN processor DROP NOT NULL,
            ALTER COLUMN processor_version DROP NOT NULL,
            ALTER COLUMN params DROP NOT NULL,
            ALTER COLUMN hint_at DROP NOT NULL,
            DROP CONSTRAINT IF EXISTS ck_jobs_state,
            ADD CONSTRAINT ck_jobs_state CHECK ("""
        + _STATES
        + """) NOT VALID
        """
    )
    online.run("ALTER TABLE jobs VALIDATE CONSTRAINT ck_jobs_state")


def _postgresql_job(row: str) -> str:
    """As `_sqlite_job`."""
    return f"""
        'process/' || {row}.processor || '@' || {row}.processor_version,
        'document:' || {row}.document_id,
        json_build_object('processor', {row}.processor, 'version', {row}.processor_version, 'params', {row}.params,
            'file', (SELECT json_build_object('key', 'documents/' || d.id, 'content_type', d.content_type,
                                              'size', d.size, 'sha256', d.sha256)
                     FROM documents d WHERE d.id = {row}.document_id))
    """  # noqa: S608 - names of our own


_FILL_JOBS = f"""
    UPDATE jobs AS j SET (queue, key, args, queued_at) = (SELECT {_postgresql_job("j")}, j.run_at)
    WHERE j.queue = '' AND j.id > :after AND j.id <= :last
"""  # noqa: S608 - names of our own
_FILL_RESULTS = f"{_RESULTS} WHERE r.document_id > :after AND r.document_id <= :last ON CONFLICT DO NOTHING"
