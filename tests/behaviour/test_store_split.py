"""A validation split over a store with random access, in fits that are cut and in fits that are whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import keepfit
from keepfit.data import split_validation
from tests.behaviour.processes import Interrupt, attach_quietly
from tests.bits import differing, joined_history, state_bits
from tests.models import make

OPTIONS: dict[str, Any] = {"batch_size": 8, "epochs": 2, "verbose": 0, "validation_split": 0.3}


class Samples:
    """One sample for an index."""

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return self.x[index], self.y[index]


def samples(folder: Path, x: Any, y: Any) -> dict[str, Any]:
    return {"x": Samples(x, y)}


def stored(folder: Path, x: Any, y: Any) -> dict[str, Any]:
    if not (folder / "a.h5").exists():
        with h5py.File(folder / "a.h5", "w") as file:
            file["x"] = x
    return {"x": h5py.File(folder / "a.h5", "r")["x"], "y": y}


@pytest.mark.parametrize("kind", [samples, stored])
def test_a_fit_in_parts_is_the_whole_one(kind: Any, tmp_path: Path) -> None:
    """Two fits of two epochs, the second in another process, give the bits and the logs of one fit of four."""
    model, x, y = make("dropout_batch_norm")
    with keepfit.Run(model, seed=5) as run:
        history = run.fit(**kind(tmp_path, x, y), **{**OPTIONS, "epochs": 4})
    parts, histories = None, []
    for fits in (1, 2):
        parts, x, y = make("dropout_batch_norm")
        attach_quietly(parts, tmp_path / "run", seed=5)
        histories = [parts.fit(**kind(tmp_path, x, y), **OPTIONS) for _ in range(fits)]
        parts.run.close()
    assert differing(state_bits(model), state_bits(parts)) == []
    assert joined_history(histories)["val_loss"] == history.history["val_loss"]
    assert joined_history(histories)["loss"] == history.history["loss"]


def test_an_interrupted_fit_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """Ctrl-C after the first epoch, and the same script again."""
    model, x, y = make("dropout_batch_norm")
    with keepfit.Run(model, seed=5) as run:
        run.fit(Samples(x, y), **OPTIONS)
    for armed in (True, False):
        again, x, y = make("dropout_batch_norm")
        attach_quietly(again, tmp_path / "run", seed=5)
        if armed:
            with pytest.raises(KeyboardInterrupt):
                again.fit(Samples(x, y), callbacks=[Interrupt(0)], **OPTIONS)
        else:
            again.fit(Samples(x, y), callbacks=[Interrupt(0, armed=False)], **OPTIONS)
        again.run.close()
    assert differing(state_bits(model), state_bits(again)) == []


def test_what_is_held_back_is_not_the_last_fraction(tmp_path: Path) -> None:
    """The tests above can fail: another side validates, and the bits are others."""
    model, x, y = make("dropout_batch_norm")
    other, _, _ = make("dropout_batch_norm")
    for each, data in ((model, {"x": Samples(x, y)}), (other, {"x": x, "y": y})):
        with keepfit.Run(each, seed=5) as run:
            run.fit(**data, **OPTIONS)
    assert differing(state_bits(model), state_bits(other)) != []
    (_, _, _), (held, _, _) = split_validation(Samples(x, y), None, None, 0.3)
    assert 0 < len(held) < len(x)
    assert not np.array_equal(held[0][0], x[-len(held)])
