"""Hints in a standard queue of SQS."""

import sys
from collections.abc import AsyncGenerator
from functools import cache

import orjson
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import ClientError, NoCredentialsError
from taskiq import AckableMessage
from taskiq_aio_sqs import SQSBroker, SQSQueue
from taskiq_aio_sqs.exceptions import QueueNotFoundError, SQSBrokerError

from app.dispatch.broker.hints import Seen, decode
from app.errors import ConfigurationError
from app.settings.broker import SqsQueue

WAITING = "ApproximateNumberOfMessages"


@cache
def _session() -> AioSession:
    """One for all attempts to connect: the event loop stands still while its first client reads the API's model."""
    return get_session()


class SqsBroker(SQSBroker):
    def __init__(self, queue: SqsQueue) -> None:
        region = queue.region or _session().get_config_variable("region")
        if region is None:
            raise ConfigurationError("BROKER_URL needs a region: ?region=…, or AWS_DEFAULT_REGION")
        super().__init__(
            queue.name,
            endpoint_url=queue.endpoint,
            region_name=region,
            enable_heartbeat=True,
            heartbeat_max_extensions=sys.maxsize,  # JOB_TIMEOUT ends a job; what is unreadable has no heartbeat
        )
        self._session = _session()

    async def _get_s3_client(self) -> None:
        """None: no hint is so long that it would have to be put into a bucket."""

    async def startup(self) -> None:
        try:
            await super().startup()
        except QueueNotFoundError:
            raise ConfigurationError("BROKER_URL names a queue that does not exist") from None
        except NoCredentialsError:
            raise ConfigurationError("BROKER_URL: no AWS credentials were found") from None

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """As the library's, without its buffer of 100 messages, which other workers could have taken."""
        queue, url = self._default_queue, await self._get_queue_url()
        while True:
            for message in await self._receive_messages(queue, url):
                if ackable := await self._to_ackable_message(message, queue, url):
                    yield ackable

    async def _to_ackable_message(self, message: object, queue: SQSQueue, queue_url: str) -> AckableMessage | None:
        """None for what is unreadable: it comes again until the queue's redrive policy moves it to the dead letters.

        Not the library's, which believes a message that says that it is in a bucket.
        """
        if not isinstance(message, dict) or decode(body := message.get("Body", "").encode()) is None:
            return None
        receipt = message["ReceiptHandle"]
        heartbeat = self._start_heartbeat(queue, queue_url, receipt)
        return AckableMessage(data=body, ack=self.build_ack_fnx(queue_url, receipt, heartbeat_task=heartbeat))

    async def look(self) -> Seen:
        attributes = await self._attributes(self._default_queue.name, WAITING, "RedrivePolicy")
        policy = orjson.loads(attributes.get("RedrivePolicy", "{}"))
        return Seen(int(attributes[WAITING]), await self._alarm(policy.get("deadLetterTargetArn", "")))

    async def _alarm(self, dead_letters: str) -> str | None:
        name = dead_letters.rpartition(":")[2]
        if not name:
            return "the queue has no redrive policy: unreadable messages come again and again"
        try:
            count = int((await self._attributes(name, WAITING))[WAITING])
        except (SQSBrokerError, ClientError) as error:
            return f"the dead-letter queue {name} cannot be read: {type(error).__name__}"
        return f"messages in the dead-letter queue {name}: {count}" if count else None

    async def _attributes(self, queue: str, *names: str) -> dict[str, str]:
        url = await self._get_queue_url(queue)
        answer = await self._sqs_client.get_queue_attributes(QueueUrl=url, AttributeNames=names)
        attributes: dict[str, str] = answer["Attributes"]
        return attributes
