"""`make aws-check`: runs deploy/aws's scripts at a server of AWS's services on this machine, as a user would.

Everything is laid out, taken down but for the files, laid out again around them, and removed with them, but for the
machine that serves: that server knows too little of it. TF_PLUGIN_MIRROR names a folder of providers.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support import brokers

DEPLOY = Path(__file__).parents[2] / "deploy/aws"
VARIABLES = {
    "region": brokers.AWS["AWS_DEFAULT_REGION"],
    "name": "documents",
    "domain": "documents.example.com",
    "service": "false",
    "path_style": "true",
}
QUIETLY = ("-input=false", "-no-color")
VERSIONS = 1001  # more than S3 lists or removes at once, and than an argument has room for


@dataclass
class Layout:
    """A copy of deploy/aws, and the services at which it is laid out."""

    folder: Path
    environment: dict[str, str]
    services: brokers.Sqs

    def run(self, *command: str, typed: str = "", status: int = 0) -> str:
        """Run a command, and return what it wrote. Raises CalledProcessError for another exit code."""
        sys.stdout.write(f"==> {' '.join(command)}\n")
        sys.stdout.flush()
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            input=typed,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        sys.stdout.write(done.stdout)
        if done.returncode != status:
            raise subprocess.CalledProcessError(done.returncode, command)
        return done.stdout

    def unchanged(self) -> None:
        """Nothing is left to do: a plan that would change something ends with 2."""
        self.run("terraform", "plan", "-detailed-exitcode", *QUIETLY)

    def output(self, name: str) -> str:
        return self.run("terraform", "output", "-raw", name)

    def client(self, service: str) -> Any:
        return closing(self.services.client_of(service))

    def settings(self) -> str:
        """The value of the settings' secret."""
        with self.client("secretsmanager") as secrets:
            value: str = secrets.get_secret_value(SecretId="documents/settings")["SecretString"]
        return value

    def buckets(self) -> list[str]:
        with self.client("s3") as storage:
            return [each["Name"] for each in storage.list_buckets()["Buckets"]]


@contextmanager
def copied(folder: Path) -> Iterator[Layout]:
    """As in a fresh checkout."""
    here = folder / "aws"
    shutil.copytree(DEPLOY, here, ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfvars", "build"))
    config = folder / "config"
    mirror = os.environ.get("TF_PLUGIN_MIRROR")
    config.write_text(f'provider_installation {{\n  filesystem_mirror {{ path = "{mirror}" }}\n}}\n' if mirror else "")
    with brokers.running(folder / "services") as services:
        variables = {f"TF_VAR_{name}": value for name, value in VARIABLES.items()}
        automatic = {"TF_CLI_CONFIG_FILE": str(config), "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}
        yield Layout(here, os.environ | services.environment | variables | automatic, services)


def check(layout: Layout) -> None:
    """Raises CalledProcessError or AssertionError for a step that failed."""
    layout.run("terraform", "init", *QUIETLY)
    assert "run scripts/package" in layout.run("terraform", "plan", *QUIETLY, status=1)

    layout.run("scripts/deploy", "-auto-approve", *QUIETLY)
    layout.unchanged()
    settings = layout.settings()
    assert set(json.loads(settings)) == {"JWT_SECRET", "AUDIT_KEY", "ENCRYPTION_KEYS"}
    layout.run("scripts/deploy", "-auto-approve", *QUIETLY)
    assert layout.settings() == settings

    bucket = layout.output("bucket")
    with layout.client("s3") as storage:
        for _ in range(VERSIONS):
            storage.put_object(Bucket=bucket, Key=f"documents/{'a' * 60}", Body=b"a")
    layout.run("scripts/destroy", "-no-color", typed="no\n", status=1)
    layout.unchanged()
    layout.run("scripts/destroy", "-auto-approve", *QUIETLY)
    assert layout.run("terraform", "state", "list") == ""
    layout.run("scripts/destroy", "-auto-approve", *QUIETLY)
    assert layout.buckets() == [bucket]

    adopt(layout, bucket)
    layout.run("scripts/deploy", "-auto-approve", *QUIETLY)
    assert (layout.output("bucket"), layout.settings()) == (bucket, settings)
    layout.unchanged()

    layout.run("scripts/destroy", "--with-files", "-auto-approve", *QUIETLY, typed="no\n", status=1)
    layout.unchanged()
    layout.run("scripts/destroy", "--with-files", "-auto-approve", *QUIETLY, typed=f"{bucket}\n")
    assert layout.run("terraform", "state", "list") == ""
    assert layout.buckets() == []


def adopt(layout: Layout, bucket: str) -> None:
    """Have Terraform know again what `scripts/destroy` has left, as README.md says."""
    layout.run("terraform", "import", *QUIETLY, "module.storage.aws_s3_bucket.files", bucket)
    secrets = {
        "settings": "aws_secretsmanager_secret.settings",
        "worker-key": "module.remote.aws_secretsmanager_secret.key",
    }
    for name, address in secrets.items():
        restored = ("aws", "secretsmanager", "restore-secret", "--secret-id", f"documents/{name}")
        arn = layout.run(*restored, "--query", "ARN", "--output", "text").strip()
        layout.run("terraform", "import", *QUIETLY, address, arn)


if __name__ == "__main__":
    with TemporaryDirectory() as name, copied(Path(name)) as made:
        check(made)
