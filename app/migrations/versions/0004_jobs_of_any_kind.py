"""Jobs of any kind, in queues; the last good result of each processor.

The first half of a change. Processes of the revision before go on running beside this one, and write what they know:
triggers fill in the rest, in both directions. A later revision, when no such process runs any more, removes the
triggers, the columns `processor`, `processor_version`, `params` and `hint_at` of jobs with their indexes, and the table
`results`.
"""

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
        for statement in _SQLITE:
            op.execute(statement)
        return
    with op.get_context().autocommit_block():
        _alter_jobs()
        if not sa.inspect(op.get_bind()).has_table("document_results"):
            _create_results()
        online.change(*_POSTGRESQL)
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


_RESULT_OF_0003 = f"""
    INSERT INTO document_results ({_RESULT_COLUMNS})
    SELECT r.document_id, j.processor, r.job_id, j.processor_version, j.params, d.sha256, r.data, r.created_at
    FROM results r JOIN jobs j ON j.id = r.job_id JOIN documents d ON d.id = r.document_id
"""  # noqa: S608 - names of our own
_IN_PLACE = """
    ON CONFLICT (document_id, processor) DO UPDATE SET
        job_id = excluded.job_id, processor_version = excluded.processor_version, params = excluded.params,
        input_sha256 = excluded.input_sha256, data = excluded.data, created_at = excluded.created_at
"""
_RESULT_FOR_0003 = """
    INSERT INTO results (document_id, job_id, data, created_at)
    VALUES (NEW.document_id, NEW.job_id, NEW.data, NEW.created_at)
    ON CONFLICT (document_id) DO UPDATE SET
        job_id = excluded.job_id, data = excluded.data, created_at = excluded.created_at
"""


def _sqlite_result_triggers(event: str) -> tuple[str, str]:
    """Each table follows the other, unless it has the result already."""
    has = "EXISTS (SELECT 1 FROM {} r WHERE r.document_id = NEW.document_id AND r.job_id = NEW.job_id)"
    return (
        f"""
        CREATE TRIGGER fill_result_of_0003_{event} AFTER {event} ON results
        WHEN NOT {has.format("document_results")} BEGIN
            {_RESULT_OF_0003} WHERE r.document_id = NEW.document_id {_IN_PLACE};
        END
        """,
        f"""
        CREATE TRIGGER fill_result_for_0003_{event} AFTER {event} ON document_results
        WHEN NOT {has.format("results")} BEGIN {_RESULT_FOR_0003}; END
        """,
    )


_SQLITE = (
    f"""
    CREATE TRIGGER fill_job_of_0003 AFTER INSERT ON jobs WHEN NEW.queue = '' BEGIN
        UPDATE jobs SET (queue, key, args, queued_at) = (SELECT {_sqlite_job("NEW")}, NEW.run_at) WHERE id = NEW.id;
    END
    """,  # noqa: S608 - names of our own
    """
    CREATE TRIGGER fill_job_for_0003 AFTER INSERT ON jobs WHEN NEW.hint_at IS NULL BEGIN
        UPDATE jobs SET processor = json_extract(NEW.args, '$.processor'), hint_at = NEW.run_at,
            processor_version = json_extract(NEW.args, '$.version'), params = json_extract(NEW.args, '$.params')
        WHERE id = NEW.id;
    END
    """,
    _RESULT_OF_0003,
    *_sqlite_result_triggers("insert"),
    *_sqlite_result_triggers("update"),
)


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


_POSTGRESQL = (
    f"""
    CREATE OR REPLACE FUNCTION fill_job() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.queue = '' THEN -- of 0003
            SELECT {_postgresql_job("NEW")}, NEW.run_at INTO NEW.queue, NEW.key, NEW.args, NEW.queued_at;
        ELSE -- for 0003
            NEW.processor := NEW.args->>'processor';
            NEW.processor_version := NEW.args->>'version';
            NEW.params := NEW.args->'params';
            NEW.hint_at := NEW.run_at;
        END IF;
        RETURN NEW;
    END $$
    """,
    "DROP TRIGGER IF EXISTS fill_job ON jobs",
    "CREATE TRIGGER fill_job BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION fill_job()",
    f"""
    CREATE OR REPLACE FUNCTION fill_result_of_0003() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NOT EXISTS (SELECT FROM document_results r WHERE r.document_id = NEW.document_id AND r.job_id = NEW.job_id)
        THEN {_RESULT_OF_0003} WHERE r.document_id = NEW.document_id {_IN_PLACE}; END IF;
        RETURN NULL;
    END $$
    """,
    "DROP TRIGGER IF EXISTS fill_result_of_0003 ON results",
    """
    CREATE TRIGGER fill_result_of_0003 AFTER INSERT OR UPDATE ON results
    FOR EACH ROW EXECUTE FUNCTION fill_result_of_0003()
    """,
    f"""
    CREATE OR REPLACE FUNCTION fill_result_for_0003() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NOT EXISTS (SELECT FROM results r WHERE r.document_id = NEW.document_id AND r.job_id = NEW.job_id)
        THEN {_RESULT_FOR_0003}; END IF;
        RETURN NULL;
    END $$
    """,
    "DROP TRIGGER IF EXISTS fill_result_for_0003 ON document_results",
    """
    CREATE TRIGGER fill_result_for_0003 AFTER INSERT OR UPDATE ON document_results
    FOR EACH ROW EXECUTE FUNCTION fill_result_for_0003()
    """,
)
_FILL_JOBS = f"""
    UPDATE jobs AS j SET (queue, key, args, queued_at) = (SELECT {_postgresql_job("j")}, j.run_at)
    WHERE j.queue = '' AND j.id > :after AND j.id <= :last
"""  # noqa: S608 - names of our own
_FILL_RESULTS = f"{_RESULT_OF_0003} WHERE r.document_id > :after AND r.document_id <= :last ON CONFLICT DO NOTHING"
