"""The README and the page on operations are true: the table of settings, and what they tell to type, word for word."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from app.settings import Settings
from tests.support import databases, env_example, packages
from tests.support.server import Server
from tests.support.user import User
from tests.support.zygote import run

ROOT = Path(__file__).parent.parent
BASH = shutil.which("bash") or "bash"
README = ROOT / "README.md"
OPERATIONS = ROOT / "docs" / "operations.md"


def scripts(page: Path, heading: str) -> list[str]:
    """What a section tells to type."""
    section = re.split(r"\n##+ ", page.read_text().partition(f"{heading}\n")[2])[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


def typed(script: str, cwd: Path, **environment: str) -> str:
    """What came of it, in whatever folder: `python -m app` is this project."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), **environment}
    command = [BASH, "-euc", script]
    done = subprocess.run(command, cwd=cwd, env=env, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "[info " not in line]) == (0, [])
    return done.stdout


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    field = Settings.model_fields[name]
    default = "" if field.default in {"", None} else f"`{field.default}`"
    assert f"| `{name.upper()}` | {default} | {field.description} |" in OPERATIONS.read_text()


def test_the_example_of_env_has_every_setting() -> None:
    assert (ROOT / ".env.example").read_text() == env_example.text(), "make .env.example"


@pytest.mark.skipif(not shutil.which("curl"), reason="the README's example is written for curl")
def test_the_main_job_in_curl(tmp_path: Path) -> None:
    headings = ("## The main job", "### Every day", "### Split and merge", "### Keys for programs", "### Webhooks")
    headings += ("### Large files: direct uploads", "### Another file for a document")
    parts = [part for each in headings for part in scripts(README, each)]
    with Server(tmp_path / "var") as server:
        told = typed("".join(parts).replace("http://127.0.0.1:8000", server.url), ROOT)
    assert '"processor":"text"' in told
    assert '"job.succeeded"' in told
    assert '"total":1' in told
    assert '"skipped":[]' in told
    assert '"filename":"twice.pdf"' in told
    assert '"processor":"merge"' in told
    assert told.count('"state":"SUCCEEDED"') == 3
    assert '"name":"nightly import"' in told
    assert '"type":"ping"' in told
    assert '"secret":"whsec_' in told
    assert '"status":"UPLOADED"' in told.splitlines()[-1]
    assert '"file_number":3' in told.splitlines()[-1]


def test_what_the_author_of_a_processor_types(tmp_path: Path) -> None:
    install, try_it = scripts(README, "## Your own processor")
    assert shlex.split(install)[-1] == "./examples/processor"
    installed = packages.install(ROOT / "examples" / "processor", tmp_path)
    told = typed(try_it, ROOT, PYTHONPATH=f"{ROOT}:{installed}", DATA_DIR=str(tmp_path / "var"))
    listed, checked = told.splitlines()[:2], told.splitlines()[2:]
    assert listed == ["text 3 (built in)", "bytes 1 (byte-counter 1.0)"]
    assert checked
    assert all(line.startswith("ok: ") for line in checked)


def test_the_code_that_an_answer_shows_is_that_of_the_example() -> None:
    [shown] = re.findall(r"```python\n(.*?)```", (ROOT / "QUESTIONNAIRE.md").read_text(), re.DOTALL)
    assert shown in (ROOT / "examples/langgraph/summary_graph.py").read_text()


@pytest.mark.parametrize("heading", ["## Accounts", "## Operators"])
def test_what_the_operator_types(tmp_path: Path, heading: str) -> None:
    [commands] = scripts(OPERATIONS, heading)
    environment = {
        "PATH": os.environ["PATH"],
        "DATA_DIR": str(tmp_path / "var"),
        **databases.settings(tmp_path / "var"),
    }
    for line in commands.splitlines():
        typed = re.fullmatch(r"(?:echo '(.*)' \| )?python -m app (.*)", line)
        assert typed, line
        done = run(*shlex.split(typed[2]), stdin=typed[1] or "", **environment)
        assert (done.returncode, "error" in done.stderr) == (0, False)
        assert done.stdout or " list " in line


@pytest.mark.parametrize("page", [README, OPERATIONS], ids=lambda page: page.name)
def test_every_file_and_heading_it_names_exists(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", page.read_text()):
        named = page.parent / target if target else page
        assert named.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", named.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}, anchor


def test_every_file_that_breaks_things_is_listed() -> None:
    listed = re.findall(r"`(?:tests/flows/)?(test_\w+\.py)`", README.read_text())
    assert {path.name for path in (ROOT / "tests/flows").glob("test_*.py")} <= set(listed)


class Saved:
    """What there was when the backup was made."""

    def __init__(self, user: User) -> None:
        document = user.upload()
        user.finished(user.start(document["id"])["id"])
        self.path = f"/documents/{document['id']}"
        self.seen = self.look(user)

    def look(self, user: User) -> list[Any]:
        answers = [user.http.get(self.path + path) for path in ("", "/content", "/result", "/timeline")]
        assert [answer.status_code for answer in answers] == [200] * len(answers)
        return [answer.content for answer in answers]


def lacks_tools() -> bool:
    """pg_dump does not know servers that are newer than itself."""
    if not databases.POSTGRESQL:
        return False
    if not shutil.which("pg_dump"):
        return True
    with databases.past(make_url(databases.SERVER)).connect() as conn:
        server = int(conn.exec_driver_sql("SHOW server_version_num").scalar_one()) // 10000
    return int(re.findall(r"\d+", typed("pg_dump --version", ROOT))[0]) < server


@pytest.mark.skipif(lacks_tools(), reason="there is no pg_dump for this server")
def test_backup_and_restore(tmp_path: Path) -> None:
    backup, restore = (
        each.replace("/mnt/", f"{tmp_path}/mnt/") for each in scripts(OPERATIONS, "## Backup and restore")
    )
    secrets = tmp_path / "mnt/secrets"
    secrets.mkdir(parents=True)
    with Server(tmp_path / "var") as server:
        user = server.register()
        saved = Saved(user)
        typed(backup, tmp_path, **databases.settings(tmp_path / "var"))
        later = user.upload()["id"]
        assert user.http.delete(saved.path).status_code == 204
        server.kill()
        for name in ("jwt-secret", "audit-key", "encryption-keys"):
            shutil.copy(tmp_path / "var" / name, secrets)
        shutil.move(tmp_path / "var", tmp_path / "lost")
        new = databases.settings(tmp_path / "new")  # on PostgreSQL, an empty database
        typed(restore, tmp_path, **new)
        server.settings |= new
        user = server.restarted(user)
        assert saved.look(user) == saved.seen
        assert user.http.get(f"/documents/{later}").status_code == 404
        user.finished(user.start(user.upload()["id"])["id"])
