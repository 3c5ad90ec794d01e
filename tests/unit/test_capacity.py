"""What one owner may take of a process's capacity for jobs."""

from uuid import UUID, uuid4

import pytest

from app.jobs.capacity import Capacity

ADA, BOB, EVE = (uuid4() for _ in range(3))


def taken(capacity: Capacity, owner_id: UUID, queue: str = "q") -> int:
    """How many jobs of an owner are admitted, of as many as they like."""
    return sum(capacity.take(owner_id, queue) for _ in range(100))


@pytest.mark.parametrize(
    ("size", "alone", "left"), [(64, 48, 16), (8, 6, 2), (4, 3, 1), (3, 2, 1), (2, 1, 1), (1, 1, 0)]
)
def test_one_owner_leaves_a_quarter_to_the_others(size: int, alone: int, left: int) -> None:
    capacity = Capacity(size, {"q": size})
    assert taken(capacity, EVE) == alone
    assert capacity.refused("q") == ({EVE} if left else set())
    assert taken(capacity, ADA) == left


def test_who_runs_less_than_a_share_gets_what_is_free() -> None:
    capacity = Capacity(64, {"q": 64}, [(EVE, "q")] * 40 + [(BOB, "q")] * 16)
    assert capacity.refused("q") == {EVE, BOB}
    assert taken(capacity, BOB) == 0
    assert taken(capacity, ADA) == 8
    assert capacity.exhausted
    assert not capacity.any_free
    assert capacity.refused("q") == set(), "nobody's share is in the way when nothing is free"


def test_a_queue_is_shared_too() -> None:
    capacity = Capacity(64, {"q": 64, "text": 4})
    assert taken(capacity, EVE, "text") == 3
    assert capacity.refused("text") == {EVE}
    assert capacity.refused("q") == set()
    assert taken(capacity, ADA, "text") == 1
    assert taken(capacity, EVE) == 44, "and three of the other queue make three quarters"


def test_a_copy_counts_for_itself() -> None:
    capacity = Capacity(4, {"q": 4}, [(EVE, "q"), (EVE, "gone")])
    assert taken(capacity.copy(), ADA) == taken(capacity, ADA) == 1


@pytest.mark.parametrize("size", range(1, 200))
def test_so_many_owners_may_be_refused_at_the_most(size: int) -> None:
    owners = [uuid4() for _ in range(size)]
    capacity = Capacity(size, {"q": size})
    while capacity.free("q") > 1 and (owner_id := next((each for each in owners if capacity.take(each, "q")), None)):
        assert owner_id
        assert len(capacity.refused("q")) <= Capacity.MAX_REFUSED // 2
