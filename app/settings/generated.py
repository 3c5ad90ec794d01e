"""Secrets that a development server makes for itself."""

import os
from collections.abc import Callable
from pathlib import Path


def generated(path: Path, make: Callable[[], str]) -> str:
    """The secret in the file: made once, readable by its owner only, shared by all processes."""
    if path.exists():  # a server can then start on a full disk
        return path.read_text()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        draft.touch(mode=0o600)
        with draft.open("w") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # atomic; fails if another process was first
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)
    return path.read_text()
