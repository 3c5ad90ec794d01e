"""Run the command line: python -m app."""

import gc
import sys

from app.client.commands import client
from app.server.signals import exit_at_once


def run() -> None:
    exit_at_once(serving=sys.argv[1:2] in (["serve"], ["worker"]))
    if sys.argv[1:2] == ["client"]:  # which needs nothing of the service, whose import takes a second
        client(sys.argv[2:], prog_name="python -m app client")
    # What is imported lives as long as the process. Searching it for garbage takes 0.17 s of the start, and 80 ms in
    # each full collection.
    gc.disable()
    from app.cli import main  # noqa: PLC0415 - see above

    gc.freeze()
    gc.enable()
    main()


if __name__ == "__main__":
    run()
