"""compose.yaml: what it starts fits together, also scaled up, and while a new version replaces the old one."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.database.base import SEARCHES
from app.server.lifespan import EXIT_SECONDS
from app.settings import Settings

SURGE = 1  # process of each kind that is started before another one is stopped
RESERVED = 3  # superuser_reserved_connections
MARGIN = 5  # seconds


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(Path("compose.yaml").read_text())["services"]
    return found


def test_the_image_is_built_once(services: dict[str, Any]) -> None:
    built = [name for name, service in services.items() if "build" in service]
    ours = {name: service["pull_policy"] for name, service in services.items() if service["image"] == "document-api"}
    assert built == ["migrate"]
    assert ours == dict.fromkeys(("api", "worker", "migrate"), "never")


def test_the_database_has_a_connection_for_every_process(services: dict[str, Any]) -> None:
    slots = re.findall(r"server-template api (\d+) ", Path("deploy/haproxy.cfg").read_text())
    processes = int(slots[0]) + services["worker"]["scale"] + 2 * SURGE
    each = Settings.model_fields["database_pool_size"].default + SEARCHES
    allowed = int(services["database"]["command"][-1].removeprefix("max_connections="))
    assert services["api"]["scale"] + SURGE <= int(slots[0])
    assert processes * each + 1 <= allowed - RESERVED, "the one is a migration's"


def test_webhooks_are_told_by_those_who_can_reach_out(services: dict[str, Any]) -> None:
    networks = yaml.safe_load(Path("compose.yaml").read_text())["networks"]
    default = Settings.model_fields["webhook_concurrency"].default
    for name in ("api", "worker"):
        reaches_out = any(not (networks[each] or {}).get("internal") for each in services[name]["networks"])
        assert bool(services[name]["environment"].get("WEBHOOK_CONCURRENCY", default)) == reaches_out, name


def test_there_is_time_to_stop(services: dict[str, Any]) -> None:
    drain, delay = (Settings.model_fields[f"{name}_seconds"].default for name in ("drain", "shutdown_delay"))
    for name in ("api", "worker"):
        delay = max(delay, services[name]["environment"].get("SHUTDOWN_DELAY_SECONDS", 0))
        assert int(services[name]["stop_grace_period"].removesuffix("s")) >= max(drain, delay) + EXIT_SECONDS + MARGIN
