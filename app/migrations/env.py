"""Alembic's entry point: migrates over the connection that was given to `migrations.upgrade`."""

from typing import Any

from alembic import context

from app.telemetry import faults


def _step(*_: Any, **__: Any) -> None:
    faults.hit("migration.each_step")


context.configure(
    connection=context.config.attributes["connection"], transaction_per_migration=True, on_version_apply=_step
)
with context.begin_transaction():
    context.run_migrations()
