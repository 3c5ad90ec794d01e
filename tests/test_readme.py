"""The README is true: its table of settings, and the main job word for word."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from app.settings import Settings
from tests.server import Server

ROOT = Path(__file__).parent.parent
BASH = shutil.which("bash") or "bash"
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    field = Settings.model_fields[name]
    default = "" if field.default in {"", None} else f"`{field.default}`"
    assert f"| `{name.upper()}` | {default} | {field.description} |" in README


@pytest.mark.skipif(not shutil.which("curl"), reason="the README's example is written for curl")
def test_the_main_job_in_curl(tmp_path: Path) -> None:
    scripts = [script_under(heading) for heading in ("## The main job", "### Large files: direct uploads")]
    with Server(tmp_path / "var") as server:
        script = "\n".join(scripts).replace("http://127.0.0.1:8000", server.url)
        done = subprocess.run(
            [BASH, "-euc", script], cwd=ROOT, capture_output=True, text=True, env=os.environ, check=True, timeout=60
        )
    assert '"state":"SUCCEEDED"' in done.stdout
    assert '"processor":"text"' in done.stdout
    assert '"job.succeeded"' in done.stdout
    assert '"status":"UPLOADED"' in done.stdout.splitlines()[-1]


def script_under(heading: str) -> str:
    """The first shell script of a section."""
    return re.search(r"```sh\n(.*?)```", README.partition(heading)[2], re.DOTALL)[1]


def test_every_file_it_names_exists() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
