"""What a run trained on is known exactly up to a bound, and by an even sample beyond it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keepfit import trained
from keepfit.trained import TrainedRows

GENERATOR = np.random.default_rng(4)


def hashes(count: int) -> Any:
    """Return random hashes."""
    return GENERATOR.integers(0, 2**64, size=count, dtype=np.uint64)


def contents(rows: TrainedRows) -> dict[str, Any]:
    """Return all that a checkpoint would hold, to compare."""
    return {"halvings": rows.halvings, **{name: array.tolist() for name, array in rows.tensors().items()}}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let bounds be reached soon."""
    monkeypatch.setattr(trained, "_RECENT", 64)
    monkeypatch.setattr(trained, "MOST_ROWS", 1000)
    monkeypatch.setattr(trained, "_MOST_SETS", 8)


@pytest.mark.parametrize("count", [1, 1000, 300_000])
def test_rows_are_found_with_the_first_fit_that_trained_on_them(count: int) -> None:
    """Every row is found, added once or again; a single one among many that were not is found, too."""
    rows, mine, others = TrainedRows(), hashes(count), hashes(200_000)
    rows.add(mine, fit=3)
    rows.add(np.concatenate([mine, mine[:1] + np.uint64(1 << 30)]), fit=5)
    assert np.all(rows.first_fits(mine) == 3)
    assert rows.first_fits(mine[:1] + np.uint64(1 << 30)).tolist() == [5]
    found = rows.first_fits(np.concatenate([others, mine[-1:]]))
    assert np.flatnonzero(found).tolist() == [len(others)]


def test_rows_that_were_not_added_are_not_found() -> None:
    """Two million rows looked up among a million: 2 in 10^8 of them at most, so none in all."""
    rows = TrainedRows()
    rows.add(hashes(trained.MOST_ROWS), fit=1)
    assert (trained.MOST_ROWS + 2**16) / 2**46 < 1e-7
    assert np.count_nonzero(rows.first_fits(hashes(2_000_000))) == 0


def test_nothing_is_found_where_nothing_was_added() -> None:
    """An empty memory knows no row."""
    rows = TrainedRows()
    assert rows.is_empty
    assert rows.tensors() == {}
    assert rows.first_fits(hashes(3)).tolist() == [0, 0, 0]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("size", [1, 5, 40, 64, 200])
def test_looking_for_what_was_added_since_finds_what_looking_for_all_does(size: int) -> None:
    """Whether the rows were sorted in or thinned out meanwhile; twice the same rows change nothing."""
    rows, given = TrainedRows(), hashes(3000)
    given[1500:1600] = given[:100]
    looked = np.concatenate([given[::3], hashes(100)])
    found = since = None
    for fit, start in enumerate(range(0, len(given), size), start=1):
        rows.add(given[start : start + size], fit=fit)
        found = rows.first_fits(looked, before=found, since=since).astype(np.int32)
        since = rows.version
        assert np.array_equal(found, rows.first_fits(looked))
    assert np.count_nonzero(found) > 0


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("size", [1, 7, 64, 65, 5000])
def test_pieces_do_not_matter(size: int) -> None:
    """What is kept is the same however the rows were cut into pieces, which time decides."""
    given = np.random.default_rng(9).integers(0, 2**64, size=5000, dtype=np.uint64)
    whole, cut = TrainedRows(), TrainedRows()
    whole.add(given, fit=1)
    for start in range(0, len(given), size):
        cut.add(given[start : start + size], fit=1)
    assert contents(whole) == contents(cut)


@pytest.mark.usefixtures("small")
def test_memory_is_bounded_and_a_share_of_all_rows_is_known() -> None:
    """Of a hundred times as many rows as are kept, the share that is known gives their number."""
    rows, given = TrainedRows(), hashes(100_000)
    for number, part in enumerate(np.split(given, 100)):
        rows.add(part, fit=number + 1)
        assert sum(len(array) for array in rows.tensors().values()) <= 2 * trained.MOST_ROWS + 64
    known = int(np.count_nonzero(rows.first_fits(given)))
    assert rows.halvings == 7
    assert abs((known << rows.halvings) - len(given)) < 0.15 * len(given)
    assert np.count_nonzero(rows.first_fits(hashes(100_000))) == 0


@pytest.mark.usefixtures("small")
def test_rows_that_come_again_take_no_room() -> None:
    """The same rows a hundred times over leave all of them known."""
    rows, given = TrainedRows(), hashes(900)
    for fit in range(1, 101):
        rows.add(given, fit=fit)
    assert rows.halvings == 0
    assert np.all(rows.first_fits(given) == 1)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("count", [10, 64, 700, 20_000])
def test_rows_go_on_from_what_was_kept(count: int) -> None:
    """Rows taken from a checkpoint are those that went in, and go on as if they had never been written."""
    given, more = hashes(count), hashes(300)
    rows = TrainedRows()
    rows.add(given, fit=2)
    rows.add_set(77)
    written = {name: array.copy() for name, array in rows.tensors().items()}
    again = TrainedRows.of({"model/kernel": np.zeros(3), **written}, rows.halvings)
    assert contents(again) == contents(rows)
    assert again.has_set(77)
    for each in (rows, again):
        each.add(more, fit=3)
    assert contents(again) == contents(rows)
    assert np.array_equal(again.first_fits(given), rows.first_fits(given))


@pytest.mark.usefixtures("small")
def test_what_was_given_away_stays_as_it_was() -> None:
    """A checkpoint that is still to be written does not change when rows are added, nor does one gone back to."""
    rows = TrainedRows()
    rows.add(hashes(40), fit=1)
    given = dict(rows.tensors())
    before = {name: array.copy() for name, array in given.items()}
    rows.add(hashes(10), fit=2)
    back = TrainedRows.of(given, 0)
    back.add(hashes(500), fit=2)
    rows.add(hashes(500), fit=3)
    assert all(np.array_equal(given[name], before[name]) for name in given)


def test_rows_know_whether_a_state_has_them() -> None:
    """While nothing is added the arrays are the same ones; a state with more, less or others is told apart."""
    rows = TrainedRows()
    assert rows.are_in({})
    rows.add(hashes(5), fit=1)
    first = dict(rows.tensors())
    assert rows.are_in(first)
    assert not rows.are_in({})
    assert not TrainedRows().are_in(first)
    rows.add(hashes(5), fit=2)
    assert not rows.are_in(first)
    assert rows.are_in(rows.tensors())
    assert rows.version != TrainedRows.of(first, 0).version


@pytest.mark.usefixtures("small")
def test_the_newest_sets_are_known() -> None:
    """Of more sets than are kept the newest are known, those of a checkpoint too."""
    rows = TrainedRows()
    for identity in range(20):
        rows.add_set(identity)
    assert [identity for identity in range(20) if rows.has_set(identity)] == list(range(12, 20))
    assert TrainedRows.of(rows.tensors(), 0).has_set(19)
