"""What became of the files and their jobs: the lines of a report, and the summary."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, TextIO


class Outcome(StrEnum):
    """What became of a file. Those that the service says no to are REFUSED; all else that went wrong is FAILED."""

    UPLOADED = "uploaded"
    ALREADY_THERE = "already there"
    REFUSED = "refused"
    FAILED = "failed"
    SKIPPED = "skipped"


_UNFINISHED = {"QUEUED", "RUNNING", "WAITING"}


@dataclass
class FileReport:
    """What became of one file. `code` and `detail` say why it was refused, failed or skipped, or why its job failed."""

    path: str
    outcome: Outcome
    code: str = ""
    detail: str = ""
    sha256: str = ""
    document_id: str = ""
    job_id: str = ""
    job_state: str = ""

    def set_job(self, job: dict[str, Any]) -> None:
        """Note the state of its job, as the API shows it."""
        self.job_id, self.job_state = job["id"], job["state"]
        if error := job.get("error"):
            self.code, self.detail = error["code"], error["detail"]

    @property
    def has_unfinished_job(self) -> bool:
        return self.job_state in _UNFINISHED

    @property
    def went_wrong(self) -> bool:
        """Whether the file is not there, or its job has ended without success."""
        lost = self.outcome in {Outcome.REFUSED, Outcome.FAILED}
        return lost or self.job_state not in {"", "SUCCEEDED", *_UNFINISHED}

    def __str__(self) -> str:
        what = f"{self.outcome}, {self.job_state}" if self.job_state else str(self.outcome)
        why = " ".join(each for each in (self.code and f"{self.code}:", self.detail) if each)
        return printable(f"{what}: {self.path}" + (f": {why}" if why else ""))


@dataclass
class Summary:
    """How many files had which outcome, and how many jobs which end."""

    files: Counter[Outcome] = field(default_factory=Counter)
    jobs: Counter[str] = field(default_factory=Counter)
    wrong: int = 0

    def add(self, file: FileReport) -> None:
        """Count a file about which nothing more will be known."""
        self.files[file.outcome] += 1
        self.wrong += file.went_wrong
        if file.job_state:
            because = f" ({file.code})" if file.code and file.job_state == "FAILED" else ""
            self.jobs["unfinished" if file.has_unfinished_job else f"{file.job_state.lower()}{because}"] += 1

    def __str__(self) -> str:
        lines = ["Files: " + ", ".join(f"{self.files[each]} {each}" for each in Outcome)]
        if self.jobs:
            lines.append("Jobs: " + ", ".join(f"{count} {name}" for name, count in sorted(self.jobs.items())))
        return printable("\n".join(lines))


def write_line(out: TextIO, file: FileReport) -> None:
    """Write a file's line of the report: one JSON object, without what there is nothing to say of."""
    known = {name: value for name, value in asdict(file).items() if value}
    out.write(json.dumps(known) + "\n")


def printable(text: str) -> str:
    """The text without what could steer a terminal: names of files may hold anything."""
    return "".join(each if each.isprintable() or each == "\n" else "\N{REPLACEMENT CHARACTER}" for each in text)
