"""An S3 server for tests: SeaweedFS, which checks signatures and what was signed."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import get_session

from app.storage.s3.storage import MARK
from tests.support import reaper
from tests.support.relay import Relay
from tests.support.server import free_port

WEED = shutil.which("weed", path=str(Path(sys.executable).parent))
BUCKET = "documents-test"
KEY = {"AWS_ACCESS_KEY_ID": "writer", "AWS_SECRET_ACCESS_KEY": "a secret"}
READER = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "another secret"}
ATTEMPTS = 3
STARTUP = 30.0


@dataclass
class Prefix:
    """A place of a test's own in the bucket."""

    seaweed: "Seaweed"
    name: str = field(default_factory=lambda: uuid4().hex)

    def url(self, port: int | None = None) -> str:
        return f"s3://{BUCKET}/{self.name}?endpoint=http://127.0.0.1:{port or self.seaweed.port}"

    def objects(self) -> dict[str, int]:
        """What is there besides the mark: sizes by key."""
        found = self.seaweed.client.list_objects_v2(Bucket=BUCKET, Prefix=f"{self.name}/").get("Contents", [])
        sizes = {each["Key"].removeprefix(f"{self.name}/"): each["Size"] for each in found}
        return {key: size for key, size in sizes.items() if key != MARK}

    def uploads(self) -> list[str]:
        """The keys of multipart uploads that were neither completed nor aborted."""
        found = self.seaweed.client.list_multipart_uploads(Bucket=BUCKET, Prefix=f"{self.name}/").get("Uploads", [])
        return [each["Key"].removeprefix(f"{self.name}/") for each in found]

    def put(self, key: str, body: bytes) -> None:
        self.seaweed.client.put_object(Bucket=BUCKET, Key=f"{self.name}/{key}", Body=body)

    def delete(self, key: str) -> None:
        self.seaweed.client.delete_object(Bucket=BUCKET, Key=f"{self.name}/{key}")

    def begin(self, key: str) -> None:
        """A multipart upload that nobody is going to complete."""
        self.seaweed.client.create_multipart_upload(Bucket=BUCKET, Key=f"{self.name}/{key}")


@dataclass
class Seaweed:
    port: int
    client: Any

    @contextmanager
    def relay(self) -> Iterator[Relay]:
        relay = Relay(self.port)
        try:
            yield relay
        finally:
            relay.cut()


class Stopped(Exception):
    """It ended while it started."""


@contextmanager
def running(folder: Path) -> Iterator[Seaweed]:
    """A SeaweedFS that has a bucket, somebody who may write to it, and somebody who may only read."""
    with ExitStack() as stack:
        for attempt in range(ATTEMPTS):
            with suppress(Stopped):  # it takes nine ports, and somebody may be faster to take one
                seaweed = stack.enter_context(_running(folder / str(attempt)))
                break
        else:
            raise Stopped
        yield seaweed


@contextmanager
def _running(folder: Path) -> Iterator[Seaweed]:
    assert WEED is not None
    folder.mkdir(parents=True)
    identities = [_identity(KEY, "Admin", "Read", "Write", "List"), _identity(READER, "Read", "List")]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    s3 = free_port()
    ports = {name: free_port() for name in ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc")}
    options = {
        **{f"{name.partition('.')[0]}.port{'.grpc' if '.' in name else ''}": port for name, port in ports.items()},
        "s3.port": s3,
        "s3.port.grpc": free_port(),
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": folder / "s3.json",
        "s3.autoCreateBucket": "false",
        "s3.localSocket": folder / "s3.sock",
        "filer.localSocket": folder / "filer.sock",
        "master.telemetry": "false",
        "master.volumeSizeLimitMB": 64,
        "volume.max": 0,
        "dir": folder,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
    }
    command = [WEED, "server", "-filer", "-s3", *(f"-{name}={value}" for name, value in options.items())]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        reaper.watch(process.pid)
        client = get_session().create_client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{s3}",
            region_name="us-east-1",
            aws_access_key_id=KEY["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEY["AWS_SECRET_ACCESS_KEY"],
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )
        try:
            _wait(client, process)
            yield Seaweed(s3, client)
        finally:
            client.close()
            process.kill()


def _identity(key: dict[str, str], *actions: str) -> dict[str, Any]:
    credentials = {"accessKey": key["AWS_ACCESS_KEY_ID"], "secretKey": key["AWS_SECRET_ACCESS_KEY"]}
    return {"name": credentials["accessKey"], "credentials": [credentials], "actions": list(actions)}


def _wait(client: Any, process: "subprocess.Popen[bytes]") -> None:
    """It answers before it can store."""
    deadline = time.monotonic() + STARTUP
    while True:
        try:
            if BUCKET not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
        except (BotoCoreError, ClientError):
            if process.poll() is not None:
                raise Stopped from None
            assert time.monotonic() < deadline, "SeaweedFS did not start"
            time.sleep(0.1)
        else:
            return
