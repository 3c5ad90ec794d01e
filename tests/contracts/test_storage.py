"""What every Storage keeps to, whichever it is; and what only one of them can get wrong."""

import asyncio
import hashlib
import os
import shutil
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiobotocore.client import AioBaseClient
from botocore.exceptions import ClientError

from app.errors import AlreadyStored, ConfigurationError, NotFound, StorageFull, StorageUnavailable, UnsupportedDocument
from app.settings import load
from app.settings.storage import PART, Bucket
from app.storage import local as local_module
from app.storage.base import Staged, Storage
from app.storage.local import LocalStorage
from app.storage.s3 import S3Storage, objects, staged as staged_module, storage as s3_module
from app.storage.s3.staged import S3Staged
from tests.support.seaweed import BUCKET, KEY, READER, Prefix

BATCH = 512 * 1024
SIZES = [0, 1, BATCH, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 1]
MEBIBYTE = 1024**2


@dataclass
class Place:
    """A storage, and what is seen of it past the adapter."""

    storage: Storage
    leftovers: Callable[[], set[str]]
    away: Callable[[], AbstractContextManager[None]]
    age: Callable[[], Awaitable[None]]
    abandon: Callable[[], None]


def local_place(tmp_path: Path) -> Place:
    root = tmp_path / "files"

    def files() -> set[str]:
        return {path.name for path in root.rglob("*") if path.is_file()}

    @contextmanager
    def away() -> Iterator[None]:
        moved = root.rename(tmp_path / "away")
        try:
            yield
        finally:
            shutil.rmtree(root, ignore_errors=True)
            moved.rename(root)

    async def age() -> None:
        for path in root.rglob("*"):
            os.utime(path, (0, 0))

    return Place(LocalStorage(root), files, away, age, (root / "staging/dead.part").touch)


def s3_storage(url: str, tmp_path: Path, longest: float = 600) -> S3Storage:
    bucket = load(storage_url=url).storage
    assert isinstance(bucket, Bucket)
    return S3Storage(bucket, copies=tmp_path / "copies", longest=longest)


