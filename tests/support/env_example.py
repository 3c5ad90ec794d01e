"""Prints .env.example: every setting with its default and what it does. `make .env.example` writes it."""

import sys
import textwrap
from inspect import get_annotations

from app.settings import Settings

HEAD = """\
# Settings of the Document Lifecycle API. Copy this file to `.env` and remove the `#` before what you change.
# Variables of the environment, and files in SECRETS_DIR, come before it. More about them: docs/operations.md
"""


def text() -> str:
    """The file."""
    paragraphs = [HEAD]
    names = (name for group in Settings.__mro__ for name in get_annotations(group) if name in Settings.model_fields)
    for name in names:
        field = Settings.model_fields[name]
        default = "" if field.default is None else field.default
        about = "\n".join(
            textwrap.wrap(
                (field.description or "").replace(" (below)", ""), 118, initial_indent="# ", subsequent_indent="# "
            )
        )
        paragraphs.append(f"{about}\n#{name.upper()}={default}\n")
    return "\n".join(paragraphs)


if __name__ == "__main__":
    sys.stdout.write(text())
