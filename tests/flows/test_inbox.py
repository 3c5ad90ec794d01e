"""The inbox: each file that is dropped becomes one document, and is moved, whatever happens meanwhile."""

import os
import signal
import stat
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.flows.test_folder_upload import documents, environment, upload
from tests.support.factories import docx, macro_docx, pdf
from tests.support.invariants import Ledger
from tests.support.metrics import metric
from tests.support.processors import NAMES
from tests.support.seaweed import BUCKET, KEY, Prefix
from tests.support.server import Server
from tests.support.user import User
from tests.support.waiting import until
from tests.support.zygote import run

OWNER = "ada@example.com"
SETTLE = 0.2  # seconds
AWS = {**KEY, "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass
class Folder:
    """An inbox on a disk."""

    path: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return str(self.path)

    def drop(self, name: str, content: bytes) -> None:
        """As programs should: under another name, until all is there."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f"{path.name}.part").write_bytes(content)
        path.with_name(f"{path.name}.part").rename(path)

    def names(self) -> set[str]:
        return {str(path.relative_to(self.path)) for path in self.path.rglob("*") if stat.S_ISREG(mode_of(path))}

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


@dataclass
class InBucket:
    """An inbox in a bucket."""

    prefix: Prefix
    environment: Mapping[str, str] = field(default_factory=lambda: AWS)

    @property
    def url(self) -> str:
        return self.prefix.url()

    def drop(self, name: str, content: bytes) -> None:
        self.prefix.put(name, content)

    def names(self) -> set[str]:
        return {*self.prefix.objects()}

    def read(self, name: str) -> bytes:
        key = f"{self.prefix.name}/{name}"
        content: bytes = self.prefix.seaweed.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return content


def mode_of(path: Path) -> int:
    """Of a file that may be moved meanwhile."""
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return 0


Inbox = Folder | InBucket


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "inbox").mkdir()
    return Folder(tmp_path / "inbox")


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.long)])
def inbox(request: pytest.FixtureRequest) -> Inbox:
    if request.param == "folder":
        found: Folder = request.getfixturevalue("folder")
        return found
    return InBucket(request.getfixturevalue("prefix"))


def watching(data_dir: Path, inbox: Inbox, **settings: str) -> Server:
    own = {"INBOX_URL": inbox.url, "INBOX_OWNER": OWNER, "INBOX_SETTLE_SECONDS": str(SETTLE)}
    return Server(data_dir, own | dict(inbox.environment) | settings)


@contextmanager
def watched(tmp_path: Path, inbox: Inbox, **settings: str) -> Iterator[tuple[Server, User]]:
    """A server that watches the inbox, and the inbox's owner."""
    with watching(tmp_path / "var", inbox, **settings) as server:
        yield server, server.register(OWNER)


def within(inbox: Inbox, folder: str) -> dict[str, bytes]:
    """What is in one of its folders."""
    names = [name for name in inbox.names() if name.startswith(f"{folder}/")]
    return {name.removeprefix(f"{folder}/"): inbox.read(name) for name in names}


def waiting(inbox: Inbox) -> set[str]:
    """What is neither done nor refused."""
    return {name for name in inbox.names() if not name.startswith(("done/", "refused/"))}


def worked_off(inbox: Inbox) -> None:
    until(lambda: not waiting(inbox), failure=lambda: f"still there: {waiting(inbox)}")


def looked(server: Server, looks: int = 3) -> None:
    """Wait until the inbox was looked at some times."""
    last = 0.0
    for _ in range(looks + 1):
        last = until(
            lambda last=last: (
                (now := metric(server, "upkeep_last_success_timestamp_seconds", chore="inbox")) > last and now
            )
        )


def test_files_become_documents_and_are_processed(inbox: Inbox, tmp_path: Path) -> None:
    files = {"a.pdf": pdf("in the inbox"), "invoices/2026/b.docx": docx("below"), "invoices/c.PDF": pdf("c")}
    settings = {"INBOX_PROCESSOR": "text", "INBOX_PARAMS": '{"format": "markdown"}'}
    with watched(tmp_path, inbox, **settings) as (server, user):
        for name, content in files.items():
            inbox.drop(name, content)
        worked_off(inbox)
        found = {document["filename"]: document for document in documents(user)}
        folders = {name: document["folder"] for name, document in found.items()}
        assert folders == {"a.pdf": None, "b.docx": "invoices/2026", "c.PDF": "invoices"}
        job = user.finished(found["a.pdf"]["job_id"])
        assert (job["state"], job["processor"], job["params"]["format"]) == ("SUCCEEDED", "text", "markdown")
        assert "in the inbox" in user.http.get(f"/documents/{found['a.pdf']['id']}/result").text
        uploaded, *_ = user.events(found["b.docx"]["id"])
        assert (uploaded["event"], uploaded["actor"]) == ("document.uploaded", "inbox")
        expected = {
            f"a.{found['a.pdf']['id']}.pdf": files["a.pdf"],
            f"invoices/2026/b.{found['b.docx']['id']}.docx": files["invoices/2026/b.docx"],
            f"invoices/c.{found['c.PDF']['id']}.PDF": files["invoices/c.PDF"],
        }
        assert within(inbox, "done") == expected
        assert metric(server, "inbox_files_total", outcome="accepted") == 3


@pytest.mark.long
def test_what_is_refused_says_why(inbox: Inbox, tmp_path: Path) -> None:
    files = {
        "notes.txt": b"This is no PDF." * 10,
        "below/macros.docx": macro_docx(),
        "long.pdf": pdf("long") + bytes(30_000),
        f"{'f' * 200}/{'g' * 100}/a.pdf": pdf("in a folder of too long a name"),
    }
    with watched(tmp_path, inbox, MAX_UPLOAD_BYTES="20000") as (server, user):
        for name, content in files.items():
            inbox.drop(name, content)
        inbox.drop("good.pdf", pdf("good"))
        worked_off(inbox)
        assert [document["filename"] for document in documents(user)] == ["good.pdf"]
        refused = within(inbox, "refused")
        reasons = {name: text.decode() for name, text in refused.items() if name.endswith(".reason.txt")}
        kept = {name: content for name, content in refused.items() if name not in reasons}
        assert sorted(kept.values()) == sorted(files.values())
        assert {f"{name}.reason.txt" for name in kept} == reasons.keys()
        codes = {name.partition(".")[0].rpartition("/")[2]: text.partition(":")[0] for name, text in reasons.items()}
        assert codes == {
            "notes": "unsupported-document",
            "macros": "macros-not-allowed",
            "long": "payload-too-large",
            "a": "validation-failed",
        }
        assert all(len(text.splitlines()) == 1 and len(text) > 30 for text in reasons.values())
        assert metric(server, "inbox_files_total", outcome="refused") == 4
        looked(server)
        assert len(within(inbox, "refused")) == 8
        Ledger(tmp_path / "var").check_usage()


@pytest.mark.long
def test_the_same_again_is_the_same_document(inbox: Inbox, tmp_path: Path) -> None:
    """Also long after its key was forgotten; other bytes of this name, and these bytes elsewhere, are another."""
    with watched(tmp_path, inbox, IDEMPOTENCY_TTL="0.5", INBOX_PROCESSOR="text") as (server, user):
        for pause in (0, 0, 1):
            time.sleep(pause)
            inbox.drop("a.pdf", pdf("a"))
            worked_off(inbox)
        [document] = documents(user)
        assert user.story(document["id"]).count("queued") == 1
        assert within(inbox, "done") == {f"a.{document['id']}.pdf": pdf("a")}
        inbox.drop("a.pdf", pdf("b"))
        inbox.drop("below/a.pdf", pdf("a"))
        worked_off(inbox)
        assert len(documents(user)) == len(within(inbox, "done")) == 3
        user.finished(document["job_id"])
        assert user.http.delete(f"/documents/{document['id']}").status_code == 204
        inbox.drop("a.pdf", pdf("a"))
        worked_off(inbox)
        assert len(documents(user)) == 3
        assert metric(server, "inbox_files_total", outcome="already_there") == 2


def test_what_the_client_has_uploaded_is_there(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "d/below").mkdir(parents=True)
    (tmp_path / "d/below/a.pdf").write_bytes(pdf("a"))
    with watched(tmp_path, folder) as (_, user):
        assert upload(tmp_path / "d", "--recursive", **environment(user)).returncode == 0
        [document] = documents(user)
        renamed = {"folder": "elsewhere"}  # so only the key tells
        assert user.http.patch(f"/documents/{document['id']}", json=renamed).status_code == 200
        folder.drop("below/a.pdf", pdf("a"))
        worked_off(folder)
        assert len(documents(user)) == 1
        assert [*within(folder, "done")] == [f"below/a.{document['id']}.pdf"]


def test_a_file_is_taken_when_it_is_whole(folder: Folder, tmp_path: Path) -> None:
    content, slowly = pdf("slow" * 2000), folder.path / "slow.pdf"
    with watched(tmp_path, folder, INBOX_SETTLE_SECONDS="0.6") as (_, user), slowly.open("wb") as file:
        third = len(content) // 8
        for start in range(0, len(content), third):
            file.write(content[start : start + third])
            file.flush()
            time.sleep(0.3)
            assert not documents(user)
            assert [*folder.names()] == ["slow.pdf"]
        worked_off(folder)
        [document] = documents(user)
        assert user.http.get(f"/documents/{document['id']}/content").content == content


def test_a_file_that_changes_while_it_is_read_is_taken_later(folder: Folder, tmp_path: Path) -> None:
    """Replaced and written to all the time, by files that are each a document. None is half of one and half of another.

    The writer ends with one that stays."""
    versions = [pdf(f"{number} " + "x" * 200_000) for number in range(40)]
    with watched(tmp_path, folder, INBOX_SETTLE_SECONDS="0.1") as (_, user):
        for content in versions:
            with (folder.path / "a.pdf").open("wb") as file:
                file.write(content[:100_000])
                file.flush()
                time.sleep(0.02)
                file.write(content[100_000:])
            time.sleep(0.02)
        worked_off(folder)
        known = {len(content): content for content in versions}
        for document in documents(user):
            assert user.http.get(f"/documents/{document['id']}/content").content in known.values()
        assert not within(folder, "refused")


def test_what_is_passed_over(folder: Folder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.pdf").write_bytes(pdf("secret"))
    names = [".hidden.pdf", "a.pdf.part", "b.tmp", "c.pdf.crdownload", "d.pdf~", ".hidden/e.pdf", "done/f.pdf"]
    for name in [*names, "refused/g.pdf"]:
        (folder.path / name).parent.mkdir(exist_ok=True)
        (folder.path / name).write_bytes(pdf(name))
    (folder.path / "empty.pdf").touch()
    (folder.path / "link.pdf").symlink_to(outside / "secret.pdf")
    (folder.path / "linked").symlink_to(outside)
    os.mkfifo(folder.path / "pipe.pdf")
    with watched(tmp_path, folder) as (server, user):
        before = folder.names()
        looked(server, 5)
        assert not documents(user)
        assert folder.names() == before
        (folder.path / "empty.pdf").write_bytes(pdf("empty no more"))
        until(lambda: [document["filename"] for document in documents(user)] == ["empty.pdf"])


def test_nothing_is_moved_through_a_link(folder: Folder, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder.path / "done").mkdir()
    (folder.path / "done/below").symlink_to(outside)
    with watched(tmp_path, folder) as (server, user):
        folder.drop("below/a.pdf", pdf("a"))
        until(lambda: "below" in alarm(server))
        assert waiting(folder) == {"below/a.pdf"}
        (folder.path / "done/below").unlink()
        worked_off(folder)
        assert len(documents(user)) == 1
        assert not [*outside.iterdir()]


def test_names_that_are_no_text(folder: Folder, tmp_path: Path) -> None:
    """Neither the look at all others, nor what tells operators, fails for bytes that are none."""
    done, below = folder.path / "done", os.fsdecode(b"d\xff")
    done.mkdir()
    (done / below).symlink_to(tmp_path)
    with watched(tmp_path, folder, LOG_FORMAT="json") as (server, user):
        folder.drop(os.fsdecode(b"b\xfe.txt"), b"This is no PDF.")
        folder.drop(os.fsdecode(b"c\xfd.pdf"), pdf("c"))
        worked_off(folder)
        folder.drop(f"{below}/a.pdf", pdf("a"))
        until(lambda: alarm(server) == "inbox: d\N{REPLACEMENT CHARACTER}: Not a directory")
        (done / below).unlink()
        worked_off(folder)
        assert len(documents(user)) == 2
        assert len(server.logs("inbox.refused")) == 1
        assert not server.logs("upkeep.failed")


@pytest.mark.parametrize(
    "fault",
    [
        *(pytest.param(f"upload.after_{each}", marks=pytest.mark.long) for each in ("temp", "rename")),
        "upload.after_commit",
    ],
)
def test_killed_before_the_move(inbox: Inbox, fault: str, tmp_path: Path) -> None:
    killed(inbox, f"{fault}:2", tmp_path)


@pytest.mark.parametrize("fault", ["inbox.after_copy:1", pytest.param("inbox.after_copy:4", marks=pytest.mark.long)])
def test_killed_within_the_move(prefix: Prefix, fault: str, tmp_path: Path) -> None:
    killed(InBucket(prefix), fault, tmp_path)


def test_killed_before_what_is_refused_is_moved(folder: Folder, tmp_path: Path) -> None:
    killed(folder, "inbox.after_reason:1", tmp_path)


def killed(inbox: Inbox, fault: str, tmp_path: Path) -> None:
    """Five documents and one file that is none; the server dies at the fault, and another goes on."""
    names = [f"{number}.pdf" for number in range(5)]
    settings = {"INBOX_PROCESSOR": "text", "ORPHAN_GRACE_SECONDS": "1.5", "LEASE_SECONDS": "1"}
    with watched(tmp_path, inbox, **settings) as (server, before):
        server.kill()
        for name in names:
            inbox.drop(name, pdf(name))
        inbox.drop("none.pdf", b"none")
        server.settings["FAULT"] = fault
        assert server.launch().wait(20) == -signal.SIGKILL
        user = server.restarted(before, FAULT="")
        worked_off(inbox)
        found = {document["filename"]: document["id"] for document in documents(user)}
        assert len(documents(user)) == len(found) == 5
        expected = {f"{name.removesuffix('.pdf')}.{document_id}.pdf" for name, document_id in found.items()}
        assert within(inbox, "done").keys() == expected
        assert len(within(inbox, "refused")) == 2
        for document_id in found.values():
            user.finished(user.document(document_id)["job_id"])
            assert user.story(document_id).count("queued") == 1
        ledger = Ledger(tmp_path / "var")
        ledger.settle()
        ledger.check()


def test_two_watchers(inbox: Inbox, tmp_path: Path) -> None:
    """Both at work at once: in this world, nobody reserves the inbox."""
    count = 40
    names = {f"{number % 3}/{number:03}.pdf" for number in range(count)}
    with watching(tmp_path / "var", inbox, INBOX_PROCESSOR="simulated", INBOX_PARAMS='{"seconds": 0}') as first:
        user = first.register(OWNER)
        second = watching(
            tmp_path / "var", inbox, **{n: first.settings[n] for n in ("INBOX_PROCESSOR", "INBOX_PARAMS")}
        )
        first.stop()
        first.module = second.module = "tests.support.unreserved"
        with first, second:
            user = user.at(first)
            with ThreadPoolExecutor() as pool:
                [*pool.map(lambda name: inbox.drop(name, pdf(name)), names)]
            worked_off(inbox)
            found = documents(user)
            assert {f"{document['folder']}/{document['filename']}" for document in found} == names
            assert len(found) == len(within(inbox, "done")) == count
            assert not within(inbox, "refused")
            for server in (first, second):
                assert metric(server, "inbox_files_total") > 0, "it has done nothing"
                assert "Traceback" not in server.log_file.read_text()
            accepted = sum(metric(server, "inbox_files_total", outcome="accepted") for server in (first, second))
            assert accepted == count
            for document in found:
                user.finished(document["job_id"])
            ledger = Ledger(tmp_path / "var")
            ledger.settle()
            ledger.check()


def alarm(server: Server) -> str:
    alarms = server.client().get("/readyz").json().get("alarms", {})
    return str(alarms.get("upkeep", ""))


def test_what_passes_is_waited_for(folder: Folder, tmp_path: Path) -> None:
    """Storage that is away, then an account that is full. The log says so once each, and nothing is lost."""
    with watched(tmp_path, folder, QUOTA_DOCUMENTS="2", RESERVE_BYTES="0") as (server, user):
        staging = server.data_dir / "files" / "staging"
        away = staging.rename(staging.with_name("away"))
        for number in range(3):
            folder.drop(f"{number}.pdf", pdf(str(number)))
        until(lambda: alarm(server) == "inbox: storage-unavailable")
        assert len(waiting(folder)) == 3
        away.rename(staging)
        until(lambda: len(waiting(folder)) == 1)
        until(lambda: alarm(server) == "inbox: document-quota-exceeded")
        time.sleep(1)
        reasons = [line["reason"] for line in server.logs("upkeep.skipped")]
        assert sorted(set(reasons)) == ["document-quota-exceeded", "storage-unavailable"]
        assert len(reasons) <= 4
        assert user.http.delete(f"/documents/{documents(user)[0]['id']}?permanent=true").status_code == 204
        worked_off(folder)
        until(lambda: not alarm(server))
        assert len(within(folder, "done")) == 3
        assert metric(server, "inbox_files_total", outcome="postponed") >= 2


def test_an_account_may_be_made_later_and_be_disabled(folder: Folder, tmp_path: Path) -> None:
    folder.drop("a.pdf", pdf("a"))
    with watching(tmp_path / "var", folder) as server:
        until(lambda: alarm(server) == "inbox: INBOX_OWNER: there is no such account")
        [line] = server.logs("upkeep.skipped")
        assert (line["chore"], line["level"]) == ("inbox", "warning")
        user = server.register(OWNER)
        worked_off(folder)
        assert len(documents(user)) == 1
        operator = server.operator()
        account = user.http.get("/auth/me").json()["id"]
        disabled = operator.http.patch(f"/admin/accounts/{account}", json={"active": False})
        assert disabled.status_code == 200, disabled.text
        folder.drop("b.pdf", pdf("b"))
        until(lambda: alarm(server) == "inbox: INBOX_OWNER is disabled")
        assert waiting(folder) == {"b.pdf"}


def test_a_folder_that_goes_and_comes_back(folder: Folder, tmp_path: Path) -> None:
    with watched(tmp_path, folder) as (server, user):
        away = folder.path.rename(tmp_path / "away")
        until(lambda: "No such file" in alarm(server))
        away.rename(folder.path)
        folder.drop("a.pdf", pdf("a"))
        worked_off(folder)
        assert len(documents(user)) == 1
        until(lambda: not alarm(server))


def make_file(path: Path) -> None:
    path.write_text("")


REFUSED: list[tuple[dict[str, str], str]] = [
    ({"INBOX_OWNER": ""}, "INBOX_OWNER is required when INBOX_URL is set"),
    ({"INBOX_OWNER": "ada"}, "INBOX_OWNER: not an email address"),
    ({"INBOX_URL": "{tmp}/missing"}, "INBOX_URL: {tmp}/missing: No such file or directory"),
    ({"INBOX_URL": "{tmp}/file"}, "INBOX_URL: {tmp}/file: Not a directory"),
    ({"INBOX_URL": "{tmp}/var/inbox"}, "INBOX_URL must be apart from DATA_DIR, DATABASE_URL and STORAGE_URL"),
    ({"INBOX_URL": "{tmp}"}, "INBOX_URL must be apart from DATA_DIR, DATABASE_URL and STORAGE_URL"),
    ({"INBOX_URL": "ftp://a"}, "INBOX_URL: must be file:///path or s3://bucket/prefix"),
    ({"INBOX_URL": ""}, "INBOX_URL is required when another setting of the inbox is set"),
    ({"INBOX_PROCESSOR": "scan"}, f"INBOX_PROCESSOR: The processors are: {', '.join(sorted(NAMES))}."),
    ({"INBOX_PROCESSOR": "text", "INBOX_PARAMS": '{"format": 1}'}, "INBOX_PARAMS/params/format: "),
    ({"INBOX_PROCESSOR": "text", "INBOX_PARAMS": "["}, "INBOX_PARAMS: must be a JSON object"),
    ({"INBOX_PARAMS": "{}"}, "INBOX_PROCESSOR is required when INBOX_PARAMS is set"),
    ({"INBOX_SETTLE_SECONDS": "0"}, "INBOX_SETTLE_SECONDS: "),
]


@pytest.mark.parametrize(("settings", "reason"), REFUSED)
def test_refused_at_start_in_one_line(settings: dict[str, str], reason: str, folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    own = {"PATH": os.environ["PATH"], "DATA_DIR": f"{tmp_path}/var", "PORT": "0", "INBOX_URL": folder.url}
    given = {name: value.replace("{tmp}", str(tmp_path)) for name, value in settings.items()}
    done = run("serve", **own | {"INBOX_OWNER": OWNER} | given)
    [line] = done.stderr.splitlines()
    assert line.startswith("configuration: " + reason.replace("{tmp}", str(tmp_path)))
    assert done.returncode == 1


def test_a_bucket_is_tried_at_start(prefix: Prefix, tmp_path: Path) -> None:
    own = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path / "var"), "PORT": "0", "INBOX_OWNER": OWNER, **AWS}
    wrong = prefix.url().replace(BUCKET, BUCKET[:-1])
    for place, reason in (
        ({"INBOX_URL": wrong}, "the bucket does not exist (ListObjectsV2)"),
        ({"INBOX_URL": prefix.url(), "STORAGE_URL": prefix.url()}, "must be apart from"),
    ):
        done = run("serve", **own | place)
        [line] = done.stderr.splitlines()
        assert line.startswith("configuration: INBOX_URL")
        assert reason in line


def test_commands_do_not_need_the_inbox(tmp_path: Path) -> None:
    own = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path / "var"), "INBOX_URL": str(tmp_path / "missing")}
    done = run("users", "list", **own, INBOX_OWNER=OWNER)
    assert done.returncode == 0
