"""What the URLs in settings have in common. Whatever is wrong is a ValueError that does not repeat the value."""

from pathlib import Path
from urllib.parse import unquote


def file_path(url: str, prefix: str) -> Path:
    """The path of a URL, if that is a file or folder of its own."""
    path = Path(unquote(url.removeprefix(prefix)))
    if not url.startswith(prefix) or "?" in url or path.name in {"", ":memory:"}:
        raise ValueError(f"must be {prefix} and a path")
    return path
