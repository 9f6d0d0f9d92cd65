"""The place in the data belongs to the run, while data, batch size and shuffle stay the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keepfit
from tests.models import make


def passes(run: keepfit.Run) -> Any:
    """Return passes and batches of the current pass that are done."""
    return run.place.ends.cursor


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize(
    ("change", "goes_on"),
    [({}, True), ({"verbose": 0}, True), ({"batch_size": 5}, False), ({"shuffle": False}, False), ({"x": None}, False)],
)
def test_an_unfinished_pass_goes_on_only_over_the_same_data(
    change: dict[str, Any], goes_on: bool, durable: bool, tmp_path: Path
) -> None:
    """Two steps into a pass, the next fit takes the third batch, or begins a pass where it is about something else."""
    model, x, y = make("plain_dense")
    given: dict[str, Any] = {"x": x, "y": y, "batch_size": 10, "steps_per_epoch": 2, "verbose": 0}
    with keepfit.Run(model, tmp_path / "run" if durable else None) as run:
        run.fit(**given)
        assert (passes(run).passes, passes(run).offset) == (0, 2)
        other = {**given, **change}
        if other["x"] is None:
            other["x"] = np.asarray(x) + 1
        run.fit(**other)
        assert (passes(run).passes, passes(run).offset) == ((0, 4) if goes_on else (1, 2))
