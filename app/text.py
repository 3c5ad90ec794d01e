"""Rules for text that comes from outside.

NUL passes SQLite and fails PostgreSQL; other control characters forge log lines.
"""

import unicodedata


def no_control_characters(value: str) -> str:
    """Pydantic validator. Raises ValueError on control characters (tab and newlines included)."""
    if any(unicodedata.category(character) == "Cc" for character in value):
        raise ValueError("control characters are not allowed")
    return value


def printable(value: str) -> str:
    """Pydantic validator for longer text: tabs and newlines are fine. Raises ValueError on other control characters."""
    no_control_characters(value.translate({9: None, 10: None, 13: None}))
    return value
