"""What code can try that a document has made its parser run. Runs as the module of a `ConfinedChild`.

The document says in a comment what to try it on: see `document`.
"""

import ctypes
import errno
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

COMMENT = b"%TARGETS"
PTRACE_SEIZE = 0x4206
AT_FDCWD, O_PATH = -100, 0o10000000
F_SETOWN = 8
# Raw calls: the numbers on x86_64 and on aarch64, and arguments with which none does any harm.
CALLS: Mapping[str, tuple[int, int, tuple[object, ...]]] = {
    "io_uring_setup": (425, 425, (0, None)),
    "mount": (165, 40, (None, None, None, 0, None)),
    "keyctl": (250, 219, (0, -3, 0)),
    "personality": (135, 92, (0xFFFFFFFF,)),
    "memfd_create": (319, 279, (b"", 0)),
    "userfaultfd": (323, 282, (1,)),
    "bpf": (321, 280, (0, None, 0)),
    "perf_event_open": (298, 241, (None, 0, 0, -1, 0)),
    "unshare": (272, 97, (0,)),
    "shmget": (29, 194, (0, 0, 0)),
    "clone3": (435, 435, (None, 0)),
    "openat2": (437, 437, (AT_FDCWD, b"/", None, 0)),
    "execve": (59, 221, (b"/nowhere", None, None)),
    "execveat": (322, 281, (AT_FDCWD, b"/nowhere", None, None, 0)),
    "prctl": (157, 167, (3, 0, 0, 0, 0)),
    "prlimit64": (302, 261, (0, 0, None, None)),
    "fcntl": (72, 25, (0, F_SETOWN, 0)),
    "ioctl": (16, 29, (0, 0x5401, None)),
}

# An Extract in which there is nothing.
NOTHING: Mapping[str, Any] = {
    "engine": "pdfium",
    "pages": None,
    "plain_pages": [],
    "page_count": None,
    "words": 0,
    "truncated": False,
    "form": [],
    "language": None,
    "metadata": {},
}


def document(**targets: object) -> bytes:
    """A PDF, as far as the server looks, that says what to try it on."""
    return b"%PDF-1.7\n" + COMMENT + json.dumps(targets).encode() + b"\ntrailer\n<<>>\nstartxref\n0\n%%EOF\n"


def main(_: Mapping[str, Any]) -> None:
    """Print, as a result's text, what became of each attempt: `yes`, or the error."""
    [comment] = [line for line in sys.stdin.buffer if line.startswith(COMMENT)]
    outcomes = {name: outcome(attempt) for name, attempt in attempts(**json.loads(comment[len(COMMENT) :])).items()}
    for line in {"text": json.dumps(outcomes)}, {"result": NOTHING}:
        sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except KeyError as error:
        return type(error).__name__
    return "yes"


def attempts(folder: str, port: int, abstract: str) -> dict[str, Callable[[], object]]:
    """What to try, by name.

    `folder` is of the server's data and has the files `secret` and `victim`; `port` and `abstract` are of sockets that
    listen.
    """
    parent = os.getppid()
    ours, secret = Path(folder), Path(folder, "secret")
    return {
        "own environment": lambda: os.environ["JWT_SECRET"],
        "parent's environment": lambda: Path(f"/proc/{parent}/environ").read_bytes(),
        "parent's memory": lambda: Path(f"/proc/{parent}/mem").open("rb"),
        "read": secret.read_bytes,
        "read passwd": lambda: Path("/etc/passwd").read_bytes(),
        "list": lambda: next(ours.iterdir()),
        "open as a path": lambda: os.open(secret, O_PATH),
        "create": (ours / "created").touch,
        "overwrite": lambda: secret.open("r+b"),
        "truncate": lambda: os.truncate(secret, 1),
        "rename": lambda: secret.rename(ours / "created"),
        "link": lambda: (ours / "link").symlink_to("/"),
        "mkdir": (ours / "folder").mkdir,
        "chmod": lambda: ours.chmod(0o700),
        "delete": (ours / "victim").unlink,
        "TCP": lambda: socket.create_connection(("127.0.0.1", port), 5),
        "TCP server": lambda: socket.create_server(("127.0.0.1", 0)),
        "UDP": lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"", ("127.0.0.1", 9)),
        "abstract socket": lambda: socket.socket(socket.AF_UNIX).connect(f"\0{abstract}"),
        "signal": lambda: os.kill(parent, 0),
        "ptrace": lambda: call((101, 117), PTRACE_SEIZE, parent, None, None),
        "pidfd": lambda: os.pidfd_open(parent),
        "setuid": lambda: os.setuid(os.getuid()),
        "fork": fork,
        "run a program": lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0),
        **{name: lambda each=each: call(each[:2], *each[2]) for name, each in CALLS.items()},
    }


def fork() -> None:
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)


def call(numbers: tuple[int, int], *arguments: Any) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    if libc.syscall(ctypes.c_long(numbers[os.uname().machine == "aarch64"]), *words) == -1:
        raise OSError(ctypes.get_errno(), "")
