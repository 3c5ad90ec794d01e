"""What BROKER_URL may say, and what it may not."""

import pytest

from app.errors import ConfigurationError
from app.settings import load
from app.settings.broker import RabbitQueue, RedisStream, SqsQueue

MINI = "http://ministack:4566"

VALID = {
    "sqs://document-jobs": SqsQueue(queue="document-jobs"),
    "sqs://jobs?region=eu-central-1": SqsQueue(queue="jobs", region="eu-central-1"),
    f"sqs://jobs?endpoint={MINI}/": SqsQueue(queue="jobs", endpoint=MINI),
    "redis://cache": RedisStream(url="redis://cache"),
    "redis://cache:6379/1?queue=jobs_2": RedisStream(url="redis://cache:6379/1", queue="jobs_2"),
    "rediss://user:p%40ss@cache:6379": RedisStream(url="rediss://user:p%40ss@cache:6379"),
    "amqp://mq": RabbitQueue(url="amqp://mq"),
    "amqps://user:secret@mq:5671/vhost?queue=jobs": RabbitQueue(url="amqps://user:secret@mq:5671/vhost", queue="jobs"),
    "amqp://mq/%2Fvhost": RabbitQueue(url="amqp://mq/%2Fvhost"),
}

INVALID = [
    *("redis", "redis:/a", "http://a", "kafka://a", "memory://", "redis://a\nb", "redis://ü"),
    *("sqs://", "sqs:///jobs", "sqs://a.b", "sqs://jobs.fifo", f"sqs://{'a' * 81}", "sqs://jobs/1", "sqs://jobs#a"),
    *("sqs://key:secret@jobs", "sqs://jobs?secret=a", "sqs://jobs?region=", "sqs://jobs?region=a&region=b"),
    *("sqs://jobs?endpoint=ministack", "sqs://jobs?queue=a", "sqs://jobs?endpoint=http://u:secret@a", "sqs://[jobs"),
    *("redis://user:secret", "redis://user:secret?url=redis://a", "redis://a?url=redis://b", "redis://[:::]"),
    *("redis://", "redis://:6379", "redis://user:secret@", "redis://a:port", "redis://a:0", "redis://a/jobs"),
    *("redis://a/1/2", "redis://a#1", "redis://a?db=1", "redis://a?queue=", "redis://a?queue=a.b", "redis://a?queue=ü"),
    *("amqp://", "amqp://a:port", "amqp://a/b/c", "amqp://a?heartbeat=1", "amqp://user:secret@a:99999", "amqp://[a"),
]


@pytest.fixture(autouse=True)
def _postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://host/name")


@pytest.mark.parametrize("url", VALID)
def test_parsed(url: str) -> None:
    assert load(broker_url=url).broker_url == VALID[url]


@pytest.mark.parametrize("url", INVALID)
def test_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^BROKER_URL: .+$") as refusal:
        load(broker_url=url)
    assert "secret" not in str(refusal.value).replace("'secret'", "")  # the name of an option is repeated
