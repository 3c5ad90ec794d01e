"""What an attack costs another account: `python -m tests.benchmarks.attacks [NAME …]`, by hand.

The bound: at most twice what each operation takes in peace, or 50 ms if that is more; at most 100 MB of memory; and in
peace again within two seconds of the attacker's leaving.
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.flows.test_attacks import ACCOUNTS, STRANGERS, attacking, document_of
from tests.support.server import Server
from tests.support.victim import OPERATIONS, Victim, memory

FLOOR = 0.05  # seconds
SECONDS = 10.0


def main(names: list[str]) -> None:
    """Print a table: the p99 of each operation in ms, in peace, during the attack, and two seconds after it."""
    sys.stdout.write("| attack | " + " | ".join(OPERATIONS) + " | memory, MB | within bounds |\n")
    sys.stdout.write("|---|" + "---|" * (len(OPERATIONS) + 2) + "\n")
    for name in names or (*STRANGERS, *ACCOUNTS):
        with tempfile.TemporaryDirectory() as folder, Server(Path(folder) / "var") as server:
            sys.stdout.write(_row(name, server) + "\n")
            sys.stdout.flush()


def _row(name: str, server: Server) -> str:
    victim = Victim(server)
    attacker = server.register() if name in ACCOUNTS else None
    document_id = document_of(attacker) if attacker and name == "slow_downloads" else ""
    before, used = victim.slowest(SECONDS), memory(server)
    with attacking(name, server, attacker, document_id):
        during, grown = victim.slowest(SECONDS), (memory(server) - used) / 1e6
    time.sleep(2)
    after = victim.slowest(SECONDS / 2)
    good = grown < 100 and all(max(during[k], after[k]) <= max(FLOOR, 2 * before[k]) for k in before)
    cells = (" / ".join(f"{each[k] * 1000:.0f}" for each in (before, during, after)) for k in OPERATIONS)
    return f"| {name} | {' | '.join(cells)} | {grown:.0f} | {'yes' if good else '**no**'} |"


if __name__ == "__main__":
    main(sys.argv[1:])
