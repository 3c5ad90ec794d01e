"""Which passwords may be chosen. Those that exist already are not judged."""

import re
import unicodedata
from functools import cache
from pathlib import Path

from app.errors import WeakPassword

_COMMON = Path(__file__).with_name("common_passwords.txt")
_SERVICE = ("Document Lifecycle API", "document-api")
_DECORATION = re.compile(r"[\W\d_]+")


def normalized(password: str) -> str:
    """The password in NFC: keyboards differ in how they compose an é (NIST SP 800-63B §3.1.1.2)."""
    return unicodedata.normalize("NFC", password)


def refuse_weak(password: str, email: str, pointer: str) -> None:
    """Raise WeakPassword for a password that others would try first (OWASP ASVS 5.0, 6.2.4 and 6.2.11).

    `pointer` says where in the request the password is.
    """
    reason = _weakness(password, email)
    if reason:
        raise WeakPassword(reason, errors=[{"detail": reason, "pointer": pointer}])


def _weakness(password: str, email: str) -> str | None:
    if password.casefold() in _common():
        return "This is one of the most common passwords."
    for name in (email, email.partition("@")[0], *_SERVICE):
        if password.casefold() == name.casefold() or _letters(password) == _letters(name) != "":
            return "This is little more than the email address or the name of the service."
    return None


@cache
def _common() -> frozenset[str]:
    lines = _COMMON.read_text("utf-8").splitlines()
    return frozenset(line.casefold() for line in lines if not line.startswith("#"))


def _letters(text: str) -> str:
    """The letters of a text: digits and signs, put before, between or behind them, make no other word of it."""
    return _DECORATION.sub("", text).casefold()
