"""Alembic's entry point: migrate over the connection that `migrations.upgrade` was given."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
