"""What a worker proves itself with, and to whom."""

from app.remote.check.proxy import Proxy
from app.remote.check.traffic import Call
from app.remote.check.watch import Broken


def require_own_credentials(proxy: Proxy) -> None:
    """Raises Broken if a call carried the key or a token that it had no business with, or lacked its own."""
    keys = {each.bearer for each in proxy.calls if each.kind == "claim"}
    _require_none_elsewhere(proxy, {*keys, *proxy.tokens.values()})
    for call in proxy.calls:
        if call.kind == "claim" or call.job_id not in proxy.tokens:
            continue
        token, given = proxy.tokens[call.job_id], proxy.given.get(call.path)
        named = f"the {call.kind} call"
        if given:
            named = "the call of an input's URL"
            for name, value in given.headers.items():
                if call.headers.get(name) != value:
                    raise Broken(f"{named} lacks the header {name} that was given with it")
        elif call.bearer != token:
            raise Broken(f"{named} has {_what(call, keys)} in its Authorization, and not the token of the claim")
        own = set(given.headers.values()) if given else {call.headers["Authorization"]}
        for name, value in call.headers.items():
            if value not in own and any(secret in value for secret in {*keys, token} if secret):
                raise Broken(f"{named} sends the {'token' if token in value else 'API key'}, too, in the header {name}")


def _require_none_elsewhere(proxy: Proxy, secrets: set[str]) -> None:
    secrets = secrets.union(*(given.headers.values() for given in proxy.given.values())) - {""}
    sent = {value for call in proxy.strayed for value in call.headers.values()}
    if any(secret in value for secret in secrets for value in sent):
        raise Broken("it follows a redirect to another port, and sends its credentials there, too")


def _what(call: Call, keys: set[str]) -> str:
    if call.bearer in keys:
        return "the API key"
    return "another token" if call.bearer else "nothing"
