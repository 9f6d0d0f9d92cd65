"""P2 by killing: a sample of what ``make torture`` does in full."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.torture import Toll, kill_series


@pytest.mark.parametrize(
    "model",
    [
        "dropout_batch_norm",
        "averaged_weights",
        "dropout_batch_norm@partitions",
        "dropout_batch_norm@phases",
        "frozen_backbone",
        "dropout_batch_norm@rehearsal",
    ],
)
def test_killed_training_ends_with_the_bits_of_its_control(model: str, tmp_path: Path) -> None:
    """Killed with SIGKILL four times at random moments and started again, every bit and every log line is the same."""
    toll = Toll()
    kill_series(tmp_path, model, kills=4, chance=random.Random(model), toll=toll)
    assert toll.kills >= 3, "the kills came too late to find the script running"
    assert toll.differing == []


def test_killed_training_differs_when_nothing_is_restored(tmp_path: Path) -> None:
    """The negative control: a resume that forgets the optimizer does not end with the control's bits."""
    toll = Toll()
    kill_series(
        tmp_path, "dropout_batch_norm", kills=2, chance=random.Random(5), toll=toll, forget="optimizer/", inside=True
    )
    assert toll.kills, "the script came to its end before a checkpoint was seen"
    assert any("tensor model/" in name for name in toll.differing)
