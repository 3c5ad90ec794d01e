"""The audit trail: reading, exporting and verifying what `app/events` has recorded and sealed."""
