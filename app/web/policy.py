"""Content-Security-Policy (CSP level 3): what a page may load and run."""

import re
from base64 import b64encode
from hashlib import sha256

NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'"

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


def of_page(html: str, **sources: str) -> str:
    """The policy of a page that runs its own inline scripts and styles, and loads from `sources`, given by kind."""
    allowed = {kind: [each] for kind, each in sources.items()}
    for kind, text in _INLINE.findall(html):
        allowed.setdefault(kind, []).append(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'")
    return "; ".join([NOTHING, *(f"{kind}-src {' '.join(each)}" for kind, each in allowed.items())])
