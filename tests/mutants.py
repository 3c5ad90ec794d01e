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

from app.main import FEATURES
from tests.support.mutation import changed, file_of

ROOT = Path(__file__).parents[1]


class Mutant(NamedTuple):
    """`old`, which is in the code that `where` names once, becomes `new`: as tests.support.mutation has it.

    One of `tests` must fail.
    """

    guard: str
    where: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTANTS = (
    Mutant(
        "the second look of the check at files that are not there, or not known",
        "app.check.files:FileCheck._confirmed",
        "_same(each.row, rows.get(each.key))",
        "True",
        ("tests/flows/test_check.py",),
    ),
    Mutant(
        "the second look of the check at the storage",
        "app.check.files:_still_there",
        "found == suspect.object",
        "True",
        ("tests/flows/test_check.py",),
    ),
    Mutant(
        "the second reading of references, for files that nothing referred to",
        "app.check.files:FileCheck._unreferenced_still",
        "each not in referred",
        "True",
        ("tests/flows/test_check.py",),
    ),
    Mutant(
        "the second look of the check at rows that contradict each other",
        "app.check.findings:confirmed",
        "finding in again",
        "True",
        ("tests/flows/test_check.py",),
    ),
    Mutant(
        "the age of files that the check takes for unknown",
        "app.check.files:FileCheck._judge",
        'Suspect(unknown, None, "there") if listed.age > self.grace else None',
        'Suspect(unknown, None, "there")',
        ("tests/flows/test_check.py",),
    ),
    Mutant(
        "the documents that are left alone when very many files are missing",
        "app.check.repair:repair",
        "finding.code == MISSING and missing.suspicious",
        "False",
        ("tests/flows/test_check.py",),
    ),
    Mutant(
        "the time for which a file is reserved that an attempt makes",
        "app.files.repository:_PUBLISH",
        "files.c.discarded_at > now(MARGIN)",
        "",
        ("tests/flows/test_outputs.py",),
    ),
    Mutant(
        "the files of an attempt that is at work, from the sweep",
        "app.files.repository:known",
        "files.c.discarded_at <= now()",
        "files.c.discarded_at.is_not(None)",
        ("tests/flows/test_outputs.py",),
    ),
    Mutant(
        "the quota of an account whose documents are made",
        "app.processing.publication:Publication.publish",
        "self._quotas.check(conn, job.owner_id)",
        "pass",
        ("tests/flows/test_outputs.py",),
    ),
    Mutant(
        "the removal of what an attempt had made that failed",
        "app.processing.sink:Sinks.sink",
        "await sink.discard()",
        "pass",
        ("tests/flows/test_outputs.py",),
    ),
    Mutant(
        "the files that a parser's process is kept from",
        "app.processors.sandbox:confine",
        "landlock.restrict([*readable, *_installed()], executable)",
        "pass",
        ("tests/unit/test_sandbox.py",),
    ),
    Mutant(
        "the system calls that a parser's process is refused",
        "app.processors.sandbox:confine",
        "seccomp.restrict(threads=threads, executing=program is not None)",
        "pass",
        ("tests/flows/test_sandbox.py",),
    ),
    Mutant(
        "the programs that a confined one cannot execute",
        "app.processors.sandbox:confine",
        "[program, *_loaders()]",
        "[Path('/usr/bin'), program, *_loaders()]",
        ("tests/unit/test_program.py",),
    ),
    Mutant(
        "the model that a result fits before it is published",
        "app.processing.output:short_json",
        "require_fit(model, next(limited(iter([short]), max_bytes)))",
        "pass",
        ("tests/flows/test_processors_of_others.py",),
    ),
    Mutant(
        "the content types that a processor reads",
        "app.processing.acceptance:_require_readable",
        "document.content_type not in wanted.content_types",
        "False",
        ("tests/flows/test_processors_of_others.py",),
    ),
    Mutant(
        "the processes that a parser with threads is refused",
        "app.processors.sandbox.seccomp:_instructions",
        "(ANY_BIT, 0, 1, CLONE_THREAD)",
        "(ANY_BIT, 0, 0, CLONE_THREAD)",
        ("tests/unit/test_sandbox.py",),
    ),
    Mutant(
        "the server's environment, which other processes cannot read",
        "app.wiring.process:prepare_process",
        "sandbox.hide_process()",
        "pass",
        ("tests/flows/test_sandbox.py",),
    ),
    Mutant(
        "the addresses that no request is sent to",
        "app.outbound:Outbound._guarded_socket",
        "not self._addresses.allow(of_socket(address[0]))",
        "False",
        ("tests/unit/test_outbound.py",),
    ),
    Mutant(
        "the addresses that Python takes for public",
        "app.outbound.addresses:_is_public",
        "not special",
        "True",
        ("tests/unit/test_outbound.py",),
    ),
    Mutant(
        "the fence in finish",
        "app.jobs.transitions:_HELD_BY_CLAIM",
        'jobs.c.fence == bindparam("claim")',
        "",
        ("tests/flows/test_pull.py", "tests/flows/test_state_machine.py"),
    ),
    Mutant(
        "the fence of a delivery",
        "app.jobs.settlement:settle",
        "if held:\n    kind.settled(conn, job, outcome)\nelse:\n    event, end = JobFenced(fence=job.fence), None",
        "kind.settled(conn, job, outcome)",
        ("tests/flows/test_webhooks.py",),
    ),
    Mutant(
        "the uniqueness of a delivery",
        "app.migrations.versions.0020_webhooks:upgrade",
        "unique=True",
        "unique=False",
        ("tests/flows/test_webhooks.py",),
    ),
    Mutant(
        "being held as a condition of finish",
        "app.jobs.transitions:_HELD_BY_CLAIM",
        "IS_HELD",
        "",
        ("tests/flows/test_crashes.py", "tests/flows/test_state_machine.py", "tests/api/test_jobs.py"),
    ),
    Mutant(
        "the state condition of the compare-and-swap",
        "app.documents.repository:_SWAP",
        'documents.c.status == bindparam("old")',
        "",
        ("tests/unit/test_documents_repository.py",),
    ),
    Mutant(
        "that a rejected upload is never completed",
        "app.documents.repository:_SWAP_UNREJECTED",
        "_SWAP.where(IS_LIVE, documents.c.error.is_(null()))",
        "_SWAP.where(IS_LIVE)",
        ("tests/unit/test_documents_repository.py",),
    ),
    Mutant(
        "that no file takes the place of another",
        "app.storage.local:LocalStaged._commit",
        "os.link",
        "os.replace",
        ("tests/contracts/test_storage.py",),
    ),
    Mutant(
        "that what was published is not taken back",
        "app.storage.local:LocalStaged._discard",
        "self._temporary.unlink(missing_ok=True)",
        "self._temporary.unlink(missing_ok=True), self._final.unlink(missing_ok=True)",
        ("tests/flows/test_storage_faults.py",),
    ),
    Mutant(
        "the sync of what is being completed",
        "app.files.receive:Receiver.stored",
        "await self._storage.sync(expected.key)",
        "None",
        ("tests/flows/test_storage_faults.py",),
    ),
    Mutant(
        "the document in the signature of an upload URL",
        "app.files.signed_urls:_signature",
        'f"PUT {name} {expires}"',
        'f"PUT {expires}"',
        ("tests/api/test_direct_uploads.py",),
    ),
    Mutant(
        "the owner filter of documents",
        "app.documents.repository:_OF_OWNER",
        'documents.c.owner_id == bindparam("owner")',
        "",
        ("tests/api",),
    ),
    Mutant(
        "the owner filter of jobs",
        "app.jobs.repository:_OF_OWNER",
        '_ID.where(jobs.c.owner_id == bindparam("owner"))',
        "_ID",
        ("tests/api",),
    ),
    Mutant(
        "that a job is run again only while its failure is the last word",
        "app.processing.bulk:_IS_LAST_WORD",
        "documents_table.c.job_id == jobs.c.id",
        "",
        ("tests/api/test_operators.py",),
    ),
    Mutant(
        "the event of an operator who reads content",
        "app.operators.documents:AllDocuments._record",
        "events.append(conn, event, user_id=document.owner_id, document_id=document.id)",
        "None",
        ("tests/api/test_operators.py",),
    ),
    Mutant(
        "that nothing is claimed from what is paused",
        "app.jobs.runner:Runner.pull",
        "self.pauses.forbid(queue)",
        "False",
        ("tests/api/test_operators.py",),
    ),
    Mutant(
        "the uniqueness of a live job",
        "app.migrations.versions.0004_jobs_of_any_kind:_rebuild_jobs",
        'unique=name.startswith("uq")',
        "unique=False",
        ("tests/flows/test_races.py",),
    ),
    Mutant(
        "the fingerprint check",
        "app.idempotency:once",
        'row["fingerprint"] != request.fingerprint',
        "False",
        ("tests/api/test_processing.py",),
    ),
    Mutant(
        "the authorisation of a replay",
        "app.processing.service:ProcessingService.process",
        "owned(conn, principal.owner_id, document_id)",
        "documents.get(conn, principal.owner_id, document_id)",
        ("tests/api/test_processing.py",),
    ),
    Mutant(
        "the abort by the heartbeat",
        "app.jobs.attempt:Attempt._keep_lease",
        "break",
        "continue",
        ("tests/flows/test_crashes.py", "tests/api/test_jobs.py"),
    ),
    Mutant(
        "the refund of a try",
        "app.jobs.transitions:Change.released",
        "refund=1",
        "refund=0",
        ("tests/flows/test_shutdown.py",),
    ),
    Mutant(
        "the expiry of a lease",
        "app.jobs.transitions:rescue",
        "jobs.c.locked_until <= now()",
        "",
        ("tests/flows/test_pull.py", "tests/flows/test_state_machine.py"),
    ),
    Mutant(
        "a process pulls only from the queues that it serves",
        "app.jobs.claims:_is_queued",
        "jobs.c.queue == literal(queue, jobs.c.queue.type)",
        "",
        ("tests/flows/test_processors_of_others.py",),
    ),
    Mutant(
        "a process claims no more than it has capacity for",
        "app.jobs.capacity:_Pool.admits",
        "self.free > 0",
        "True",
        ("tests/unit/test_capacity.py",),
    ),
    Mutant(
        "a job is not claimed before it is due",
        "app.jobs.turns:is_waiting",
        "jobs.c.run_at <= now()",
        "",
        ("tests/flows/test_pull.py", "tests/flows/test_state_machine.py"),
    ),
    Mutant(
        "an owner's jobs come one after the other",
        "app.jobs.turns:NEXT_TURN",
        "_AFTER_OWN",
        "",
        ("tests/flows/test_fair_queue.py",),
    ),
    Mutant(
        "an owner leaves a part of the capacity to others",
        "app.jobs.capacity:_Pool.admits",
        "self.free > self._share",
        "True",
        ("tests/unit/test_capacity.py", "tests/flows/test_fair_queue.py"),
    ),
    Mutant(
        "those who get no more are passed over",
        "app.jobs.claims:_first",
        "_is_admitted(number, refused)",
        "",
        ("tests/flows/test_fair_queue.py",),
    ),
    Mutant(
        "what is begun counts against a share",
        "app.jobs.runner:Runner.pull",
        "running",
        "[]",
        ("tests/flows/test_fair_queue.py",),
    ),
    Mutant(
        "a worker follows the wake-up that the broker does not take",
        "app.jobs.dispatch.broker.connection:BrokerDispatcher.send",
        "self._puller.wake(job_id)",
        "None",
        ("tests/contracts/test_dispatch.py",),
    ),
    Mutant(
        "a worker takes a message only when it has capacity",
        "app.jobs.dispatch.broker.connection:BrokerDispatcher._receive",
        "await self._until_free(broker)",
        "None",
        ("tests/contracts/test_dispatch.py",),
    ),
    Mutant(
        "a silent broker keeps nobody waiting",
        "app.jobs.dispatch.broker.connection:BrokerDispatcher._in_time",
        "asyncio.timeout(self._call_timeout)",
        "asyncio.timeout(30)",
        ("tests/contracts/test_dispatch.py",),
    ),
    Mutant(
        "a message is acknowledged when it is received",
        "app.jobs.dispatch.broker.redis:RedisBroker.receive",
        "noack=True",
        "noack=False",
        ("tests/contracts/test_dispatch.py",),
    ),
    Mutant(
        "an access token ends with its session",
        "app.auth.sessions:_AUTHENTICATED",
        "_ALIVE",
        "",
        ("tests/api/test_sessions.py",),
    ),
    Mutant(
        "the scope that an operation needs",
        "app.auth.dependencies:let_in",
        "principal.require(needed)",
        "pass",
        ("tests/api/test_scopes.py",),
    ),
    Mutant(
        "a key may do no more than its owner",
        "app.auth.keys.repository:authenticated",
        'SCOPES_OF[users.role_in(row)].intersection(row["scopes"])',
        'frozenset(row["scopes"])',
        ("tests/api/test_keys.py",),
    ),
    Mutant(
        "the checksum of a key, before the database is asked",
        "app.auth.keys.text:is_key",
        "parts[2] == _checksum(parts[1])",
        "True",
        ("tests/api/test_keys.py",),
    ),
    Mutant(
        "the expiry of a key",
        "app.auth.keys.repository:authenticated",
        'row["has_expired"]',
        "False",
        ("tests/api/test_keys.py",),
    ),
    Mutant(
        "the end of a secret that was rotated out",
        "app.auth.keys.repository:_AUTHENTICATED",
        "or_(api_key_secrets.c.expires_at.is_(None), api_key_secrets.c.expires_at > now())",
        "",
        ("tests/api/test_keys.py",),
    ),
    Mutant(
        "a key that ends while a body arrives adds nothing",
        "app.auth.credentials:_scopes",
        "keys.authenticated(conn, principal.secret_hash)",
        "principal",
        ("tests/api/test_keys.py",),
    ),
    Mutant(
        "a key is stored in no answer",
        "app.auth.keys.service:_without_secret",
        "key=None",
        'key="dla_"',
        ("tests/api/test_keys.py",),
    ),
    Mutant(
        "a refresh token has one child",
        "app.auth.sessions:rotate",
        "func.coalesce(refresh_tokens.c.child_seed, new_child_seed())",
        "new_child_seed()",
        ("tests/api/test_sessions.py",),
    ),
    Mutant(
        "a refresh token whose child was rotated is reuse",
        "app.auth.sessions:rotate",
        "~child_rotated.exists()",
        "",
        ("tests/api/test_sessions.py",),
    ),
    Mutant(
        "no session begins with a password that was changed meanwhile",
        "app.auth.service:_is_still",
        "table.c.password_hash == password_hash",
        "",
        ("tests/api/test_sessions.py",),
    ),
    Mutant(
        "the upload URLs of a disabled account end",
        "app.documents.repository:announced",
        "users.c.active",
        "",
        ("tests/api/test_accounts.py",),
    ),
    Mutant(
        "the lag of seals",
        "app.events.seals:_settled",
        "(events.c.at > now(-LAG))",
        "literal(False)",
        ("tests/unit/test_audit.py",),
    ),
    Mutant(
        "the MAC of an event",
        "app.audit.verify:Verification._check_event",
        "signing.mac_of(key, row) == mac",
        "True",
        ("tests/unit/test_audit.py",),
    ),
    Mutant(
        "the digest of a seal",
        "app.audit.verify:Verification._check_range",
        "found.sha256.digest() != seal.digest",
        "False",
        ("tests/unit/test_audit.py",),
    ),
    Mutant(
        "the event of a reading of the audit trail",
        "app.audit.service:AuditTrail.find",
        "await self._db.write(partial(events.append, event=AuditRead(filters=filters.shown)))",
        "None",
        ("tests/api/test_audit.py",),
    ),
    Mutant(
        "the second look of a transfer",
        "app.transfer:Transfer._run",
        "await _require_unchanged(source, target, before, report)",
        "None",
        ("tests/flows/test_transfer.py",),
    ),
    Mutant(
        "the files that a backup is going to copy, from their removal",
        "app.files.claim:Claim._require_no_backup",
        "raise Postponed(BACKUP)",
        "pass",
        ("tests/flows/test_backup.py",),
    ),
    Mutant(
        "a target around or within what is backed up",
        "app.wiring.backups:_place",
        "any(contains(place, own) or contains(own, place) for own in settings.own_places)",
        "False",
        ("tests/flows/test_backup.py",),
    ),
    Mutant(
        "the backups of another service, from being pushed out",
        "app.backup.make:Backup.run",
        "await require_own(self.target, self.db)",
        "None",
        ("tests/flows/test_backup.py",),
    ),
    Mutant(
        "a file that is lost, though the target of a backup has it",
        "app.backup.copying:Copying._one",
        "not self._plan.sees(file.key, file.size)",
        "False",
        ("tests/flows/test_backup.py",),
    ),
    Mutant(
        "the hash of what is copied into and out of a backup",
        "app.backup.target:copy",
        "await staged.received() != expected",
        "False",
        ("tests/flows/test_backup.py",),
    ),
    Mutant(
        "a storage that a backup is to be restored into, if it is not empty",
        "app.backup.restore:Restore._begin",
        "current is not None or await self.storage.sample()",
        "False",
        ("tests/flows/test_backup.py",),
    ),
    Mutant(
        "a database that a backup is to be restored into, if it is not empty",
        "app.backup.restore:Restore._begin",
        "await self.source.revision() is not None",
        "False",
        ("tests/flows/test_backup.py",),
    ),
    Mutant(
        "what was backed up that the restored service would take for a backup under way",
        "app.backup.restore:Restore._adopt",
        "await db.write(backups.forget)",
        "None",
        ("tests/flows/test_backup.py",),
    ),
)
_ELSEWHERE = ("tests/api/test_remote.py",)
MUTANTS += (
    Mutant(
        "that a worker elsewhere keeps only the job that is its own",
        "app.remote.held:of_claim",
        "row['fence'] != claim.fence",
        "False",
        _ELSEWHERE,
    ),
    Mutant(
        "that a worker elsewhere settles under the fence of its own claim",
        "app.remote.held:claimed",
        "replace(Job.of(row), fence=claim.fence)",
        "Job.of(row)",
        _ELSEWHERE,
    ),
    Mutant(
        "that a token of a claim expires, for whatever is read or sent",
        "app.remote.held:of_claim",
        "row['at'] >= claim.expires_at",
        "False",
        _ELSEWHERE,
    ),
    Mutant(
        "that a token of a claim expires, for what is settled",
        "app.remote.held:claimed",
        "row['at'] >= claim.expires_at",
        "False",
        _ELSEWHERE,
    ),
    Mutant(
        "the deadline up to which a worker elsewhere may renew its lease",
        "app.remote.held:renew",
        "min(claim.lease, (claim.deadline - at).total_seconds())",
        "claim.lease",
        _ELSEWHERE,
    ),
    Mutant(
        "that a job which has ended is read by no worker elsewhere",
        "app.remote.held:held",
        "found.job.state not in HELD",
        "False",
        _ELSEWHERE,
    ),
    Mutant(
        "that a token of a claim is good for its own job alone",
        "app.remote.dependencies:_current_claim",
        "claim.job_id != job_id",
        "False",
        _ELSEWHERE,
    ),
    Mutant(
        "that files of a claim before are not those of the next",
        "app.remote.outputs:_OF_CLAIM",
        "remote_outputs.c.fence == bindparam('claim')",
        "",
        _ELSEWHERE,
    ),
    Mutant(
        "that a file which arrives after its lease was lost is not kept",
        "app.remote.service:_stage",
        "held.require(conn, claim)",
        "None",
        _ELSEWHERE,
    ),
    Mutant(
        "that what was completed before is not completed again",
        "app.remote.service:RemoteJobs._settle",
        "held.settled_before(conn, claim)",
        "None",
        _ELSEWHERE,
    ),
    Mutant(
        "that a hint of a job is sent when it is accepted",
        "app.remote.hints:Hints.accepted",
        "after_commit(conn, partial(self._tell, _Hint(named[0], record.job_id)))",
        "None",
        ("tests/flows/test_remote_hints.py",),
    ),
    Mutant(
        "that hints are repeated",
        "app.remote.hints:Hints.repeat",
        "self._tell(_Hint(queue, job_id))",
        "None",
        ("tests/flows/test_remote_hints.py",),
    ),
    Mutant(
        "that there are no hints of what is paused",
        "app.remote.hints:Hints.repeat",
        "self._queues.pauses.cover(queue)",
        "False",
        ("tests/flows/test_remote_hints.py",),
    ),
)
if "app.console" in FEATURES:
    MUTANTS += (
        Mutant(
            "that a cookie is good for a session that is alive",
            "app.auth.sessions:of_cookie",
            "_ALIVE",
            "",
            ("tests/api/console/test_sign_in.py",),
        ),
        Mutant(
            "that the console takes forms of its own pages only",
            "app.console.frame.origin:require_own_page",
            'raise Forbidden("The console takes only what its own pages send.")',
            "pass",
            ("tests/api/console/test_sign_in.py",),
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
    file = file_of(copy, mutant.where)
    whole = file.read_text()
    file.write_text(changed(whole, mutant.where, mutant.old, mutant.new))
    began = time.monotonic()
    noticed = failing_test(copy, mutant.tests)
    file.write_text(whole)
    if noticed and failing_test(copy, [noticed]):
        sys.exit(f"{noticed} fails now and then without any mutant")
    typer.echo(f"without {mutant.guard}: {noticed or 'STILL GREEN'} ({time.monotonic() - began:.0f} s)")
    return noticed is not None


def failing_test(copy: Path, tests: list[str] | tuple[str, ...]) -> str | None:
    """The first test that fails, if one does."""
    command = [sys.executable, "-m", "pytest", "--exitfirst", "--quiet", "-m", "", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    failed = re.search(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    if failed is None:
        sys.exit(f"the tests did not run:\n{done.stdout}{done.stderr}")
    return failed[1]


if __name__ == "__main__":
    main()
