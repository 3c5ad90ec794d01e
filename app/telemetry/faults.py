"""Points at which a test can kill the process, to prove that nothing is lost there. No-ops unless one is armed."""

import os
import signal
from typing import Literal, get_args

Point = Literal[
    "upload.after_temp",
    "upload.after_rename",
    "upload.after_commit",
    "initiate.after_commit",
    "put.after_link",
    "complete.before_commit",
    "complete.after_commit",
    "replace.after_copy",
    "replace.in_transaction",
    "replace.after_commit",
    "delete.after_commit",
    "process.in_transaction",
    "process.after_commit",
    "batch.after_part",
    "bulk.after_part",
    "job.before_claim",
    "job.after_claim",
    "job.midway",
    "result.after_store",
    "output.after_store",
    "outputs.before_publish",
    "stage.after_run",
    "stage.after_commit",
    "finish.before_commit",
    "finish.after_commit",
    "fail.after_last_try",
    "rescue.midway",
    "refresh.after_commit",
    "migration.each_step",
    "shutdown.draining",
    "shutdown.release",
    "deliver.after_claim",
    "deliver.after_send",
    "transfer.after_batch",
    "transfer.after_file",
    "backup.after_database",
    "backup.after_file",
    "restore.after_file",
    "restore.after_database",
    "inbox.after_reason",
    "inbox.after_copy",
]
POINTS: tuple[Point, ...] = get_args(Point)

_armed: dict[str, int] = {}


def arm(point: str, nth: int) -> None:
    """Kill the process at the n-th hit of the point."""
    _armed[point] = nth


def hit(point: Point) -> None:
    """Kill the process, without cleaning up, if this is the hit that was armed."""
    if point not in _armed:
        return
    _armed[point] -= 1
    if _armed[point] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
