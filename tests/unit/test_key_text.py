"""What is an API key and what is not, before any database is asked."""

import string

from hypothesis import given, strategies as st

from app.auth.keys.text import PREFIX, is_key, key_hash, new_key, shown

BASE62 = string.digits + string.ascii_letters
# Keys in use must stay valid: this one's checksum was computed bit by bit (1546885699, ISO 3309).
KNOWN = "dla_0123456789ABCDEFGHIJKLMNOPQRSTUV1ggZdL"


def test_the_form_stays_as_it_is() -> None:
    assert is_key(KNOWN)


def test_a_new_key_is_one_and_no_two_are_the_same() -> None:
    keys = {new_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(is_key(key) and len(key) == 42 and key.isascii() for key in keys)
    assert len({key_hash(key) for key in keys}) == 1000


def test_its_ends_are_shown_and_leave_what_cannot_be_guessed() -> None:
    key = new_key()
    begins, ends = shown(key)
    assert (key.startswith(begins), key.endswith(ends)) == (True, True)
    assert len(key) - len(begins) - len(ends) == 26


def test_a_mistyped_character_is_noticed() -> None:
    key = new_key()
    for at, character in enumerate(key):
        assert not [other for other in BASE62 if other != character and is_key(key[:at] + other + key[at + 1 :])]


KEYS = st.builds(new_key)


@given(KEYS, st.integers(0, 41), st.text(max_size=3))
def test_what_is_not_whole_is_none(key: str, at: int, other: str) -> None:
    changed = key[:at] + other + key[at + 1 :]
    assert is_key(changed) == (changed == key)
    assert not is_key(key + other) or not other
    assert not is_key(other + key) or not other


@given(st.text() | st.text(BASE62, min_size=38, max_size=38).map(PREFIX.__add__) | st.binary().map(bytes.hex))
def test_what_is_made_up_is_none(text: str) -> None:
    """By chance, one in 4 billion is."""
    assert not is_key(text)
