"""The numbers made of a matrix: their definitions, their signs, and what is not known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from keepfit.forgetting import Forgetting

NAN = float("nan")
ACCURACY = np.array([[0.9, NAN, NAN], [0.95, 0.8, NAN], [0.5, 0.85, 0.7]])


def made(matrix: np.ndarray, *, more: bool = True, metric: str = "accuracy", names: tuple = ()) -> Forgetting:
    """Return a matrix with a set for each fit."""
    fits = tuple(range(1, len(matrix) + 1))
    return Forgetting(matrix, fits, fits[: matrix.shape[1]], metric, more, names)


def test_numbers_are_those_of_the_papers() -> None:
    """Worked out by hand: the best of set 1 was 0.95, that of set 2 0.8, which has risen since."""
    found = made(ACCURACY)
    assert found.average == pytest.approx((0.5 + 0.85 + 0.7) / 3)
    assert found.forgetting == pytest.approx(((0.95 - 0.5) + (0.8 - 0.85)) / 2)
    assert found.backward_transfer == pytest.approx(((0.5 - 0.9) + (0.85 - 0.8)) / 2)


def test_a_loss_is_forgotten_where_it_rises() -> None:
    """The same facts told as a loss give the same signs."""
    found, loss = made(ACCURACY), made(1 - ACCURACY, more=False, metric="loss")
    assert loss.forgetting == pytest.approx(found.forgetting)
    assert loss.backward_transfer == pytest.approx(found.backward_transfer)
    assert loss.average == pytest.approx(1 - found.average)


def test_what_is_not_known_is_not_made_up() -> None:
    """A mean over something unknown is NaN, the best is that of the known ones."""
    gone = ACCURACY.copy()
    gone[1, 0] = NAN
    assert made(gone).forgetting == pytest.approx(((0.9 - 0.5) + (0.8 - 0.85)) / 2)
    gone[2, 0] = NAN
    assert np.isnan(made(gone).average)
    assert np.isnan(made(gone).forgetting)
    only = made(ACCURACY[:1, :1])
    assert (only.average, np.isnan(only.forgetting), np.isnan(only.backward_transfer)) == (0.9, True, True)


def test_fits_without_a_set_of_their_own_are_rows_too() -> None:
    """Rows and columns need not be as many."""
    found = Forgetting(np.array([[0.9], [0.7], [0.8]]), (2, 3, 4), (2,), "accuracy", True)
    assert (found.forgetting, found.backward_transfer) == (pytest.approx(0.1), pytest.approx(-0.1))


def test_frame_has_a_row_for_each_fit_and_a_column_for_each_set() -> None:
    """Named fits by their names."""
    frame = made(ACCURACY, names=((2, "may"),)).frame()
    assert list(frame.index) == ["fit 1", "may", "fit 3"]
    assert list(frame.columns) == ["fit 1", "may", "fit 3"]
    assert frame.index.name == "accuracy after"
    assert frame.loc["fit 3", "may"] == 0.85


@pytest.mark.parametrize(("size", "more"), [(1, True), (3, True), (12, False), (40, True)])
def test_pictures_of_any_size_are_drawn(size: int, more: bool, tmp_path: Path) -> None:
    """Few cells have their values written in them, many have not; the lines are named."""
    matrix = np.where(np.tri(size, dtype=bool), np.random.default_rng(1).random((size, size)), np.nan)
    figure = made(matrix, more=more, metric="accuracy" if more else "loss").plot(tmp_path / "matrix.png")
    assert (tmp_path / "matrix.png").stat().st_size > 10_000
    cells, lines = figure.axes[:2]
    assert len(cells.texts) == (size * (size + 1) // 2 if size < 15 else 0)
    assert len(lines.get_lines()) == (size if size <= 6 else size + 1)


def test_what_is_not_known_is_told_from_what_had_not_come() -> None:
    """A question mark where a state was not kept, nothing where the set came later."""
    gone = ACCURACY.copy()
    gone[1, :] = NAN
    texts = [text.get_text() for text in made(gone).plot().axes[0].texts]
    assert texts.count("?") == 2
    assert len(texts) == 6


def test_a_matrix_tells_of_itself_in_one_line() -> None:
    """What a notebook shows."""
    assert repr(made(ACCURACY)) == "Forgetting(3 fits, 3 sets; accuracy: average 0.683, forgetting 0.2)"
    assert repr(made(ACCURACY[:1, :1])) == "Forgetting(1 fit, 1 set; accuracy: average 0.9)"
