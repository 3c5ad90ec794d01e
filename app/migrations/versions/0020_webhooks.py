"""Webhooks: endpoints, messages, their deliveries, and the attempts to make them."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Tables that nothing is in yet, with their indexes, in one transaction on either engine."""
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.String(length=2048), nullable=False),
        sa.Column("description", sa.String(length=2000), nullable=True),
        sa.Column("event_types", sa.JSON(), nullable=True),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("disabled_reason", sa.String(length=100), nullable=True),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("previous_secret", sa.LargeBinary(), nullable=True),
        sa.Column("previous_until", _MOMENT, nullable=True),
        sa.Column("failing_since", _MOMENT, nullable=True),
        sa.Column("probe_at", _MOMENT, nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("updated_at", _MOMENT, nullable=False),
        sa.CheckConstraint("state IN ('ACTIVE', 'PAUSED', 'DISABLED')", name=op.f("ck_webhook_endpoints_state")),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_webhook_endpoints_owner_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoints")),
    )
    op.create_table(
        "webhook_messages",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.String(length=50), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("document_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_webhook_messages_owner_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_webhook_messages")),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("trigger", sa.String(length=8), nullable=False),
        sa.Column("state", sa.String(length=9), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("finished_at", _MOMENT, nullable=True),
        sa.CheckConstraint(
            "state IN ('PENDING', 'DELIVERED', 'FAILED', 'DISCARDED')", name=op.f("ck_webhook_deliveries_state")
        ),
        sa.ForeignKeyConstraint(
            ["endpoint_id"],
            ["webhook_endpoints.id"],
            name=op.f("fk_webhook_deliveries_endpoint_id_webhook_endpoints"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["event_id"],
            ["webhook_messages.event_id"],
            name=op.f("fk_webhook_deliveries_event_id_webhook_messages"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
    )
    op.create_table(
        "webhook_attempts",
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("url", sa.String(length=2048), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("response", sa.String(length=1024), nullable=True),
        sa.ForeignKeyConstraint(
            ["delivery_id"],
            ["webhook_deliveries.id"],
            name=op.f("fk_webhook_attempts_delivery_id_webhook_deliveries"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("delivery_id", "fence", name=op.f("pk_webhook_attempts")),
    )
    for index, table, columns in _INDEXES:
        op.create_index(index, table, columns)
    once = sa.text("\"trigger\" = 'event'")
    op.create_index(
        "uq_webhook_deliveries_of_event",
        "webhook_deliveries",
        ["endpoint_id", "event_id"],
        unique=True,
        sqlite_where=once,
        postgresql_where=once,
    )
    over = sa.text("finished_at IS NOT NULL")
    op.create_index(
        "ix_webhook_deliveries_over", "webhook_deliveries", ["finished_at"], sqlite_where=over, postgresql_where=over
    )


_MOMENT = sa.DateTime(timezone=True)
_INDEXES = (
    ("ix_webhook_endpoints_owner_id_created_at_id", "webhook_endpoints", ["owner_id", "created_at", "id"]),
    ("ix_webhook_messages_owner_id_created_at", "webhook_messages", ["owner_id", "created_at"]),
    ("ix_webhook_messages_created_at", "webhook_messages", ["created_at"]),
    ("ix_webhook_deliveries_event_id_endpoint_id", "webhook_deliveries", ["event_id", "endpoint_id"]),
    ("ix_webhook_deliveries_endpoint_id_created_at_id", "webhook_deliveries", ["endpoint_id", "created_at", "id"]),
    (
        "ix_webhook_deliveries_endpoint_id_state_created_at_id",
        "webhook_deliveries",
        ["endpoint_id", "state", "created_at", "id"],
    ),
)
