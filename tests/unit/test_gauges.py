"""A scrape is answered also while there is something that cannot be read."""

from pathlib import Path
from typing import Any

from app.errors import DatabaseUnavailable
from app.wiring import gauges


class Away:
    """A database that cannot be used."""

    async def read(self, _unit: Any) -> Any:
        raise DatabaseUnavailable


async def test_what_can_be_read_is_shown(tmp_path: Path) -> None:
    away: Any = Away()
    families = await gauges.read(away, [], {"data": tmp_path, "files": tmp_path / "unmounted"})
    samples = [(sample.name, sample.labels) for family in families for sample in family.samples]
    assert [name for name, _ in samples] == [
        f"document_api_{name}" for name in ("build_info", "disk_free_bytes", "disk_bytes")
    ]
    assert [labels for _, labels in samples[1:]] == [{"folder": "data"}] * 2
