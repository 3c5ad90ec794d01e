"""What a server shows at /metrics."""

import re

import httpx2

from tests.support.server import Server

PREFIX = "document_api_"


def scraped(server: Server) -> str:
    """The text. Over a new connection, so by any worker of the server."""
    with httpx2.Client(timeout=60) as anew:
        answer = anew.get(f"{server.url}/metrics")
    assert answer.status_code == 200
    return answer.text


def metric(server: Server, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels; its name is without the prefix that all have."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    samples = re.findall(rf"^{PREFIX}{name}(?:{{(.*)}})? (.+)$", scraped(server), re.MULTILINE)
    return sum(float(value) for found, value in samples if all(each in found for each in wanted))
