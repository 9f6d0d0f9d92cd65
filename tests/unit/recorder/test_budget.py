from __future__ import annotations

import pytest

from keepfit.errors import InvalidArgument
from keepfit.recorder.budget import Budget


class Clock:
    """Seconds that pass when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    """Return a clock that stands still."""
    return Clock()


def test_budget_keeps_the_share(clock):
    """After a checkpoint of c seconds the next is due when c over share seconds have passed."""
    budget = Budget(0.1, clock=clock)
    budget.spent(2.0)
    clock.now += 19.9
    assert not budget.due(0)
    clock.now += 0.2
    assert budget.due(0)


def test_budget_takes_the_mean_of_recent_costs(clock):
    """One slow write does not decide alone, and old ones are forgotten."""
    budget = Budget(1, clock=clock)
    for seconds in (100, 1, 2, 3, 4, 5):
        budget.spent(seconds)
    assert budget.cost(10**9) == 3


def test_budget_guesses_by_size_before_the_first_measurement(clock):
    """Until something was measured, a fixed cost and the size decide."""
    budget = Budget(0.5, clock=clock)
    assert not budget.due(0)
    clock.now += 0.041
    assert budget.due(0)
    assert not budget.due(200_000_000)
    clock.now += 2.1
    assert budget.due(200_000_000)


def test_each_leaves_checkpoints_inside_fits_on_the_default_share(clock):
    """With "each", fits get their ends, and inside a fit two percent hold."""
    budget = Budget("each", clock=clock)
    assert budget.each
    budget.spent(1.0)
    clock.now += 49
    assert not budget.due(0)
    clock.now += 2
    assert budget.due(0)


@pytest.mark.parametrize("share", [0, -0.1, 1.5, True, "all", None, float("nan")])
def test_budget_refuses_what_is_not_a_share(share):
    """Anything but a share or "each" is refused with what was expected."""
    with pytest.raises(InvalidArgument, match="checkpoint_share"):
        Budget(share)
