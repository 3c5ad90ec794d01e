"""Pages for operators: what belongs to all accounts, and the service itself."""

from app.console.jobs import bulk
from app.console.operators import accounts, audit, documents, health, jobs, workers

ROUTERS = (
    health.router,
    accounts.router,
    documents.router,
    bulk.operators,  # before the jobs, whose ids the names of its paths are not
    jobs.router,
    workers.router,
    audit.router,
)
