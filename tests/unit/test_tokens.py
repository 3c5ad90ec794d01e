import hashlib
import hmac
import json
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings, strategies as st
from jose import jwt

from app.auth.tokens import LEEWAY_SECONDS, MAX_TOKEN_BYTES, AccessTokens
from app.errors import InvalidToken

SECRET = "a secret of at least thirty-two bytes"
USER, SESSION = (UUID(f"01939f3e-5c00-7000-8000-00000000000{number}") for number in (1, 2))
HEADER = {"alg": "HS256", "typ": "JWT", "kid": hashlib.sha256(SECRET.encode()).hexdigest()[:8]}
TOKENS = AccessTokens([SECRET], issuer="document-api", audience="documents", ttl=900)
VALID = TOKENS.issue(USER, SESSION)
NOW = int(time.time())
WITHOUT = object()


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(header: object, payload: object, digest: str = "sha256", secret: str = SECRET) -> str:
    """A token over any header and payload, JSON text or a value, under a signature that fits."""
    texts = (each if isinstance(each, bytes) else json.dumps(each).encode() for each in (header, payload))
    content = ".".join(map(base64url, texts))
    return f"{content}.{base64url(hmac.digest(secret.encode(), content.encode(), digest))}"


def claims(**changed: Any) -> dict[str, Any]:
    """What a good token claims, but for what is changed or WITHOUT."""
    good = {
        "iss": "document-api",
        "aud": "documents",
        "sub": str(USER),
        "sid": str(SESSION),
        "jti": str(uuid4()),
        "iat": NOW,
        "exp": NOW + 900,
        "typ": "access",
    }
    return {name: value for name, value in (good | changed).items() if value is not WITHOUT}


def claiming(**changed: Any) -> str:
    return signed(HEADER, claims(**changed))


def under(**header: Any) -> str:
    return signed(HEADER | header, claims())


def literal(name: str, value: str) -> str:
    """A token with a claim in a spelling of JSON that Python would not write."""
    return signed(HEADER, json.dumps(claims(**{name: "?"})).replace('"?"', value).encode())


