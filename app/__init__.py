"""Document Lifecycle API."""

VERSION = "1.0.0"
