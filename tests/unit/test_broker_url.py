"""What BROKER_URL may say, and what it may not."""

import pytest

from app.settings.broker import QUEUE, RabbitQueue, RedisStream, SqsQueue, parse

MINI = "http://ministack:4566"

VALID = {
    "sqs://document-jobs": SqsQueue("document-jobs"),
    "sqs://jobs?region=eu-central-1": SqsQueue("jobs", region="eu-central-1"),
    f"sqs://jobs?endpoint={MINI}/": SqsQueue("jobs", endpoint=MINI),
    "redis://cache": RedisStream("redis://cache", QUEUE),
    "redis://cache:6379/1?queue=jobs_2": RedisStream("redis://cache:6379/1", "jobs_2"),
    "rediss://user:p%40ss@cache:6379": RedisStream("rediss://user:p%40ss@cache:6379", QUEUE),
    "amqp://mq": RabbitQueue("amqp://mq", QUEUE),
    "amqps://user:secret@mq:5671/vhost?queue=jobs": RabbitQueue("amqps://user:secret@mq:5671/vhost", "jobs"),
    "amqp://mq/%2Fvhost": RabbitQueue("amqp://mq/%2Fvhost", QUEUE),
}

INVALID = [
    *("redis", "redis:/a", "http://a", "kafka://a", "memory://", "redis://a\nb", "redis://ü"),
    *("sqs://", "sqs:///jobs", "sqs://a.b", "sqs://jobs.fifo", f"sqs://{'a' * 81}", "sqs://jobs/1", "sqs://jobs#a"),
    *("sqs://key:secret@jobs", "sqs://jobs?secret=a", "sqs://jobs?region=", "sqs://jobs?region=a&region=b"),
    *("sqs://jobs?endpoint=ministack", "sqs://jobs?endpoint=http://u:secret@a", "sqs://[jobs"),
    *("redis://", "redis://:6379", "redis://user:secret@", "redis://a:port", "redis://a:0", "redis://a/jobs"),
    *("redis://a/1/2", "redis://a#1", "redis://a?db=1", "redis://a?queue=", "redis://a?queue=a.b", "redis://a?queue=ü"),
    *("amqp://", "amqp://a:port", "amqp://a/b/c", "amqp://a?heartbeat=1", "amqp://user:secret@a:99999", "amqp://[a"),
]


@pytest.mark.parametrize("url", VALID)
def test_parsed(url: str) -> None:
    assert parse(url) == VALID[url]


@pytest.mark.parametrize("url", INVALID)
def test_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the words are for people
        parse(url)
    assert "secret@" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
