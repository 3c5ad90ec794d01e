"""The filter of system calls, on both machines, and what is said and done on a kernel that has less."""

import errno
import os
import struct
from pathlib import Path

import pytest
from pydantic import BaseModel

from app.processors import confined, sandbox
from app.processors.base import Transient
from app.processors.child import ConfinedChild
from app.processors.confined import PROGRAM
from app.processors.sandbox import landlock, seccomp
from tests.support.taken_over import CALLS
from tests.unit.test_text_processor import linux_only

PID = 4711
ALLOWED, REFUSED, KILLED = seccomp.ALLOW, seccomp.REFUSE, seccomp.KILL_PROCESS
OPENAT, TGKILL, READ = (257, 56), (234, 131), (0, 63)
SOCKET, CONNECT, KILL, CLONE, UNLINKAT = (41, 198), (42, 203), (62, 129), (56, 220), (263, 35)
FLAGS = {
    os.O_RDONLY | os.O_CLOEXEC: ALLOWED,
    os.O_WRONLY: REFUSED,
    os.O_RDWR: REFUSED,
    os.O_CREAT: REFUSED,
    os.O_TRUNC: REFUSED,
    0o20000000: REFUSED,
    0o10000000: REFUSED,
}


def decision(
    machine: str, numbers: tuple[int, int], *arguments: int, architecture: int | None = None, **more: bool
) -> int:
    """What the kernel does at a call: its machine for the programs of seccomp, as far as the filter uses it."""
    column = list(seccomp.ARCHITECTURES).index(machine)
    words = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("iIQ6Q", numbers[column], architecture or seccomp.ARCHITECTURES[machine], 0, *words)
    program = list(struct.iter_unpack("HBBI", seccomp.program(machine, PID, **more)))
    loaded = at = 0
    while True:
        code, if_true, if_false, operand = program[at]
        at += 1
        match code:
            case 0x20:
                [loaded] = struct.unpack_from("I", data, operand)
            case 0x15:
                at += if_true if loaded == operand else if_false
            case 0x45:
                at += if_true if loaded & operand else if_false
            case 0x06:
                return operand


@pytest.fixture(params=seccomp.ARCHITECTURES)
def machine(request: pytest.FixtureRequest) -> str:
    return request.param


def test_reading_is_allowed(machine: str) -> None:
    assert decision(machine, READ) == ALLOWED


@pytest.mark.parametrize(("flags", "expected"), FLAGS.items())
def test_files_are_opened_for_reading_only(machine: str, flags: int, expected: int) -> None:
    assert decision(machine, OPENAT, 0, 0, flags) == expected
    assert decision(machine, OPENAT, 0, 0, flags | 1 << 32) == expected, "the kernel ignores the upper half"


def test_signals_go_to_itself_only(machine: str) -> None:
    assert decision(machine, TGKILL, PID) == ALLOWED
    assert decision(machine, TGKILL, PID + 1) == REFUSED


@pytest.mark.parametrize(
    "numbers", [SOCKET, CONNECT, KILL, CLONE, UNLINKAT, *(each[:2] for each in CALLS.values())], ids=str
)
def test_all_else_is_refused(machine: str, numbers: tuple[int, int]) -> None:
    assert decision(machine, numbers) == REFUSED


class TestThreads:
    def test_a_thread_is_no_process(self, machine: str) -> None:
        thread, vfork = 0x3D0F00, 0x4111  # the flags that C libraries start them with
        assert decision(machine, CLONE, thread, threads=True) == ALLOWED
        assert decision(machine, CLONE, thread) == REFUSED, "without being asked for"
        assert decision(machine, CLONE, vfork, threads=True) == REFUSED

    def test_clone3_is_unknown_and_not_refused(self, machine: str) -> None:
        assert decision(machine, seccomp.CLONE3, threads=True) == seccomp.UNKNOWN

    def test_sockets_are_pairs_and_descriptors_copies(self, machine: str) -> None:
        internet, f_setown = 2, 8
        assert decision(machine, seccomp.SOCKETPAIR, seccomp.AF_UNIX, threads=True) == ALLOWED
        assert decision(machine, seccomp.SOCKETPAIR, internet, threads=True) == REFUSED
        assert decision(machine, seccomp.FCNTL, 3, seccomp.F_DUPFD_CLOEXEC, threads=True) == ALLOWED
        assert decision(machine, seccomp.FCNTL, 3, f_setown, threads=True) == REFUSED

    @pytest.mark.parametrize("numbers", [SOCKET, CONNECT, KILL, UNLINKAT], ids=str)
    def test_all_else_is_refused(self, machine: str, numbers: tuple[int, int]) -> None:
        assert decision(machine, numbers, threads=True) == REFUSED


class TestExecuting:
    def test_it_may_become_a_program(self, machine: str) -> None:
        assert decision(machine, CALLS["execve"][:2], executing=True) == ALLOWED
        assert decision(machine, CALLS["execve"][:2], threads=True) == REFUSED, "without being asked for"

    def test_of_the_thread_s_registers_a_program_sets_one(self) -> None:
        set_gs = 0x1001
        assert decision("x86_64", seccomp.ARCH_PRCTL, seccomp.ARCH_SET_FS, executing=True) == ALLOWED
        assert decision("x86_64", seccomp.ARCH_PRCTL, set_gs, executing=True) == REFUSED
        assert decision("x86_64", seccomp.ARCH_PRCTL, seccomp.ARCH_SET_FS) == REFUSED

    @pytest.mark.parametrize("numbers", [SOCKET, CONNECT, KILL, UNLINKAT, CLONE, CALLS["execveat"][:2]], ids=str)
    def test_all_else_is_refused(self, machine: str, numbers: tuple[int, int]) -> None:
        assert decision(machine, numbers, executing=True) == REFUSED


