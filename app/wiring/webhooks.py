"""The parts of webhooks: what listens to events, what makes deliveries, and what owners see of them."""

from typing import NamedTuple

from app import events
from app.database import Database
from app.encryption import Encryption
from app.jobs.runner import Runner
from app.jobs.turns import Turns
from app.jobs.watch import JobWatch
from app.outbound import Outbound
from app.quotas.reserve import Reserve
from app.settings import Settings
from app.webhooks.deliveries import Deliveries
from app.webhooks.kind import DeliverKind
from app.webhooks.outbox import HEARD, Outbox, has_endpoints
from app.webhooks.service import WebhookService


class Webhooks(NamedTuple):
    """Everything that one process runs for them. The runner has a capacity of its own, beside that for other jobs."""

    kind: DeliverKind
    runner: Runner
    service: WebhookService


def webhooks(
    db: Database, outbound: Outbound, encryption: Encryption, watch: JobWatch, reserve: Reserve, settings: Settings
) -> Webhooks:
    """Connect them, and subscribe to the events of the database."""
    kind = DeliverKind(db, outbound, encryption, settings)
    runner = Runner(db, [kind], watch, Turns(), capacity=settings.webhook_concurrency, lease=settings.lease_seconds)
    deliveries = Deliveries(runner.turns, runner.wake, max_tries=len(settings.webhook_delays))
    events.subscribe(db, Outbox(deliveries, settings.public_url.rstrip("/")), to=HEARD, only_if=has_endpoints)
    service = WebhookService(db, outbound, encryption, deliveries, kind, reserve=reserve, settings=settings)
    return Webhooks(kind, runner, service)
