"""Idempotency-Keys that are made of what is asked for, so that the same call has the same one."""

import hashlib
import json
from typing import Any


def key_of(*parts: Any) -> str:
    """The key of a call. Of an upload: `upload`, the SHA-256 of the file, its name and its metadata."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
