"""The text of an API key: `dla_`, 32 characters of base62 at random, and their CRC-32 in six more.

Scanners of code recognise a key by its prefix and its checksum, and what is mistyped or made up costs no look into the
database.
"""

import hashlib
import re
import secrets
import string
from zlib import crc32

PREFIX = "dla_"
SHOWN = 12  # characters at the beginning, which may be shown: 24 random ones are left
_LAST = 4  # and at the end, of the checksum
_RANDOM = 32
_CHECKSUM = 6
_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_KEY = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{_RANDOM}}})([0-9A-Za-z]{{{_CHECKSUM}}})")


def new_key() -> str:
    """A key at random: of 190 bits."""
    random = "".join(secrets.choice(_DIGITS) for _ in range(_RANDOM))
    return PREFIX + random + _checksum(random)


def is_key(text: str) -> bool:
    """Whether the text has the form of a key and the right checksum."""
    parts = _KEY.fullmatch(text)
    return parts is not None and parts[2] == _checksum(parts[1])


def key_hash(key: str) -> bytes:
    """SHA-256 of a key, which has enough entropy to need no salt."""
    return hashlib.sha256(key.encode()).digest()


def shown(key: str) -> tuple[str, str]:
    """The beginning and the end of a key, by which its owner recognises it."""
    return key[:SHOWN], key[-_LAST:]


def _checksum(random: str) -> str:
    left, digits = crc32(random.encode()), ""
    for _ in range(_CHECKSUM):
        left, digit = divmod(left, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
