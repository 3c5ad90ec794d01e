"""The check: finds what is lost, damaged, left behind or contradicts itself, in the database and in the storage."""
