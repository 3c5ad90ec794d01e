"""Wake-ups in a standard queue of SQS."""

from contextlib import AsyncExitStack
from functools import cache
from typing import Any

from aiobotocore.session import AioSession, get_session
from botocore.exceptions import ClientError, NoCredentialsError

from app.errors import ConfigurationError
from app.jobs.dispatch.broker.base import WAIT
from app.settings.broker import SqsQueue

_NO_QUEUE = "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"


@cache
def _session() -> AioSession:
    """One for all attempts to connect: its first client blocks the event loop for 0.2 s to read the API's model."""
    return get_session()


class SqsBroker:
    """Adapter of the Broker port. Each message is deleted when it is received."""

    def __init__(self, queue: SqsQueue) -> None:
        self._queue = queue
        self._opened = AsyncExitStack()
        self._client: Any
        self._url: str

    async def connect(self) -> None:
        region = self._queue.region or _session().get_config_variable("region")
        if region is None:
            raise ConfigurationError("it needs a region: ?region=…, or AWS_DEFAULT_REGION")
        client = _session().create_client("sqs", endpoint_url=self._queue.endpoint, region_name=region)
        self._client = await self._opened.enter_async_context(client)
        try:
            self._url = (await self._client.get_queue_url(QueueName=self._queue.queue))["QueueUrl"]
        except NoCredentialsError:
            raise ConfigurationError("no AWS credentials were found") from None
        except ClientError as error:
            if error.response["Error"]["Code"] not in _NO_QUEUE:
                raise
            raise ConfigurationError("the queue does not exist") from None

    async def send(self, text: str) -> None:
        await self._client.send_message(QueueUrl=self._url, MessageBody=text)

    async def receive(self) -> bytes | None:
        answer = await self._client.receive_message(QueueUrl=self._url, MaxNumberOfMessages=1, WaitTimeSeconds=WAIT)
        for message in answer.get("Messages", ()):
            await self._client.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
            body: str = message["Body"]
            return body.encode()
        return None

    async def pause(self) -> None:
        pass

    async def check(self) -> None:
        await self._client.get_queue_url(QueueName=self._queue.queue)

    async def close(self) -> None:
        await self._opened.aclose()
