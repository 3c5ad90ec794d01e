"""Wake-ups between processes, through SQS, Redis or RabbitMQ."""

from app.jobs.dispatch.broker.connection import BrokerDispatcher

__all__ = ["BrokerDispatcher"]
