"""Document Lifecycle API."""