@contextmanager
def s3_place(prefix: Prefix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    def leftovers() -> set[str]:
        assert not [*(tmp_path / "copies").iterdir()]
        return {key.rpartition("/")[2] for key in [*prefix.objects(), *prefix.uploads()]}

    with prefix.seaweed.relay() as relay:

        @contextmanager
        def away() -> Iterator[None]:
            relay.cut()
            try:
                yield
            finally:
                relay.mend()

        async def age() -> None:
            true_age, cutoff = s3_module.age, datetime.now(UTC)
            await asyncio.sleep(1.1)  # S3 dates to the second
            monkeypatch.setattr(
                s3_module, "age", lambda page, written: true_age(page, written) + (written <= cutoff) * 86400
            )

        storage = s3_storage(prefix.url(relay.port), tmp_path)
        yield Place(storage, leftovers, away, age, lambda: prefix.begin("documents/dead"))


@pytest.fixture
def aws(monkeypatch):
    for name, value in {**KEY, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(params=["local", "s3"])
async def place(request, tmp_path, monkeypatch):
    if request.param == "local":
        place = local_place(tmp_path)
        yield place
        await place.storage.close()
        return
    request.getfixturevalue("aws")
    with s3_place(request.getfixturevalue("prefix"), tmp_path, monkeypatch) as place:
        await place.storage.open()
        yield place
        await place.storage.close()


@pytest.fixture
def storage(place):
    return place.storage


def content(size: int) -> bytes:
    return hashlib.shake_128(b"%d" % size).digest(size)


def batches(data: bytes) -> Iterator[list[memoryview]]:
    for at in range(0, len(data), BATCH):
        yield [memoryview(data)[at : at + BATCH]]


async def write(staged: Staged, data: bytes) -> None:
    for batch in batches(data):
        await staged.write(batch)


async def store(storage: Storage, key: str, data: bytes) -> None:
    async with storage.create(key) as staged:
        await write(staged, data)
        await staged.commit()


async def read(storage: Storage, key: str, start: int = 0, length: int = 2**40) -> bytes:
    return b"".join([chunk async for chunk in storage.read(key, start, length)])


async def all_stale(storage: Storage, older_than: float) -> set[str]:
    return {key async for keys in storage.stale(older_than) for key in keys}


@pytest.mark.parametrize("size", SIZES)
async def test_a_file_comes_back_as_it_was(storage, size):
    data = content(size)
    async with storage.create("documents/it") as staged:
        await write(staged, data)
        ends = await staged.inspect(lambda file: (file.seek(0, os.SEEK_END), file.seek(0), file.read(3))[::2])
        stored = await staged.commit()
    assert ends == (size, data[:3])
    assert (stored.size, stored.sha256) == (size, hashlib.sha256(data).hexdigest())
    assert await read(storage, "documents/it", 0, max(1, size)) == data
    async with storage.local_copy("documents/it") as path:
        assert path.read_bytes() == data


@pytest.mark.parametrize("size", [100, PART + 100])
async def test_inspection_sees_every_byte(storage, size):
    data = content(size)

    def examine(file):
        assert file.seek(-10, os.SEEK_END) == size - 10
        tail = file.read()
        file.seek(0)
        return hashlib.sha256(b"".join(iter(lambda: file.read(20_000), b""))).digest(), tail

    async with storage.create("documents/it") as staged:
        await write(staged, data)
        assert await staged.inspect(examine) == (hashlib.sha256(data).digest(), data[-10:])


async def test_it_can_be_committed_without_an_inspection(storage):
    await store(storage, "documents/it", content(PART + 1))
    assert await read(storage, "documents/it") == content(PART + 1)


SPANS = [(0, 1), (0, 10), (5, 10), (999, 1), (990, 100), (1000, 1), (5000, 10), (0, 0), (3, 0)]


@pytest.mark.parametrize(("start", "length"), SPANS)
async def test_ranges(storage, start, length):
    data = content(1000)
    await store(storage, "documents/it", data)
    assert await read(storage, "documents/it", start, length) == data[start : start + length]


async def test_a_range_across_parts(storage):
    data = content(2 * PART + 1)
    await store(storage, "documents/it", data)
    assert await read(storage, "documents/it", PART - 7, PART + 8) == data[PART - 7 :]


@pytest.mark.parametrize("length", [0, 1, 100])
async def test_a_missing_file_is_not_found(storage, length):
    with pytest.raises(NotFound):
        await read(storage, "documents/none", 0, length)
    with pytest.raises(NotFound):
        async with storage.local_copy("documents/none"):
            pass


async def test_a_reader_may_leave_early(storage):
    await store(storage, "documents/it", content(PART))
    for _ in range(20):
        chunks = storage.read("documents/it", 0, PART)
        assert await anext(chunks)
        await chunks.aclose()
    await storage.check()


async def test_deleting_twice_is_no_error(place):
    await store(place.storage, "documents/it", b"it")
    await store(place.storage, "documents/other", b"other")
    for _ in range(2):
        await place.storage.delete("documents/it")
    assert place.leftovers() == {"other"}


async def test_a_file_is_never_overwritten(tmp_path):
    """Where clients cannot be given URLs of the storage's own, this is what makes ours good for one upload."""
    place = local_place(tmp_path)
    await store(place.storage, "documents/it", b"first")
    with pytest.raises(AlreadyStored):
        await store(place.storage, "documents/it", b"second")
    assert await read(place.storage, "documents/it") == b"first"
    assert place.leftovers() == {"it"}
    await place.storage.close()


@pytest.mark.parametrize("size", [0, 100, PART + 100])
async def test_nothing_is_seen_before_the_commit_or_left_without_one(place, size):
    async with place.storage.create("documents/it") as staged:
        await write(staged, content(size))
        with pytest.raises(NotFound):
            await read(place.storage, "documents/it")
        await staged.inspect(lambda file: file.read(1))
    assert place.leftovers() == set()


@pytest.mark.parametrize("size", [100, 2 * PART + 100])
@pytest.mark.parametrize("inspect", [False, True])
async def test_an_error_leaves_nothing(place, size, inspect):
    def refuse(_):
        raise UnsupportedDocument

    with pytest.raises(UnsupportedDocument):  # noqa: PT012
        async with place.storage.create("documents/it") as staged:
            await write(staged, content(size))
            if inspect:
                await staged.inspect(refuse)
            raise UnsupportedDocument
    assert place.leftovers() == set()


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.05, 0.1, 0.2])
async def test_a_cancelled_upload_leaves_nothing_or_all(place, seconds):
    data, committing = content(8 * PART), False

    async def receive() -> None:
        nonlocal committing
        async with place.storage.create("documents/it") as staged:
            await write(staged, data)
            committing = True
            await staged.commit()

    upload = asyncio.create_task(receive())
    await asyncio.sleep(seconds)
    upload.cancel()
    await asyncio.wait([upload])
    expected = [{"it"}] if not upload.cancelled() else [set(), {"it"}] if committing else [set()]
    deadline = time.monotonic() + 5  # what was on its way may arrive after the caller is gone
    while place.leftovers() not in expected and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    assert (left := place.leftovers()) in expected
    assert not left or await read(place.storage, "documents/it") == data


