"""Evaluations between fits can be replayed when the states they were made from are gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import keepfit
from keepfit.errors import StateNotKept
from tests.models import make

FITS = 6


def script(folder: Path, *, fits: int = FITS, by_hand: int | None = None) -> list[Any]:
    """Fit and evaluate in turns; ``by_hand`` evaluates once more after that fit, with other weights."""
    model, x, y = make("dropout_batch_norm")
    seen: list[Any] = []
    with keepfit.Run(model, folder, keep=2, checkpoint_share="each") as run:
        for number in range(1, fits + 1):
            seen.append(run.fit(x, y, verbose=0).history)
            seen.append(run.evaluate(x, y, verbose=0))
            seen.append(run.evaluate(x[:20], y[:20], batch_size=7, return_dict=True, verbose=0))
            if number == by_hand:
                kept = model.get_weights()
                model.set_weights([weight + 1 for weight in kept])
                run.evaluate(x, y, verbose=0)
                model.set_weights(kept)
    return seen


@pytest.mark.filterwarnings("ignore:The results of earlier fits")
def test_script_that_evaluates_more_often_than_states_are_kept_goes_on(tmp_path: Path) -> None:
    """Run again, it sees the same numbers, and goes on to the end of one that was never stopped."""
    first = script(tmp_path / "cut")
    assert script(tmp_path / "cut", fits=FITS + 2) == script(tmp_path / "whole", fits=FITS + 2)
    assert script(tmp_path / "cut")[: len(first)] == first


@pytest.mark.filterwarnings("ignore:The results of earlier fits")
def test_question_that_was_never_asked_has_no_answer(tmp_path: Path) -> None:
    """Other data, or another batch size, than was evaluated then raises as it must."""
    script(tmp_path)
    model, x, y = make("dropout_batch_norm")
    with keepfit.Run(model, tmp_path, keep=2) as run:
        run.fit(x, y, verbose=0)
        run.evaluate(x, y, verbose=0)
        for other in ({"x": x + 1, "y": y}, {"x": x, "y": y, "batch_size": 5}, {"x": x, "y": y, "steps": 1}):
            with pytest.raises(StateNotKept, match="fit 1"):
                run.evaluate(**other, verbose=0)


@pytest.mark.filterwarnings("ignore:The results of earlier fits")
def test_evaluation_of_weights_set_by_hand_is_not_taken_for_one_of_the_fit(tmp_path: Path) -> None:
    """Asked with the fit's own weights and with others, the question is ambiguous in a replay."""
    script(tmp_path, by_hand=2)
    model, x, y = make("dropout_batch_norm")
    with keepfit.Run(model, tmp_path, keep=2) as run:
        for number in (1, 2):
            run.fit(x, y, verbose=0)
            if number == 2:
                with pytest.raises(StateNotKept, match="fit 2"):
                    run.evaluate(x, y, verbose=0)
            else:
                run.evaluate(x, y, verbose=0)