def test_calls_of_other_architectures(machine: str) -> None:
    assert decision(machine, READ, architecture=0x40000003) == KILLED, "i386"
    x32 = 0x40000000
    assert decision(machine, (x32, x32 + 63)) == REFUSED


class Found(BaseModel):
    outcome: str


READER = """
import json
def main(task):
    try:
        outcome = open(task["path"]).read()
    except OSError as error:
        outcome = type(error).__name__
    print(json.dumps({"result": {"outcome": outcome}}), flush=True)
"""


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Has a child try to read a file, if these paths are readable; returns the text or the error."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "reader.py").write_text(READER)
    monkeypatch.syspath_prepend(tmp_path / "code")

    async def read(path: Path, *readable: Path) -> str:
        reading = ConfinedChild(name="reader", module="reader", result=Found, readable=readable)
        found = await reading.run(path, {"path": str(path)}, lambda _: None, max_line=1000)
        return found.outcome

    return read


@linux_only
async def test_a_child_reads_what_it_is_given(tmp_path: Path, reader) -> None:
    ours, theirs = tmp_path / "ours" / "file", tmp_path / "theirs"
    ours.parent.mkdir()
    ours.write_text("ours")
    theirs.write_text("theirs")
    assert await reader(ours, ours.parent) == "ours"
    assert await reader(theirs, theirs) == "theirs"
    assert await reader(theirs, ours.parent, tmp_path / "missing") == "PermissionError"


STARTER = """
import json, os, threading
def main(task):
    outcomes = []
    def work():
        try:
            open(task["path"])
        except OSError as error:
            outcomes.append(type(error).__name__)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    except RuntimeError:
        outcomes.append("no thread")
    try:
        os.fork()
    except OSError:
        outcomes.append("no process")
    print(json.dumps({"result": {"outcome": ", ".join(outcomes)}}), flush=True)
"""


@linux_only
@pytest.mark.parametrize(
    ("threads", "outcome"), [(False, "no thread, no process"), (True, "PermissionError, no process")]
)
async def test_threads_are_confined_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: str, *, threads: bool
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "starter.py").write_text(STARTER)
    monkeypatch.syspath_prepend(tmp_path / "code")
    path = tmp_path / "document"
    path.touch()
    starting = ConfinedChild(name="starter", module="starter", result=Found)
    found = await starting.run(path, {"path": str(path)}, lambda _: None, max_line=1000, threads=threads)
    assert found.outcome == outcome


@linux_only
@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
async def test_an_older_landlock(tmp_path: Path, reader, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """What it does not know is not asked of it, and it keeps from files what it can."""
    older = f"sandbox.landlock.abi = lambda: min({version}, {landlock.abi()}); sandbox.main()"
    monkeypatch.setattr(confined, "PROGRAM", PROGRAM.replace("sandbox.main()", older))
    path = tmp_path / "file"
    path.touch()
    assert await reader(path) == "PermissionError"


@linux_only
def test_what_an_older_landlock_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def call(number: int, *arguments: int | bytes | None) -> int:
        if number == landlock.CREATE_RULESET:
            asked[version] = struct.unpack("QQQ", arguments[0])
        return os.open("/", os.O_PATH)

    monkeypatch.setattr(landlock, "_call", call)
    for version in (1, 2, 3, 4, 5, 6, 7):
        monkeypatch.setattr(landlock, "abi", lambda version=version: version)
        landlock.restrict([])
    bits = {version: [each.bit_count() for each in attributes] for version, attributes in asked.items()}
    assert bits == {
        1: [13, 0, 0],
        2: [14, 0, 0],
        3: [15, 0, 0],
        4: [15, 2, 0],
        5: [16, 2, 0],
        6: [16, 2, 2],
        7: [16, 2, 2],
    }


@linux_only
async def test_a_guard_that_fails_fails_the_attempt(tmp_path: Path, reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is parsed by a child that could not be confined as this kernel allows."""
    broken = "sandbox.landlock.RESTRICT_SELF = -1; sandbox.main()"
    monkeypatch.setattr(confined, "PROGRAM", PROGRAM.replace("sandbox.main()", broken))
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(Transient, match="ended"):
        await reader(path)


@linux_only
class TestMissing:
    def test_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(landlock, "abi", lambda: 1)
        monkeypatch.setattr(seccomp, "unavailable", lambda: None)
        assert sandbox.missing() is None

    def test_everything(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(landlock, "CREATE_RULESET", -1)
        monkeypatch.setattr(seccomp, "ARCHITECTURES", {})
        said = sandbox.missing()
        machine, reason = os.uname().machine, os.strerror(errno.ENOSYS)
        assert (
            said == f"Landlock is not available: {reason}; seccomp is not available: there is no filter for {machine}"
        )

    def test_an_old_landlock_without_seccomp(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(landlock, "abi", lambda: 2)
        monkeypatch.setattr(seccomp, "unavailable", lambda: "masked")
        said = sandbox.missing()
        assert said is not None
        assert said.endswith("masked; Landlock's ABI is 2; truncating, TCP and signals are all restricted from 6 on")
