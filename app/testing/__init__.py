"""For authors of processors: what a test of theirs needs, and the checks of `python -m app processors check`.

def test_it_keeps_the_contract():
    findings = check(WordsProcessor(), Path("report.pdf"))
    assert not [each for each in findings if each.fault]
"""

from app.testing.checks import Finding, check
from app.testing.outputs import Collected, CollectingOutputs
from app.testing.sources import source

__all__ = ["Collected", "CollectingOutputs", "Finding", "check", "source"]
