"""The catalogue of events: what can happen, and what is recorded of it.

Each class is an event, and its fields are the event's `data`. Events are read as they were written, whichever version
of this catalogue wrote them: a field may be added, but none may change its meaning.
"""

from app.events.catalogue import accounts, documents, jobs, operators, service, webhooks
from app.events.catalogue.base import CATALOGUE

__all__ = ["CATALOGUE", "accounts", "documents", "jobs", "operators", "service", "webhooks"]
