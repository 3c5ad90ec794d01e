"""Files of log lines: whole lines from any number of processes, whatever becomes of the file."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from app.telemetry.streams import LogFile

WRITE = """
import sys
from pathlib import Path
from app.telemetry.streams import LogFile

file = LogFile(Path(sys.argv[1]), str)
for number in range(int(sys.argv[3])):
    file.write(f"{sys.argv[2]} {number} {'x' * (number % 5000)}.\\n")
"""
FULL = """
import resource, sys
from pathlib import Path
from app.telemetry.streams import LogFile

file = LogFile(Path(sys.argv[1]), lambda error: f"{error.strerror}\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (25, -1))
for number in range(4):
    file.write(f"line {number} abc\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
file.write("line 4\\n")
"""
PROCESSES, LINES = 3, 5000


def lines(*files: Path) -> list[str]:
    return [line for file in files for line in file.read_text().splitlines()]


def test_whole_lines_of_several_processes_while_the_file_is_moved_away(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", []
    command = [sys.executable, "-c", WRITE, path]
    writers = [subprocess.Popen([*command, str(number), str(LINES)]) for number in range(PROCESSES)]
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            moved.append(path.rename(tmp_path / str(len(moved))))
    assert [writer.returncode for writer in writers] == [0] * PROCESSES
    written = Counter(lines(*moved, *tmp_path.glob("log")))
    expected = [f"{each} {n} {'x' * (n % 5000)}." for each in range(PROCESSES) for n in range(LINES)]
    assert written == Counter(expected)


def rename(path: Path) -> None:
    path.rename(path.with_suffix(".1"))


def rename_and_begin_another(path: Path) -> None:
    rename(path)
    LogFile(path, str).write("by another process\n")


@pytest.mark.parametrize("away", [Path.unlink, rename, rename_and_begin_another])
def test_a_new_file_is_begun_within_a_second(away: Callable[[Path], object], tmp_path: Path) -> None:
    file, path = LogFile(tmp_path / "log", str), tmp_path / "log"
    with patch("time.monotonic", lambda: clock):
        clock = 10.0
        file.write("1\n")
        away(path)
        clock = 10.9
        file.write("2\n")
        assert not path.exists() or "2" not in lines(path), "it is looked at once a second: not for each line"
        clock = 11.0
        file.write("3\n")
    assert lines(path)[-1] == "3"


def test_text_that_is_no_text(tmp_path: Path) -> None:
    LogFile(tmp_path / "log", str).write("a\udcffö\n")
    assert (tmp_path / "log").read_bytes() == "a\\udcffö\n".encode()


@pytest.mark.parametrize("mask", [0, 0o077])
def test_the_group_reads_every_new_file_and_nobody_else(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    LogFile(tmp_path / "log", str).write("1\n")
    os.umask(before)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o640


def test_what_somebody_else_made_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "log").touch(0o600)
    LogFile(tmp_path / "log", str).write("1\n")
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_a_line_that_does_not_fit_leaves_no_part(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path / "log"], capture_output=True, text=True, check=True)
    assert lines(tmp_path / "log") == ["line 0 abc", "line 1 abc", "line 4"]
    assert done.stderr.splitlines() == ["No space left on device", "line 2 abc", "line 3 abc"]


def test_the_reason_is_told_once_a_minute(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = LogFile(tmp_path / "missing" / "log", lambda error: f"{error.strerror}\n")
    with patch("time.monotonic", lambda: clock):
        for clock in (100.0, 159.0, 160.0):
            file.write(f"{clock}\n")
    reason = "No such file or directory"
    assert capsys.readouterr().err.splitlines() == [reason, "100.0", "159.0", reason, "160.0"]
    (tmp_path / "missing").mkdir()
    file.write("again\n")
    assert lines(tmp_path / "missing" / "log") == ["again"]
