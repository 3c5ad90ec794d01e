"""`make aws-check`: lays out deploy/aws at a server of AWS's services on this machine, twice, and takes it down.

Without the machine that serves, of which that server knows too little. TF_PLUGIN_MIRROR names a folder of providers.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support import brokers

DEPLOY = Path(__file__).parents[2] / "deploy/aws"
VARIABLES = {
    "region": brokers.AWS["AWS_DEFAULT_REGION"],
    "name": "documents",
    "domain": "documents.example.com",
    "service": "false",
    "path_style": "true",
}


def check(folder: Path) -> None:
    """Raises CalledProcessError for a step that failed, and for a second plan that would change something."""
    here = folder / "aws"
    ignored = shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfvars")
    shutil.copytree(DEPLOY, here, ignore=ignored)
    config = folder / "config"
    mirror = os.environ.get("TF_PLUGIN_MIRROR")
    config.write_text(f'provider_installation {{\n  filesystem_mirror {{ path = "{mirror}" }}\n}}\n' if mirror else "")
    with brokers.running(folder / "services") as services:
        variables = {f"TF_VAR_{name}": value for name, value in VARIABLES.items()}
        automatic = {"TF_CLI_CONFIG_FILE": str(config), "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}
        environment = os.environ | services.environment | variables | automatic

        def run(*command: str) -> None:
            sys.stdout.write(f"==> {' '.join(command)}\n")
            sys.stdout.flush()
            subprocess.run(command, cwd=here, env=environment, check=True)

        run("scripts/package")
        run("terraform", "init", "-input=false", "-no-color")
        run("terraform", "apply", "-auto-approve", "-input=false", "-no-color")
        run("terraform", "plan", "-detailed-exitcode", "-input=false", "-no-color")  # 2: it would change something
        run("terraform", "destroy", "-auto-approve", "-input=false", "-no-color")


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        check(Path(folder))
