"""P1 and P2 with earlier samples mixed in: however training is cut or stopped, the same ones come at the same time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies

import keepfit
from keepfit.data import rehearsed
from keepfit.rehearsal.reservoir import Reservoir
from tests.behaviour.months import month
from tests.bits import differing, joined_history, state_bits
from tests.models import make

EPOCHS = 3
MONTHS = 3
pytestmark = pytest.mark.filterwarnings("ignore:Your input ran out of data")


def monthly(number: int, kind: str = "arrays") -> dict[str, Any]:
    """Return the data of a month, for a model with one output."""
    x, y = month(number, samples=40 + 9 * number)
    y = y[:, None].astype("float32")
    if kind == "arrays":
        return {"x": x, "y": y}
    cuts = np.array_split(np.arange(len(x)), 3)
    return {"x": keepfit.partitions([lambda rows=rows: (x[rows], y[rows]) for rows in cuts], window=2)}


def train(cuts: list[list[int]], *, directory: Path | None = None, kind: str = "arrays", **arguments: Any) -> Any:
    """Return all state and everything logged after training month after month, each in the given fits."""
    model, *_ = make("dropout_batch_norm")
    how = {"batch_size": 16, "verbose": 0, "rehearse": 0.3, **arguments}
    with keepfit.Run(model, directory, seed=3, reservoir=50, plan=how.pop("plan", None)) as run:
        histories = []
        for number, epochs in enumerate(cuts):
            data = monthly(number, kind)
            histories += [run.fit(**data, epochs=length, **how) for length in epochs]
        return state_bits(model), joined_history(histories)


def cuts_of(total: int) -> strategies.SearchStrategy[list[int]]:
    """Draw a way to cut ``total`` epochs into fits."""
    borders = strategies.sets(strategies.integers(1, total - 1), max_size=total - 1)
    return borders.map(lambda found: [b - a for a, b in zip([0, *sorted(found)], [*sorted(found), total], strict=True)])


@hypothesis.settings(max_examples=6)
@hypothesis.given(
    cuts=strategies.lists(cuts_of(EPOCHS), min_size=MONTHS, max_size=MONTHS),
    steps=strategies.sampled_from([None, 2, 5]),
    shuffle=strategies.sampled_from([True, False, "batch"]),
    plan=strategies.sampled_from(["fused", "stepwise"]),
    kind=strategies.sampled_from(["arrays", "partitions"]),
)
def test_cut_training_equals_whole_training(
    cuts: list[list[int]], steps: int | None, shuffle: Any, plan: str, kind: str
) -> None:
    """A month in several fits is a month in one: its own samples are no earlier ones, and it is one source."""
    how = {"steps_per_epoch": steps, "shuffle": shuffle, "plan": plan, "kind": kind}
    whole, cut = train([[EPOCHS]] * MONTHS, **how), train(cuts, **how)
    assert differing(whole[0], cut[0]) == []
    assert cut[1] == whole[1]


@pytest.mark.parametrize("lost", ["own data", "the turn of earlier samples"])
def test_cut_training_differs_when_rehearsal_is_not_carried_on(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a fit that rehearses its own data, or begins anew with earlier samples, is another one."""
    whole = train([[4], [4]])
    if lost == "own data":
        before = Reservoir.before
        monkeypatch.setattr(Reservoir, "before", lambda self, fit, *, but: before(self, fit, but=""))
    else:
        rows = rehearsed.RehearsedSource._old_rows
        began: dict[int, int] = {}

        def anew(self: Any, number: int, start: int, count: int) -> Any:
            return rows(self, number - began.setdefault(id(self), number), start, count)

        monkeypatch.setattr(rehearsed.RehearsedSource, "_old_rows", anew)
    assert differing(whole[0], train([[2, 2], [2, 2]])[0]) != []


class Interrupt(keras.callbacks.Callback):
    """Press Ctrl-C once, after so many batches."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: Any) -> None:
        del state


def interrupted(interrupt: int | None, directory: Path, *, again: bool) -> Any:
    """Train month after month, pressing Ctrl-C after so many batches of the second; None where that was the end.

    Args:
        interrupt: After how many batches, or None.
        directory: Folder of the run.
        again: Whether the fit is called again at once.
    """
    model, *_ = make("dropout_batch_norm")
    with keepfit.Run(model, directory, seed=3, reservoir=50) as run:
        for number in range(MONTHS):
            how = {"epochs": EPOCHS, "batch_size": 16, "verbose": 0, "rehearse": 0.4}
            try:
                run.fit(**monthly(number), **how, callbacks=[Interrupt(interrupt or 10**6)] if number == 1 else [])
            except KeyboardInterrupt:
                if not again:
                    return None
                run.fit(**monthly(number), **how, callbacks=[Interrupt(10**6)])
        return state_bits(model)


@pytest.mark.parametrize("after", [1, 4, 9, 13])
@pytest.mark.parametrize("again", [True, False])
def test_interrupted_training_ends_with_the_same_bits(after: int, again: bool, tmp_path: Path) -> None:
    """Ctrl-C anywhere inside the second month, then the same call, or the same script."""
    whole = interrupted(None, tmp_path / "whole", again=False)
    cut = interrupted(after, tmp_path / "cut", again=again)
    if not again:
        assert cut is None
        cut = interrupted(None, tmp_path / "cut", again=False)
    assert differing(whole, cut) == []


def test_interrupted_training_differs_when_earlier_samples_come_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: a second process that would take them in another order does not end with these bits."""
    whole = interrupted(None, tmp_path / "whole", again=False)
    interrupted(9, tmp_path / "cut", again=False)
    monkeypatch.setattr(rehearsed, "rehearsal_seed", lambda seed: seed + 1)
    assert differing(whole, interrupted(None, tmp_path / "cut", again=False)) != []
