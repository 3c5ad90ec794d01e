"""A program that is told by webhooks: a real HTTP server in a thread, which verifies what it gets with the library that
the standard offers."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from tests.support.stranger import serving
from tests.support.user import User

NOBODY = "http://127.0.0.1:1024"


@dataclass
class Received:
    """One request: its headers, what its body says, and whether a secret that is known has signed it."""

    headers: dict[str, str]
    body: dict[str, Any]
    verified: bool

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


@dataclass
class Receiver:
    """Answers with the `answers` in their order, the last of them for ever: a status, and headers if there are two.

    `delay`: seconds before each answer.
    """

    secrets: list[str] = field(default_factory=list)
    answers: list[int | tuple[int, dict[str, str]]] = field(default_factory=lambda: [200])
    delay: float = 0.0
    received: list[Received] = field(default_factory=list)
    url: str = ""
    at_once: int = 0
    most_at_once: int = 0

    def told_of(self, user: User, **values: Any) -> str:
        """The path of a new webhook of this user's."""
        answer = user.http.post("/webhooks", json={"url": self.url} | values)
        assert answer.status_code == 201, answer.text
        self.secrets.append(answer.json()["secret"])
        return f"/webhooks/{answer.json()['id']}"

    @property
    def types(self) -> list[str]:
        return [each.body["type"] for each in self.received]

    @property
    def ids(self) -> Counter[str]:
        return Counter(each.id for each in self.received)

    async def take(self, request: web.Request) -> web.Response:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        content, headers = await request.read(), {name.lower(): value for name, value in request.headers.items()}
        verified = any(_verifies(secret, content, headers) for secret in self.secrets)
        self.received.append(Received(headers, await request.json(), verified))
        await asyncio.sleep(self.delay)
        self.at_once -= 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        status, more = answer if isinstance(answer, tuple) else (answer, {})
        return web.Response(status=status, headers=more, text=f"answered {status}")


def paused_webhook(user: User) -> tuple[str, str]:
    """The ids of a webhook that is told of nothing, and of a delivery to it. The user has no other webhook then."""
    for each in user.http.get("/webhooks").json()["items"]:
        user.http.delete(f"/webhooks/{each['id']}")
    webhook = user.http.post("/webhooks", json={"url": NOBODY}).json()["id"]
    user.http.patch(f"/webhooks/{webhook}", json={"state": "PAUSED"})
    return webhook, user.http.post(f"/webhooks/{webhook}/test").json()["id"]


def _verifies(secret: str, content: bytes, headers: dict[str, str]) -> bool:
    try:
        Webhook(secret).verify(content, headers, json_parse=False)
    except WebhookVerificationError:
        return False
    return True


@contextmanager
def receiving(**options: Any) -> Iterator[Receiver]:
    receiver = Receiver(**options)
    with serving(receiver.take) as url:
        receiver.url = f"{url}/hooks"
        yield receiver
