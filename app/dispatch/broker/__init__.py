"""Hints through a broker to workers: SQS, Redis, RabbitMQ, each by taskiq. Imported only when there is one."""

from app.dispatch.broker.consumer import Consumer
from app.dispatch.broker.dispatcher import BrokerDispatcher

__all__ = ["BrokerDispatcher", "Consumer"]
