"""From what BROKER_URL says to its broker. Each SDK is imported only when it is used."""

from app.dispatch.broker.hints import Broker
from app.settings.broker import Place, RabbitQueue, RedisStream, SqsQueue


def connect(place: Place, places: int) -> Broker:
    """A broker that is not started yet, for a process that takes `places` hints at once. Raises ConfigurationError."""
    # ruff: noqa: PLC0415
    match place:
        case SqsQueue():
            from app.dispatch.broker.sqs import SqsBroker

            return SqsBroker(place)
        case RedisStream():
            from app.dispatch.broker.redis import RedisBroker

            return RedisBroker(place)
        case RabbitQueue():
            from app.dispatch.broker.rabbitmq import RabbitBroker

            return RabbitBroker(place, places)