async def test_many_at_once(place):
    keys = {f"documents/{number}": content(PART // 4 * number) for number in range(12)}
    await asyncio.gather(*(store(place.storage, key, data) for key, data in keys.items()))
    found = await asyncio.gather(*(read(place.storage, key) for key in keys))
    assert found == [*keys.values()]
    assert place.leftovers() == {key.removeprefix("documents/") for key in keys}


async def test_stale_files_and_staging(place):
    await store(place.storage, "documents/old", b"old")
    await store(place.storage, "documents/old-and-large", content(PART + 1))
    place.abandon()
    assert await all_stale(place.storage, 60) == set()
    assert len(place.leftovers()) == 3
    await place.age()
    await store(place.storage, "documents/new", b"new")
    async with place.storage.create("documents/late") as late:
        await write(late, content(PART + 1))
        assert await all_stale(place.storage, 1) == {"documents/old", "documents/old-and-large"}
        assert not any("dead" in name for name in place.leftovers())
        await late.commit()
    assert place.leftovers() == {"old", "old-and-large", "new", "late"}


async def test_a_listing_is_sorted_by_key_whole_and_without_what_is_no_file(place, monkeypatch):
    monkeypatch.setattr(local_module, "_SORTED", 7)
    names = [str(UUID(bytes=hashlib.shake_128(b"%d" % n).digest(16))) for n in range(30)] + ["README"]
    assert [batch async for batch in place.storage.listing() if batch] == []
    for size, name in enumerate(names):
        await store(place.storage, f"documents/{name}", content(size))
    await store(place.storage, f"documents/{names[0][:-1]}f", content(PART + 1))
    await place.storage.write_mark("no file")
    place.abandon()
    sizes = {f"documents/{name}": size for size, name in enumerate(names)}
    sizes[f"documents/{names[0][:-1]}f"] = PART + 1
    async with place.storage.create("documents/unfinished") as staged:
        await write(staged, content(PART + 1))
        listed = [each async for batch in place.storage.listing() for each in batch]
    assert [(each.key, each.size) for each in listed] == sorted(sizes.items())
    assert all(each.age < 60 for each in listed)
    await place.age()
    await place.storage.delete(f"documents/{names[3]}")
    listed = [each async for batch in place.storage.listing() for each in batch]
    assert len(listed) == len(sizes) - 1
    assert all(each.age > 60 for each in listed)
    with place.away(), pytest.raises(StorageUnavailable):
        await anext(place.storage.listing())


@pytest.mark.long
async def test_the_mark_is_the_last_one_written_and_no_file(place):
    assert await place.storage.read_mark() is None
    assert await place.storage.sample() == []
    await place.storage.write_mark("first, and longer")
    await place.storage.write_mark("É")
    assert await place.storage.read_mark() == "É"
    await store(place.storage, "documents/it", b"it")
    await place.age()
    assert await place.storage.sample() == ["documents/it"]
    assert await all_stale(place.storage, 1) == {"documents/it"}
    assert await place.storage.read_mark() == "É"
    with place.away():
        for use in (place.storage.read_mark, place.storage.sample, lambda: place.storage.write_mark("lost")):
            with pytest.raises(StorageUnavailable):
                await use()
    assert await place.storage.read_mark() == "É"


async def test_nobody_reads_half_a_mark(storage):
    texts = ["x" * 200, "y" * 200]
    await storage.write_mark(texts[0])

    async def write_on_and_on() -> None:
        for n in range(100):
            await storage.write_mark(texts[n % 2])

    writing = asyncio.create_task(write_on_and_on())
    while not writing.done():
        assert await storage.read_mark() in texts
    await writing


@pytest.mark.long
async def test_memory_does_not_grow_with_the_file(storage):
    process = Path("/proc/self")

    async def take_and_give(size: int) -> int:
        """The most memory that it took, in bytes."""
        await storage.delete("documents/it")
        (process / "clear_refs").write_text("5")
        async with storage.create("documents/it") as staged:
            for _ in range(size // BATCH):
                await staged.write([bytes(BATCH)])
            await staged.inspect(lambda file: file.seek(0, os.SEEK_END))
            await staged.commit()
        async for _ in storage.read("documents/it", 0, size):
            pass
        async with storage.local_copy("documents/it"):
            pass
        (line,) = [each for each in (process / "status").read_text().splitlines() if each.startswith("VmHWM")]
        return int(line.split()[1]) * 1024

    small = max([await take_and_give(3 * PART) for _ in range(2)])
    # An allocator keeps some of what was freed; the file itself would show.
    assert await take_and_give(96 * MEBIBYTE) - small < 48 * MEBIBYTE


async def test_tiny_pieces_take_no_more_memory_than_large_ones(storage):
    async with storage.create("documents/it") as staged:
        tracemalloc.start()
        try:
            for number in range(20_000):
                await staged.write([memoryview(b"%5d" % number)[:1]])
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert (await staged.commit()).size == 20_000
    assert most < MEBIBYTE


async def test_storage_that_is_away_is_unavailable(place):
    await store(place.storage, "documents/it", b"it")
    begun = time.monotonic()
    with pytest.raises(StorageUnavailable):  # noqa: PT012
        async with place.storage.create("documents/other") as staged:
            await write(staged, content(PART + 1))
            with place.away():
                with pytest.raises(StorageUnavailable):
                    await read(place.storage, "documents/it")
                with pytest.raises(StorageUnavailable):
                    await place.storage.check()
                await staged.commit()
    assert time.monotonic() - begun < 12
    await place.storage.check()
    assert await read(place.storage, "documents/it") == b"it"


@asynccontextmanager
async def opened(storage: Storage) -> AsyncIterator[Any]:
    await storage.open()
    try:
        yield storage
    finally:
        await storage.close()


@pytest.mark.usefixtures("aws")
class TestS3:
    async def test_a_frozen_endpoint_fails_the_check_in_time(self, prefix, tmp_path):
        with prefix.seaweed.relay() as relay:
            async with opened(s3_storage(prefix.url(relay.port), tmp_path)) as storage:
                relay.freeze()
                begun = time.monotonic()
                with pytest.raises(StorageUnavailable, match="cannot be reached"):
                    await storage.check()
                assert time.monotonic() - begun < 2

    async def test_an_endpoint_that_is_down_at_start_may_come_back(self, prefix, tmp_path):
        with prefix.seaweed.relay() as relay:
            relay.cut()
            async with opened(s3_storage(prefix.url(relay.port), tmp_path)) as storage:
                with pytest.raises(StorageUnavailable):
                    await storage.check()
                relay.mend()
                await storage.check()

    @pytest.mark.parametrize(
        ("environment", "reason"),
        [
            ({"AWS_ACCESS_KEY_ID": "nobody"}, "the access key is unknown"),
            ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "the secret key is wrong"),
            (READER, "access is denied"),
            (dict.fromkeys(KEY, ""), "AWS_ACCESS_KEY_ID"),
        ],
    )
    async def test_wrong_credentials_are_refused_at_start(self, prefix, tmp_path, monkeypatch, environment, reason):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ConfigurationError, match=reason) as refusal:
            await s3_storage(prefix.url(), tmp_path).open()
        assert "\n" not in str(refusal.value)
        assert str(refusal.value).startswith("STORAGE_URL: ")

    @pytest.mark.parametrize(
        ("variable", "value", "named"),
        [
            ("AWS_CONFIG_FILE", __file__, "AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE"),
            ("AWS_PROFILE", "nobody's", "AWS_PROFILE"),
            ("AWS_DEFAULT_REGION", "-", "AWS_DEFAULT_REGION"),
            ("AWS_CA_BUNDLE", "/nonexistent", "AWS_CA_BUNDLE"),
            ("AWS_CA_BUNDLE", "/dev/null", "AWS_CA_BUNDLE"),
            ("REQUESTS_CA_BUNDLE", "/nonexistent", "AWS_CA_BUNDLE"),
            ("AWS_ENDPOINT_URL", "http://user:secret@minio_1:9000", "AWS_ENDPOINT_URL"),
            ("AWS_DEFAULTS_MODE", "none", "InvalidDefaultsMode"),
        ],
    )
    async def test_settings_that_no_client_can_be_made_with_are_refused_at_start(
        self, tmp_path, monkeypatch, variable, value, named
    ):
        monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
        monkeypatch.setenv(variable, value)
        with pytest.raises(ConfigurationError, match=named) as refusal:
            await s3_storage(f"s3://{BUCKET}", tmp_path).open()
        assert "\n" not in str(refusal.value)
        assert "secret" not in str(refusal.value)

    async def test_a_missing_bucket_is_refused_at_start(self, prefix, tmp_path):
        with pytest.raises(ConfigurationError, match="no-such-bucket: the bucket does not exist"):
            await s3_storage(prefix.url().replace(BUCKET, "no-such-bucket"), tmp_path).open()

    @pytest.mark.parametrize("size", [100, PART + 100])
    async def test_bytes_that_change_on_the_way_are_refused(self, prefix, tmp_path, monkeypatch, size):
        async def wrong(*_):
            return "AAAAAAAAAAAAAAAAAAAAAA=="

        monkeypatch.setattr(S3Staged, "_md5", wrong)
        async with opened(s3_storage(prefix.url(), tmp_path)) as storage:
            with pytest.raises(StorageUnavailable):
                await store(storage, "documents/it", content(size))
        assert (prefix.objects(), prefix.uploads()) == ({}, [])

    async def test_what_took_too_long_is_not_committed(self, prefix, tmp_path):
        """S3 would date it by its beginning, and upkeep take it for an orphan."""
        async with opened(s3_storage(prefix.url(), tmp_path, longest=0)) as storage:
            with pytest.raises(StorageUnavailable):
                await store(storage, "documents/it", content(PART + 1))
        assert (prefix.objects(), prefix.uploads()) == ({}, [])

    async def test_slow_storage_ends_an_inspection(self, prefix, tmp_path, monkeypatch):
        read = objects.Objects.read

        async def trickle(self, key, start, length):
            for at in range(start, start + length, 1024):
                async for chunk in read(self, key, at, 1024):
                    await asyncio.sleep(0.05)
                    yield chunk

        async with opened(s3_storage(prefix.url(), tmp_path)) as storage:
            async with storage.create("documents/it") as staged:
                await write(staged, content(PART + 1))
                monkeypatch.setattr(objects.Objects, "read", trickle)
                monkeypatch.setattr(staged_module, "REQUEST_TIMEOUT", 0.3)
                with pytest.raises(StorageUnavailable):
                    await staged.inspect(lambda file: file.read())
            assert len(asyncio.all_tasks()) == 1
        assert (prefix.objects(), prefix.uploads()) == ({}, [])

    async def test_a_lost_answer_to_the_last_step_leaves_nothing(self, prefix, tmp_path, monkeypatch):
        """AWS then says of the upload that there is none."""
        call = objects.Objects.call

        async def lossy(self, operation, key, **params):
            if operation == "abort_multipart_upload":
                raise StorageUnavailable
            answer = await call(self, operation, key, **params)
            if operation == "complete_multipart_upload":
                raise StorageUnavailable
            return answer

        monkeypatch.setattr(objects.Objects, "call", lossy)
        async with opened(s3_storage(prefix.url(), tmp_path)) as storage:
            with pytest.raises(StorageUnavailable):
                await store(storage, "documents/it", content(PART + 1))
        assert (prefix.objects(), prefix.uploads()) == ({}, [])

    async def test_what_lies_beside_our_folder_is_nobodys_to_sweep_or_to_write_to(self, prefix, tmp_path, monkeypatch):
        monkeypatch.setattr(s3_module, "age", lambda *_: 86400.0)
        prefix.put("probe", b"somebody's")
        prefix.put("backups/01939f3e-5c00-7000-8000-0000000000ff", b"somebody's")
        prefix.put("documents-too/it", b"somebody's")
        prefix.begin("backups/dump")
        async with opened(s3_storage(prefix.url(), tmp_path)) as storage:
            await store(storage, "documents/it", b"it")
            assert await all_stale(storage, 60) == {"documents/it"}
        assert len(prefix.objects()) == 4
        assert prefix.uploads() == ["backups/dump"]

    async def test_what_tries_a_bucket_at_a_start_is_no_file(self, prefix, tmp_path, monkeypatch):
        """Another process, which starts meanwhile, would take it for one that its database does not have."""
        call, seen = vars(AioBaseClient)["_make_api_call"], []
        other = s3_storage(prefix.url(), tmp_path / "other")

        async def looked_at(self, operation, params):
            if operation == "DeleteObject":
                seen.append((await other.sample(), [*prefix.objects()]))
                raise ClientError({"Error": {"Code": "SlowDown"}}, operation)
            return await call(self, operation, params)

        async with opened(other):
            monkeypatch.setattr(AioBaseClient, "_make_api_call", looked_at)
            async with opened(s3_storage(prefix.url(), tmp_path)):
                monkeypatch.setattr(AioBaseClient, "_make_api_call", call)
            (sampled, left), *_ = seen
            assert (sampled, len(left)) == ([], 1)
        async with opened(other) as storage:  # the next start removes what was left
            assert (await storage.sample(), prefix.objects()) == ([], {})

    async def test_orphans_are_found_though_uploads_cannot_be_listed(self, prefix, tmp_path, monkeypatch):
        pages = objects.Objects.pages

        def denied(self, operation):
            if operation == "list_multipart_uploads":
                raise StorageUnavailable
            return pages(self, operation)

        monkeypatch.setattr(objects.Objects, "pages", denied)
        async with opened(s3_storage(prefix.url(), tmp_path)) as storage:
            await store(storage, "documents/it", b"it")
            monkeypatch.setattr(s3_module, "age", lambda *_: 86400.0)
            stale = storage.stale(60)
            assert await anext(stale) == ["documents/it"]
            with pytest.raises(StorageUnavailable):
                await anext(stale)

    async def test_uploads_that_may_not_be_listed_are_refused_at_start(self, prefix, tmp_path, monkeypatch):
        call = vars(AioBaseClient)["_make_api_call"]

        async def denied(self, operation, params):
            if operation == "ListMultipartUploads":
                raise ClientError({"Error": {"Code": "AccessDenied"}}, operation)
            return await call(self, operation, params)

        monkeypatch.setattr(AioBaseClient, "_make_api_call", denied)
        with pytest.raises(ConfigurationError, match=r"access is denied \(ListMultipartUploads\)"):
            await s3_storage(prefix.url(), tmp_path).open()
        assert prefix.objects() == {}

    async def test_a_copy_on_a_full_disk(self, prefix, tmp_path, monkeypatch):
        async with opened(s3_storage(prefix.url(), tmp_path)) as storage:
            await store(storage, "documents/it", b"it")
            monkeypatch.setattr(s3_module, "NamedTemporaryFile", lambda **_: BufferedWriter(FileIO("/dev/full", "wb")))
            with pytest.raises(StorageFull):
                async with storage.local_copy("documents/it"):
                    pass

    async def test_copies_that_a_dead_process_left_are_removed(self, prefix, tmp_path):
        async with opened(s3_storage(prefix.url(), tmp_path)) as storage:
            await store(storage, "documents/it", b"it")
            async with storage.local_copy("documents/it") as kept:
                left = tmp_path / "copies" / "left"
                left.touch()
                for path in (kept, left):
                    os.utime(path, (0, 0))
                await all_stale(storage, 60)
                assert [*(tmp_path / "copies").iterdir()] == [kept]


@pytest.mark.usefixtures("aws")
async def test_notes_are_kept_once_and_are_no_files(prefix, tmp_path):
    storage = s3_storage(prefix.url(), tmp_path)
    await storage.open()
    for name, text in (("audit/b/2.json", "second"), ("audit/a/1.json", "first"), ("audit/a/1.json", "other")):
        await storage.write_note(name, text)
    assert [text async for text in storage.notes("audit")] == ["first", "second"]
    assert [text async for text in storage.notes("audit", "b")] == ["second"]
    assert await storage.sample() == []
    assert await all_stale(storage, -60) == set()
    await storage.close()
