"""What keepfit show says of partitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.models import make

import keepfit
from keepfit.cli.folder import read_folder
from keepfit.cli.parts import partition_lines


def test_partitions_and_the_place_in_them_are_listed(tmp_path: Path) -> None:
    """Their files and sizes, and how far the newest checkpoint stands in the pass."""
    model, x, y = make("plain_dense")
    paths = []
    for number in range(7):
        paths.append(tmp_path / f"part-{number}.npz")
        np.savez(paths[-1], x=x[number * 10 : number * 10 + 10], y=y[number * 10 : number * 10 + 10])
    with keepfit.Run(model, tmp_path / "run") as run:
        run.fit(x, y, verbose=0)
        run.fit(keepfit.partitions(paths, window=2), batch_size=8, epochs=2, steps_per_epoch=3, verbose=0)
    folder = read_folder(tmp_path / "run")
    assert partition_lines(folder.history.records, folder.checkpoints) == [
        "fit 2: 7 partitions with 70 samples, 2 mixed at once",
        *[f"  part-{number}.npz: 10 samples" for number in range(6)],
        "  and 1 more, the last one part-6.npz",
        f"position at checkpoint {folder.checkpoints[-1].id}: 1 whole pass and 48 of 70 samples",
    ]
    assert partition_lines(folder.history.records[:1], folder.checkpoints) == []