def one_bit_more(token: str) -> str:
    """The token with another last character that decodes to the same signature."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) | 1]


def one_bit_off(token: str, part: int) -> str:
    parts = token.split(".")
    parts[part] = ("B" if parts[part][0] == "A" else "A") + parts[part][1:]
    return ".".join(parts)


HEAD, BODY, SIGNATURE = VALID.split(".")
SIZES = [claiming(padding="x" * length) for length in range(2600, 2900)]

ACCEPTED = {
    "made here": claiming(),
    "audience among others": claiming(aud=["elsewhere", "documents"]),
    "as long as allowed": max((each for each in SIZES if len(each) <= MAX_TOKEN_BYTES), key=len),
    "of the release before": signed({"alg": "HS256", "typ": "JWT"}, claims(sid=WITHOUT)),
    "further claims": claiming(scope="all", nbf=NOW - 5),
}

FORGED = {
    "nothing": "",
    "dots": "..",
    "two parts": f"{HEAD}.{BODY}",
    "four parts": f"{VALID}.{SIGNATURE}",
    "five parts, as encrypted tokens have": f"{VALID}.{BODY}.{SIGNATURE}",
    "signature missing": f"{HEAD}.{BODY}.",
    "signature of another token": f"{HEAD}.{BODY}.{TOKENS.issue(uuid4(), SESSION).split('.')[2]}",
    "header altered": one_bit_off(VALID, 0),
    "payload altered": one_bit_off(VALID, 1),
    "signature altered": one_bit_off(VALID, 2),
    "secret wrong": signed(HEADER, claims(), secret=SECRET + "!"),
    "secret empty": signed(HEADER, claims(), secret=""),
    "padded": VALID + "=",
    "trailing bits": one_bit_more(VALID),
    "alphabet of plain base64": VALID[:-1] + "/",
    "newline behind": VALID + "\n",
    "space before": " " + VALID,
    "digits of another script": VALID[:-1] + "\u0661",
    "5 KiB": claiming(padding="x" * 5 * 1024),
    "just too long": min((each for each in SIZES if len(each) > MAX_TOKEN_BYTES), key=len),
    "alg none": signed({"alg": "none"}, claims()),
    "alg none, unsigned": signed({"alg": "none"}, claims()).rpartition(".")[0] + ".",
    "alg None, unsigned": signed({"alg": "None"}, claims()).rpartition(".")[0] + ".",
    "alg HS512": signed(HEADER | {"alg": "HS512"}, claims(), "sha512"),
    "alg HS512, HS256 signature": under(alg="HS512"),
    "alg RS256": under(alg="RS256"),
    "alg hs256": under(alg="hs256"),
    "alg a list": under(alg=["HS256"]),
    "alg missing": signed({"typ": "JWT"}, claims()),
    "kid of another secret": under(kid=hashlib.sha256(b"another").hexdigest()[:8]),
    "kid and more": under(kid=HEADER["kid"] + "0"),
    "kid empty": under(kid=""),
    "kid null": under(kid=None),
    "kid a list": under(kid=[HEADER["kid"]]),
    "crit": under(crit=["b64"]),
    "crit empty": under(crit=[]),
    "b64 false": under(b64=False),
    "header a list": signed(["HS256"], claims()),
    "header no JSON": signed(b"{", claims()),
    "header nested": signed(b"[" * 1500, claims()),
    "header nested deeply": signed(b"[" * 10_000, claims()),
    "header nested and closed": signed(b'{"alg":"HS256","x":' + b"[" * 1200 + b"]" * 1200 + b"}", claims(aud="")),
    "payload nested": signed(HEADER, b"[" * 2500),
    "payload no JSON": signed(HEADER, b"\xff"),
    "payload a list": signed(HEADER, [claims()]),
    "payload null": signed(HEADER, None),
    **{f"{claim} missing": claiming(**{claim: WITHOUT}) for claim in claims() if claim != "sid"},
    **{f"{claim} null": claiming(**{claim: None}) for claim in claims()},
    **{f"{claim} an object": claiming(**{claim: {}}) for claim in claims()},
    "iss wrong": claiming(iss="elsewhere"),
    "iss a part": claiming(iss="document"),
    "iss a list": claiming(iss=["document-api"]),
    "aud wrong": claiming(aud="elsewhere"),
    "aud a part": claiming(aud="doc"),
    "aud of others": claiming(aud=["elsewhere", "doc"]),
    "aud empty": claiming(aud=[]),
    "typ refresh": claiming(typ="refresh"),
    "typ in capitals": claiming(typ="ACCESS"),
    "iat in the future": claiming(iat=NOW + 3600),
    "iat true": claiming(iat=True),
    "iat text": claiming(iat=str(NOW)),
    "iat infinite": literal("iat", "1e999"),
    "exp past": claiming(exp=NOW - 1),
    "exp true": claiming(exp=True),
    "exp text": claiming(exp=str(NOW + 900)),
    "exp a fraction": claiming(exp=NOW + 900.5),
    "exp in milliseconds": claiming(exp=(NOW + 900) * 1000),
    "exp 1e300": claiming(exp=1e300),
    "exp NaN": literal("exp", "NaN"),
    "exp Infinity": literal("exp", "Infinity"),
    "exp 1e999": literal("exp", "1e999"),
    "exp 3,000 digits": literal("exp", "9" * 3000),
    "nbf in the future": claiming(nbf=NOW + 3600),
    "sub no UUID": claiming(sub="admin"),
    "sub a number": claiming(sub=1),
    "sid no UUID": claiming(sid="all"),
    "sid a number": claiming(sid=1),
    "sid empty": claiming(sid=""),
    "jti a number": claiming(jti=1),
}


def test_issued_token_names_its_user_and_only_what_the_contract_lists():
    found = jwt.get_unverified_claims(VALID)
    assert TOKENS.verify(VALID)[:2] == (USER, SESSION)
    assert found.keys() == claims().keys()
    assert found["exp"] - found["iat"] == 900
    assert jwt.get_unverified_header(VALID) == HEADER


def test_no_two_tokens_are_alike():
    assert TOKENS.issue(USER, SESSION) != TOKENS.issue(USER, SESSION)


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepts(name):
    session = None if name == "of the release before" else SESSION
    assert TOKENS.verify(ACCEPTED[name])[:2] == (USER, session)


@pytest.mark.parametrize("claim", ["iat", "nbf"])
def test_the_clock_that_issued_may_be_a_little_ahead(claim):
    assert TOKENS.verify(claiming(**{claim: int(time.time()) + LEEWAY_SECONDS - 5})).user_id == USER


@pytest.mark.parametrize("hour", [-3600, 3600])
def test_a_token_that_was_accepted_is_refused_when_its_time_is_over_or_not_yet_come(monkeypatch, hour):
    token = TOKENS.issue(USER, SESSION)
    assert TOKENS.verify(token).user_id == USER
    now = time.time() + hour
    monkeypatch.setattr(time, "time", lambda: now)
    with pytest.raises(InvalidToken):
        TOKENS.verify(token)


def test_a_token_lives_no_longer_than_its_client_was_told(monkeypatch):
    token = TOKENS.issue(USER, SESSION)
    assert TOKENS.verify(token).user_id == USER
    after = time.time() + TOKENS.ttl + 1
    monkeypatch.setattr(time, "time", lambda: after)
    with pytest.raises(InvalidToken):
        TOKENS.verify(token)


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED)
def test_refuses(token):
    with pytest.raises(InvalidToken) as refusal:
        TOKENS.verify(token)
    assert str(refusal.value) == InvalidToken.explanation.replace("`", "")  # whatever was wrong


@pytest.mark.parametrize(
    "secret",
    [
        '"in quotes, as env files may have it"',
        "01234567890123456789012345678901",
        "12345678901234567890123456789012",
        "1.5e10000000000000000000000000000",
        '["a list of texts", "is no list of keys"]',
        '{"keys": ["this", "is", "no", "JWK set"]}',
        "Ünïcödé, zweiunddreißig Bytes lang",
        hashlib.sha256(b"").hexdigest(),
    ],
)
def test_a_secret_is_used_as_it_is_written(secret):
    tokens = AccessTokens([secret], issuer="document-api", audience="documents", ttl=900)
    assert tokens.verify(tokens.issue(USER, SESSION)).user_id == USER
    assert tokens.verify(signed({"alg": "HS256"}, claims(), secret=secret)).user_id == USER


@settings(deadline=None)
@given(st.text() | st.text("AZaz09-_.=\n", max_size=300))
def test_any_text_is_refused_and_nothing_worse(token):
    with pytest.raises(InvalidToken):
        TOKENS.verify(token)


SPLICE = st.tuples(
    st.integers(0, len(VALID)), st.integers(0, 4), st.text("AZaz09-_.=é\0", max_size=4) | st.text(max_size=4)
)


@settings(deadline=None)
@given(st.lists(SPLICE, min_size=1, max_size=4))
def test_any_change_to_a_token_is_refused_and_nothing_worse(splices):
    token = VALID
    for at, dropped, inserted in splices:
        token = token[:at] + inserted + token[at + dropped :]
    if token != VALID:
        with pytest.raises(InvalidToken):
            TOKENS.verify(token)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
)


@settings(deadline=None)
@given(st.sampled_from(sorted(claims())), JSON)
def test_any_value_of_a_signed_claim_is_its_user_or_refused(claim, value):
    try:
        found = TOKENS.verify(claiming(**{claim: value}))
    except InvalidToken:
        return
    assert found[:2] == (USER, SESSION) or claim in {"sub", "sid"}


def test_no_elliptic_curves_are_loaded_with_the_application() -> None:
    """The audit of dependencies leaves out `ecdsa` for this reason."""
    loaded = "import app.main, sys; print(sorted({'ecdsa', 'rsa'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
