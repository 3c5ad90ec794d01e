"""Every mutant has the guard still before it that it removes; what they prove, `make mutants` shows."""

import pytest

from tests.mutants import MUTANTS, ROOT, Mutant
from tests.support.mutation import changed, file_of

MODULE = """
LIMIT = 3
def run(a, b):
    first(a,
          b, limit=LIMIT)
    second(a)
class Runner:
    async def run(self): return first(1)
"""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.guard.replace(" ", "-"))
def test_every_mutant_applies_to_one_place(mutant: Mutant) -> None:
    source = file_of(ROOT, mutant.where).read_text()
    mutated = changed(source, mutant.where, mutant.old, mutant.new)
    compile(mutated, mutant.where, "exec")
    assert mutated != changed(source, mutant.where, mutant.old, mutant.old)
    assert all((ROOT / test).exists() for test in mutant.tests)


@pytest.mark.parametrize(
    ("where", "old", "new", "expected"),
    [
        ("m:LIMIT", "3", "4", "LIMIT = 4"),
        ("m:run", "b", "", "first(a, limit=LIMIT)"),
        ("m:run", "limit=LIMIT", "", "first(a, b)"),
        ("m:run", "limit=LIMIT", "limit=0", "first(a, b, limit=0)"),
        ("m:run", "second", "third", "third(a)"),
        ("m:run", "first(a, b, limit=LIMIT)\nsecond(a)", "second(a)\nfirst(a)", "second(a)\n    first(a)"),
        ("m:Runner.run", "first(1)", "None", "return None"),
    ],
)
def test_a_change_is_one_of_the_syntax_tree(where: str, old: str, new: str, expected: str) -> None:
    assert expected in changed(MODULE, where, old, new)


@pytest.mark.parametrize(
    ("where", "old"),
    [("m:run", "a"), ("m:run", "third"), ("m:Runner.run", "second"), ("m:other", "1"), ("m:X.run", "1")],
)
def test_no_place_or_several_are_an_error(where: str, old: str) -> None:
    with pytest.raises(LookupError):
        changed(MODULE, where, old, "1")
