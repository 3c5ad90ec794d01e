"""Names of files as clients send them."""

import unicodedata
from pathlib import PurePosixPath

MAX_FILENAME = 255  # characters


def display_name(sent: str) -> str | None:
    """Return a client's filename in a form that is safe to display, or None if nothing is left of it.

    That is its last path component, without control and formatting characters (which could reorder what is displayed),
    in at most 255 characters.
    """
    name = PurePosixPath(sent.replace("\\", "/")).name
    name = "".join(each for each in unicodedata.normalize("NFC", name) if unicodedata.category(each)[0] != "C").strip()
    if len(name) > MAX_FILENAME:
        suffix = PurePosixPath(name).suffix[:20]
        name = name[: MAX_FILENAME - len(suffix)] + suffix
    return name if name.strip(".") else None
