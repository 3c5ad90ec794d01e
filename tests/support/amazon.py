"""What deploy/aws lays out, at a server of AWS's services on this machine: bucket, secrets, queue and function."""

import io
import json
import os
import signal
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pypdf

from tests.support.brokers import Sqs

FUNCTION = Path(__file__).parents[2] / "deploy/aws/lambda"
PROCESSOR = "split-by-map"
VISIBILITY = 2  # seconds
TIMEOUT = 60  # seconds


def zipped(**replaced: str) -> bytes:
    """The function's code with its library, as scripts/package makes it. `replaced` are other texts of its modules."""
    library = Path(pypdf.__file__).parent
    files = {path.name: path.read_text() for path in FUNCTION.glob("*.py")}
    files |= {f"{name}.py": text for name, text in replaced.items()}
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as package:
        for name, text in files.items():
            package.writestr(name, text)
        for path in library.rglob("*.py"):
            package.write(path, path.relative_to(library.parent))
    return made.getvalue()


@dataclass
class Cloud:
    """An account of its own at that server; all names begin with `name`."""

    sqs: Sqs
    name: str
    clients: dict[str, Any]
    queue_url: str

    @property
    def environment(self) -> dict[str, str]:
        """Of a server whose settings are in the secret."""
        return self.sqs.environment | {"SECRETS_MANAGER_ID": f"{self.name}-settings"}

    def keep(self, name: str, value: str) -> None:
        """Put a secret."""
        self.clients["secretsmanager"].create_secret(Name=f"{self.name}-{name}", SecretString=value)

    def settings(self, folder: Path, **settings: str) -> None:
        """Put the settings of a server into the secret, with what deploy/aws puts there."""
        endpoint = f"http://127.0.0.1:{self.sqs.port}"
        described = json.loads((FUNCTION / "processor.json").read_text())
        queue = f"sqs://{self.name}?endpoint={endpoint}"
        remote = folder / "remote.json"
        remote.write_text(json.dumps({PROCESSOR: described | {"lease_seconds": 10, "queue": queue}}))
        storage = f"s3://{self.name}?endpoint={endpoint}&public_endpoint={endpoint}"  # clients reach it, as AWS's own
        own = {"STORAGE_URL": storage, "REMOTE_PROCESSORS": str(remote)}
        self.keep("settings", json.dumps(own | settings))

    def function(self, api: str) -> None:
        """Make the function, and have the queue invoke it."""
        amazon = self.clients["lambda"]
        amazon.create_function(
            FunctionName=self.name,
            Runtime="python3.13",
            Role="arn:aws:iam::000000000000:role/function",
            Handler="handler.handler",
            Timeout=TIMEOUT,
            Environment={"Variables": {"API_URL": api, "API_KEY_SECRET_ID": f"{self.name}-key"}},
            Code={"ZipFile": zipped()},
        )
        arn = self.clients["sqs"].get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=["QueueArn"])
        amazon.create_event_source_mapping(
            FunctionName=self.name,
            EventSourceArn=arn["Attributes"]["QueueArn"],
            BatchSize=1,
            FunctionResponseTypes=["ReportBatchItemFailures"],
        )

    def replace(self, **replaced: str) -> None:
        """Give the function other code, or its own again."""
        self.clients["lambda"].update_function_code(FunctionName=self.name, ZipFile=zipped(**replaced))

    def hint(self, body: str) -> None:
        self.clients["sqs"].send_message(QueueUrl=self.queue_url, MessageBody=body)

    def messages(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.clients["sqs"].get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=names)["Attributes"]
        return sum(int(found[name]) for name in names)

    def kill(self) -> None:
        """Kill what runs the function."""
        wanted, killed = f"AWS_LAMBDA_FUNCTION_NAME={self.name}".encode(), 0
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if wanted in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)
                    killed += 1
        assert killed


@contextmanager
def cloud(sqs: Sqs) -> Iterator[Cloud]:
    name = f"test-{uuid4().hex}"
    with ExitStack() as opened:
        services = ("sqs", "s3", "lambda", "secretsmanager")
        clients = {each: opened.enter_context(closing(sqs.client_of(each))) for each in services}
        clients["s3"].create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        made = clients["sqs"].create_queue(QueueName=name, Attributes={"VisibilityTimeout": str(VISIBILITY)})
        yield Cloud(sqs, name, clients, made["QueueUrl"])
