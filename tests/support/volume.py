"""A small disk that can run full and turn read-only, without any privileges where the kernel allows namespaces."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import pytest

MOUNT = 'mount -t tmpfs -o size="$1" tmpfs "$0" && echo mounted && exec cat'
PAGE = 4096


class Volume:
    """A tmpfs at `path`, mounted in a namespace of its own: there for commands run by `prefix`, until it is left."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size

    @property
    def prefix(self) -> tuple[str, ...]:
        """Runs a command in the namespace."""
        return ("nsenter", f"--target={self._holder.pid}", "--user", "--mount", "--preserve-credentials", "--wd")

    @property
    def seen(self) -> Path:
        """Where the volume is for everybody else."""
        return Path(f"/proc/{self._holder.pid}/root{self._path}")

    @contextmanager
    def full(self, leaving: int = 0) -> Iterator[None]:
        """Not one more page fits, but for so many bytes."""
        filler = self.seen / "filler"
        with filler.open("wb", buffering=0) as file:
            with suppress(OSError):
                while True:
                    file.write(bytes(PAGE))
            file.truncate(file.tell() - leaving)
        yield
        filler.unlink()

    def remount(self, mode: Literal["ro", "rw"]) -> None:
        remount = ["mount", "-t", "tmpfs", "-o", f"remount,{mode}", "tmpfs", str(self._path)]
        subprocess.run([*self.prefix, *remount], check=True)

    def __enter__(self) -> Self:
        self._path.mkdir(parents=True)
        command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNT, self._path, str(self._size)]
        try:
            # It holds the namespace until its input ends, which it does with this process at the latest.
            self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except FileNotFoundError:
            pytest.skip("no namespaces without Linux and util-linux")
        if not self._holder.stdout.readline():
            self.__exit__(None, None, None)
            pytest.skip("nothing can be mounted here: unprivileged user namespaces are not allowed")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._holder.communicate()
