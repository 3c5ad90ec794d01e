"""What the current task works for: the request, and who acts.

The middleware sets the request id, and authentication the actor. Events, problems and log lines read them. A task
starts with a copy of its creator's context, so what it sets is not seen by other tasks.
"""

from contextvars import ContextVar

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Names the request, or the one that began the job. None outside of both."""

actor: ContextVar[str | None] = ContextVar("actor", default=None)
"""Who acts: `user:<id>`, `worker:<name>` or `operator`. None while that is not known."""
