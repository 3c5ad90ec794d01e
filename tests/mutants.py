"""Removes the guards that the promise rests on, one at a time, and expects the tests to notice: `make mutants`.

Each mutant is a copy of the project with one guard gone. First the copy is tested whole, or red would mean nothing.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import typer

ROOT = Path(__file__).parents[1]


class Mutant(NamedTuple):
    """`old`, which stands in `file` once, becomes `new`; one of `tests` must fail."""

    guard: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "the fence in finish",
        "app/processing/repository.py",
        'jobs.c.fence == bindparam("claim"), ',
        "",
        ("tests/flows/test_crashes.py", "tests/flows/test_state_machine.py"),
    ),
    Mutant(
        "RUNNING as a condition of finish",
        "app/processing/repository.py",
        'jobs.c.fence == bindparam("claim"), jobs.c.state == JobState.RUNNING',
        'jobs.c.fence == bindparam("claim")',
        ("tests/flows/test_crashes.py", "tests/flows/test_state_machine.py", "tests/api/test_jobs.py"),
    ),
    Mutant(
        "the state condition of the compare-and-swap",
        "app/documents/repository.py",
        'documents.c.id == bindparam("document"), documents.c.status == bindparam("old"))',
        'documents.c.id == bindparam("document"))',
        ("tests/unit/test_documents_repository.py",),
    ),
    Mutant(
        "that a rejected upload is never completed",
        "app/documents/repository.py",
        "_SWAP.where(documents.c.error.is_(null()))",
        "_SWAP",
        ("tests/unit/test_documents_repository.py",),
    ),
    Mutant(
        "that no file takes the place of another",
        "app/storage/local.py",
        "os.link(",
        "os.replace(",
        ("tests/contracts/test_storage.py",),
    ),
    Mutant(
        "that what was published is not taken back",
        "app/storage/local.py",
        "self._temporary.unlink(missing_ok=True)",
        "self._temporary.unlink(missing_ok=True), self._final.unlink(missing_ok=True)",
        ("tests/flows/test_storage_faults.py",),
    ),
    Mutant(
        "the sync of what is being completed",
        "app/uploads/service.py",
        "            await self._storage.sync(storage_key(document.id))\n",
        "",
        ("tests/flows/test_storage_faults.py",),
    ),
    Mutant(
        "the document in the signature of an upload URL",
        "app/uploads/urls.py",
        'f"PUT {key} {expires}"',
        'f"PUT {expires}"',
        ("tests/contracts/test_direct_uploads.py",),
    ),
    Mutant(
        "the owner filter of documents",
        "app/documents/repository.py",
        ', documents.c.owner_id == bindparam("owner"))',
        ")",
        ("tests/api",),
    ),
    Mutant(
        "the owner filter of jobs",
        "app/processing/repository.py",
        '_OF_ID.where(jobs.c.owner_id == bindparam("owner"))',
        "_OF_ID",
        ("tests/api",),
    ),
    Mutant(
        "the uniqueness of a live job",
        "app/migrations/versions/0001_initial.py",
        "unique=True",
        "unique=False",
        ("tests/flows/test_races.py",),
    ),
    Mutant(
        "the fingerprint check",
        "app/idempotency.py",
        'if row["fingerprint"] != print_:',
        "if False:",
        ("tests/api/test_processing.py",),
    ),
    Mutant(
        "the authorisation of a replay",
        "app/processing/service.py",
        """\
            document = owned(conn, owner_id, document_id)  # before a replay: the right to it may be gone
            if guard and (known := idempotency.recall(conn, guard, print_)):
                return Accepted(known, None)
""",
        """\
            if guard and (known := idempotency.recall(conn, guard, print_)):
                return Accepted(known, None)
            document = owned(conn, owner_id, document_id)
""",
        ("tests/api/test_processing.py",),
    ),
    Mutant(
        "the abort by the heartbeat",
        "app/processing/runner.py",
        "urgent=True):\n                    return\n",
        "urgent=True):\n                    continue\n",
        ("tests/flows/test_crashes.py", "tests/api/test_jobs.py"),
    ),
    Mutant(
        "the refund of a try",
        "app/processing/settlement.py",
        "refund=1",
        "refund=0",
        ("tests/flows/test_shutdown.py",),
    ),
    Mutant(
        "the expiry of a lease",
        "app/processing/repository.py",
        "jobs.c.state == JobState.RUNNING, _reached(jobs.c.locked_until)",
        "(jobs.c.state == JobState.RUNNING,)",
        ("tests/flows/test_crashes.py", "tests/flows/test_state_machine.py"),
    ),
    Mutant(
        "a worker follows the wake-up that the broker does not take",
        "app/jobs/dispatch/broker/connection.py",
        "metrics.wakeups_not_sent.inc()\n                self._puller.wake(job_id)",
        "metrics.wakeups_not_sent.inc()",
        ("tests/contracts/test_dispatch.py",),
    ),
    Mutant(
        "a worker takes a message only when it has capacity",
        "app/jobs/dispatch/broker/connection.py",
        "await self._until_free(broker)",
        "pass",
        ("tests/contracts/test_dispatch.py",),
    ),
    Mutant(
        "a silent broker keeps nobody waiting",
        "app/jobs/dispatch/broker/connection.py",
        "asyncio.timeout(self._call_timeout)",
        "asyncio.timeout(30)",
        ("tests/contracts/test_dispatch.py",),
    ),
    Mutant(
        "a message is acknowledged when it is received",
        "app/jobs/dispatch/broker/redis.py",
        "noack=True",
        "noack=False",
        ("tests/contracts/test_dispatch.py",),
    ),
    Mutant(
        "what cannot be sent is left to the sweepers of others",
        "app/processing/sweeper.py",
        "room = 0 if self._stopped else self._dispatcher.room",
        "room = 500",
        ("tests/unit/test_sweeper.py",),
    ),
    Mutant(
        "the second look of a transfer",
        "app/transfer/__init__.py",
        "await self._refuse_changed(before)",
        "pass",
        ("tests/unit/test_transfer_rows.py",),
    ),
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in ("app", "tests"):
            shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        if noticed := failing_test(copy, sorted({test for mutant in MUTANTS for test in mutant.tests})):
            sys.exit(f"the tests fail without any mutant: {noticed}")
        survivors = [mutant.guard for mutant in MUTANTS if not killed(copy, mutant)]
    if survivors:
        sys.exit(f"nobody missed {', '.join(survivors)}")


def killed(copy: Path, mutant: Mutant) -> bool:
    """Whether a test fails without this guard. Leaves the copy as it was."""
    file = copy / mutant.file
    whole = file.read_text()
    assert whole.count(mutant.old) == 1, f"{mutant.guard}: {whole.count(mutant.old)} places"
    file.write_text(whole.replace(mutant.old, mutant.new))
    began = time.monotonic()
    noticed = failing_test(copy, mutant.tests)
    file.write_text(whole)
    if noticed and failing_test(copy, [noticed]):
        sys.exit(f"{noticed} fails now and then without any mutant")
    typer.echo(f"without {mutant.guard}: {noticed or 'STILL GREEN'} ({time.monotonic() - began:.0f} s)")
    return noticed is not None


def failing_test(copy: Path, tests: list[str] | tuple[str, ...]) -> str | None:
    """The first test that fails, if one does."""
    command = [sys.executable, "-m", "pytest", "--exitfirst", "--quiet", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    failed = re.search(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    if failed is None:
        sys.exit(f"the tests did not run:\n{done.stdout}{done.stderr}")
    return failed[1]


if __name__ == "__main__":
    main()
