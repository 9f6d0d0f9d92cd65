from __future__ import annotations

from dataclasses import replace
from math import inf, nan

from hypothesis import given
from hypothesis import strategies as st

from keepfit.clock import Position
from keepfit.journal import CheckpointRecord
from keepfit.store import kept

START = CheckpointRecord(id=1, fit=0, kind="start", position=Position())


def ends(*fits: int, first_id: int = 2) -> list[CheckpointRecord]:
    """Return one end for each fit."""
    return [replace(START, id=first_id + index, fit=fit, kind="end") for index, fit in enumerate(fits)]


def kept_fits(checkpoints, *, keep, named=(), final_logs=None) -> set[int]:
    """Return the fits whose ends are kept."""
    ids = kept(checkpoints, named=named, keep=keep, final_logs=final_logs or {})
    return {item.fit for item in checkpoints if item.id in ids and item.kind == "end"}


def test_kept_are_the_start_and_the_last_ends():
    """The state before fit 1 and the ends of the last fits stay."""
    checkpoints = [START, *ends(1, 2, 3, 4, 5)]
    assert kept_fits(checkpoints, keep=3) == {3, 4, 5}
    assert START.id in kept(checkpoints, named=(), keep=3, final_logs={})


def test_kept_are_ends_of_named_fits():
    """A fit with a name keeps its end however many follow."""
    assert kept_fits([START, *ends(*range(1, 10))], named={2}, keep=2) == {2, 8, 9}


def test_kept_is_the_best_end_by_validation_loss_else_loss():
    """The lowest final val_loss decides; loss only where no fit has one; what is not finite never."""
    checkpoints = [START, *ends(1, 2, 3, 4, 5, 6)]
    losses = {1: nan, 2: 0.5, 3: 0.1, 4: inf, 5: 1.0, 6: 1.0}
    only_loss = {fit: {"loss": value} for fit, value in losses.items()}
    assert kept_fits(checkpoints, keep=2, final_logs=only_loss) == {3, 5, 6}
    with_validation = only_loss | {2: {"loss": 0.5, "val_loss": 0.4}, 4: {"loss": 0.0, "val_loss": -inf}}
    assert kept_fits(checkpoints, keep=2, final_logs=with_validation) == {2, 5, 6}
    assert kept_fits(checkpoints, keep=2, final_logs={1: {"loss": nan}}) == {5, 6}


def test_kept_are_the_newest_two_inside_the_newest_fit():
    """Checkpoints inside a fit thin out to two, and go when the fit has its end."""
    inside = [replace(START, id=10 + index, fit=2, kind="inside") for index in range(4)]
    checkpoints = [START, *ends(1), *inside]
    assert kept(checkpoints, named=(), keep=2, final_logs={}) == {1, 2, 12, 13}
    done = [*checkpoints, replace(START, id=20, fit=2, kind="end"), replace(START, id=21, fit=3, kind="end")]
    assert kept(done, named=(), keep=2, final_logs={}) == {1, 2, 20, 21} - {2}


def test_kept_is_the_newest_good_one():
    """The last state before a loss became non-finite is never pushed out by bad ones."""
    bad = [replace(START, id=10 + index, fit=3 + index, kind="end", good=False) for index in range(5)]
    ids = kept([START, *ends(1, 2), *bad], named=(), keep=2, final_logs={})
    assert ids == {1, 3, 13, 14}


def test_kept_are_pinned_ones():
    """A pinned checkpoint stays, in closed branches too."""
    pinned = [replace(START, id=3, fit=1, kind="inside", pinned=True), replace(START, id=4, branch=1, pinned=True)]
    checkpoints = [START, *pinned, *ends(1, 2, 3, 4, first_id=5), replace(START, id=9, branch=1, fit=2, kind="end")]
    assert {3, 4, 9} <= kept(checkpoints, named=(), keep=1, final_logs={})


def test_kept_of_a_closed_branch_is_its_newest_end():
    """A closed branch keeps one state: its newest end, or its newest where no fit ended."""
    closed = [replace(item, branch=1) for item in ends(2, 3, first_id=2)]
    unfinished = [replace(START, id=5 + index, branch=2, fit=2, kind="inside") for index in range(2)]
    ids = kept([START, *closed, replace(closed[0], id=4, kind="inside"), *unfinished], named=(), keep=5, final_logs={})
    assert ids == {1, 3, 6}


def test_kept_of_a_fit_that_went_on_is_its_newest_end():
    """A fit that was asked for more epochs has two ends; the later one counts."""
    checkpoints = [START, *ends(1, 1, 2, 3, 4)]
    assert kept(checkpoints, named={1}, keep=1, final_logs={}) == {1, 3, 5, 6}


CHECKPOINTS = st.lists(
    st.builds(
        replace,
        st.just(START),
        branch=st.integers(0, 2),
        fit=st.integers(0, 6),
        kind=st.sampled_from(["start", "inside", "end"]),
        good=st.booleans(),
        pinned=st.booleans(),
    ),
    max_size=30,
).map(lambda items: [replace(item, id=index + 1) for index, item in enumerate(items)])


@given(CHECKPOINTS, st.integers(1, 4))
def test_kept_always_holds_the_newest_and_is_stable(checkpoints, keep):
    """The newest two are always there, and what was kept is kept when asked again."""
    ids = kept(checkpoints, named=(), keep=keep, final_logs={})
    assert {item.id for item in [item for item in checkpoints if item.branch == 0][-2:]} <= ids
    again = [item for item in checkpoints if item.id in ids]
    assert kept(again, named=(), keep=keep, final_logs={}) == ids
