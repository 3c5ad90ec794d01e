"""`python -m app remote check`: a worker that keeps the rules passes, and one that breaks a rule fails by that rule."""

import asyncio
import json
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from app.client.api import Credentials
from app.remote.check.rules import RULES
from app.remote.check.run import Checked, Verdict, check
from app.remote.check.trial import Pace
from tests.support.amazon import FUNCTION, PROCESSOR
from tests.support.elsewhere import STATED, described
from tests.support.remote_workers import NODE, needs_node
from tests.support.server import Server
from tests.support.zygote import run

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/remote_worker.py"
FALLIBLE = ROOT / "tests/support/fallible_worker.py"
PACE = Pace(limit=8, lease=1.5, retry_after=1, grace=0.5)
NAMES = [each.name for each in RULES]
QUICK = {"job", "damaged", "credentials"}  # rules that are soon judged

# What is wrong with a worker, and the rules that it breaks by that.
DEFECTS: dict[str, set[str]] = {
    "is silent": {"lease"},
    "says it once": {"lost-answer"},
    "ends when a claim is lost": {"lost-claim"},
    "gives up at 503": {"busy"},
    "is impatient": {"busy"},
    "is not cancelled": {"cancelled"},
    "beats on": {"lost-lease"},
    "repeats what is refused": {"refused"},
    "fails what is lost": {"refused"},
    "drops what is refused": {"rejected"},
    "gives no reason": {"rejected"},
    "believes all": {"damaged"},
    "is final": {"damaged"},
    "does without": {"expired"},
    "knows all members": {"unknown"},
    "shows its key": {"credentials"},
    "follows redirects": {"credentials"},
    "uses the key for all": {"job", "credentials"},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One that has a processor for each of many workers."""
    folder = tmp_path_factory.mktemp("elsewhere")
    stated = {f"count-{number}": STATED["count"] for number in range(len(DEFECTS))} | {
        "text": {},
        "count": STATED["count"],
        PROCESSOR: json.loads((FUNCTION / "processor.json").read_text()),
    }
    with Server(folder / "var", {"REMOTE_PROCESSORS": str(described(folder, stated))}) as running:
        yield running


@pytest.fixture
def worker_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """In the environment that workers are started with."""
    key: str = server.operator().http.post("/api-keys", json={"name": "w", "scopes": ["worker"]}).json()["key"]
    monkeypatch.setenv("API_KEY", key)
    monkeypatch.setenv("DOCUMENT_API_KEY", key)
    return key


def user_key(server: Server) -> str:
    scopes = ["documents:read", "documents:write", "documents:process"]
    key: str = server.register().http.post("/api-keys", json={"name": "check", "scopes": scopes}).json()["key"]
    return key


async def judged(server: Server, number: int, rules: Collection[str], *worker: Path | str) -> list[Verdict]:
    """What becomes of some rules with a worker of a processor of its own."""
    verdicts = list[Verdict]()
    checked = Checked(
        server.url,
        Credentials(user_key(server)),
        [each for each in RULES if each.name in rules],
        f"count-{number}",
        command=[sys.executable, str(worker[0]), "{url}", "{processor}", *map(str, worker[1:])],
        pace=PACE,
    )
    await check(checked, lambda _: None, verdicts.append)
    return verdicts


@pytest.mark.usefixtures("worker_key")
async def test_the_example_keeps_all_rules(server: Server) -> None:
    parts = [NAMES[start::3] for start in range(3)]
    verdicts = await asyncio.gather(*(judged(server, number, part, EXAMPLE) for number, part in enumerate(parts)))
    assert [str(each) for part in verdicts for each in part if not each.held] == []
    assert sum(map(len, verdicts)) == len(RULES)


@pytest.mark.long
@pytest.mark.usefixtures("worker_key")
@pytest.mark.parametrize(
    ("processor", "command"),
    [
        pytest.param("count", [NODE, str(ROOT / "examples/remote_worker.mjs"), "{url}", "count"], marks=needs_node),
        ("text", [sys.executable, "-m", "app", "worker", "--remote", "{url}", "--processor", "text"]),
        (PROCESSOR, [sys.executable, str(ROOT / "tests/support/event_source.py"), "{url}", "{processor}"]),
    ],
    ids=["node", "app", "function"],
)
async def test_so_do_the_others_that_are_shipped(
    server: Server, processor: str, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts, owner_key = list[Verdict](), user_key(server)
    monkeypatch.setenv("OWNER_KEY", owner_key)
    checked = Checked(server.url, Credentials(owner_key), RULES, processor, command=command, pace=PACE)
    await check(checked, lambda _: None, verdicts.append)
    assert [str(each) for each in verdicts if not each.held] == []


@pytest.mark.usefixtures("worker_key")
async def test_what_is_wrong_with_a_worker_is_found(server: Server) -> None:
    """And nothing else."""
    verdicts = await asyncio.gather(
        *(
            judged(server, number, QUICK | rules, FALLIBLE, defect)
            for number, (defect, rules) in enumerate(DEFECTS.items())
        )
    )
    found = {
        defect: {each.rule.name for each in of_one if each.held is False}
        for defect, of_one in zip(DEFECTS, verdicts, strict=True)
    }
    assert found == DEFECTS


@pytest.mark.usefixtures("worker_key")
async def test_what_cannot_be_seen_is_not_judged(server: Server) -> None:
    verdicts = await judged(server, 0, {"job", "damaged", "lease"}, FALLIBLE, "reads nothing")
    assert [(each.rule.name, each.held) for each in verdicts] == [("job", True), ("lease", None), ("damaged", None)]


@pytest.mark.usefixtures("worker_key")
async def test_jobs_of_others_are_left_alone(server: Server) -> None:
    user = server.register()
    jobs = [user.start(user.upload()["id"], processor="count-1")["id"] for _ in range(5)]
    verdicts = await judged(server, 1, {"lost-claim", "refused", "damaged"}, FALLIBLE)
    assert [each.reason for each in verdicts if not each.held] == []
    done = [user.finished(job_id, timeout=1) for job_id in jobs]
    assert {(each["state"], each["attempt"]) for each in done} == {("SUCCEEDED", 1)}


def test_the_command(server: Server, worker_key: str) -> None:
    """The processor is that which the worker claims from, and the account one that is made."""
    wanted = ("--rule", "job", "--rule", "credentials", "--seconds", "20")
    worker = ("--", sys.executable, str(FALLIBLE), "{url}", "count-0", "shows its key")
    done = run("remote", "check", server.url, *wanted, *worker, API_KEY=worker_key)
    first, job, credentials, last = done.stdout.splitlines()
    assert first.startswith("For the worker, the service is at http://127.0.0.1:")
    assert job.split()[:2] == ["ok", "job"]
    assert credentials.split()[:2] == ["FAILED", "credentials"]
    assert 'the API key, too, in the header X-Key (docs/remote-workers.md, "One job")' in credentials
    assert last.startswith("1 of 2 rules were kept. It took ")
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--rule", "none"), "--rule: none is none of job, lease, "),
        (("--listen", "9000"), "--listen must be HOST:PORT"),
        (("--params", "[]"), "--params must be a JSON object"),
        (("--", "worker", "{processor}"), "name the --processor that is to be filled in"),
        (("--processor", "none"), "the service offers no processor 'none'"),
        (
            ("--processor", "count-0", "--", "/no/worker"),
            "cannot start the worker: /no/worker: No such file or directory",
        ),
        (("--seconds", "1", "--", "true"), "claimed nothing: its command ends, and has called nothing"),
    ],
)
def test_what_cannot_be_checked(server: Server, arguments: tuple[str, ...], reason: str) -> None:
    done = run("remote", "check", server.url, *arguments, DOCUMENT_API_KEY=user_key(server))
    assert done.returncode == 2
    assert reason in " ".join(done.stderr.replace("│", " ").split())


def test_sections_of_the_documentation() -> None:
    text = (ROOT / "docs/remote-workers.md").read_text()
    assert {each.section for each in RULES} <= {line[3:] for line in text.splitlines() if line.startswith("## ")}
    for rule in RULES:
        assert f"| `{rule.name}` |" in text
