"""How long each page of the console takes to its first byte, with 100,000 documents of a day: `make pages`.

They belong to the account whose pages are asked for. TEST_DATABASE_URL names a PostgreSQL server to measure on that.
"""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from unittest.mock import patch
from uuid import UUID

import httpx2

from tests.benchmarks import growth_rows
from tests.benchmarks.servers import say
from tests.support import databases, exhibition
from tests.support.server import Server
from tests.support.user import PASSWORD, User

DOCUMENTS = 100_000
ROUNDS = 30


def main():
    with TemporaryDirectory(prefix="pages-") as folder, Server(Path(folder) / "var", exhibition.SETTINGS) as server:
        shown = exhibition.prepare(server)
        owner = UUID(shown.user.http.get("/auth/me").json()["id"])
        server.stop()
        with patch.object(growth_rows, "BEGIN", datetime.now(UTC) - timedelta(seconds=DOCUMENTS)):
            growth_rows.fill(databases.engine(server.data_dir), owner.hex, range(DOCUMENTS))
        server.start()
        say("page", "median and longest, ms")
        for person, paths in ((shown.user, shown.of_user), (shown.operator, shown.of_operator)):
            _measure(_signed_in(server, person), paths)


def _signed_in(server: Server, person: User) -> httpx2.Client:
    http = httpx2.Client(base_url=server.url, headers={"Sec-Fetch-Site": "same-origin"})
    answer = http.post("/console/sign-in", data={"email": person.email, "password": PASSWORD})
    http.headers["Cookie"] = answer.headers["set-cookie"].partition(";")[0]
    return http


def _measure(http: httpx2.Client, paths: dict[str, str]) -> None:
    took: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(ROUNDS):
        for name, path in paths.items():
            began = time.perf_counter()
            with http.stream("GET", f"/console{path}") as answer:
                took[name].append((time.perf_counter() - began) * 1000)
                assert answer.status_code == 200, (name, answer.status_code)
    for name, times in took.items():
        say(name, f"{median(times):.1f} {max(times):.1f}")


if __name__ == "__main__":
    main()
