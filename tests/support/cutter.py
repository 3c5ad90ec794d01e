"""A worker elsewhere as a process of its own: `python -m tests.support.cutter URL KEY NAME` cuts documents for ever."""

import sys
import time

from tests.support.elsewhere import Insistent, Worker

CHILDREN = 2
SECONDS = 0.2  # for each part


def main(url: str, key: str, name: str) -> None:
    worker = Worker(Insistent(url), key, name)
    while True:
        if worker.claim("cut", wait=1).status_code == 200:
            cut(worker)


def cut(worker: Worker) -> None:
    """Do the job that it holds, and complete it twice, whoever holds it by then."""
    for number in range(CHILDREN):
        time.sleep(SECONDS)
        worker.send(number, document="true")
    for _ in range(2):
        worker.complete({"parts": 1}, [{"number": number} for number in range(CHILDREN)])


if __name__ == "__main__":
    main(*sys.argv[1:])
