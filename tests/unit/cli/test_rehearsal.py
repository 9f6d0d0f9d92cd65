"""What keepfit show says of rehearsal."""

from __future__ import annotations

from pathlib import Path

from tests.models import make

import keepfit
from keepfit.cli.folder import read_folder
from keepfit.cli.rehearsal import rehearsal_lines


def test_kept_samples_and_fits_that_rehearse_are_listed(tmp_path: Path) -> None:
    """How many of how many, their bytes on disk, the share of each epoch, and which fits they came from."""
    model, x, y = make("plain_dense")
    with keepfit.Run(model, tmp_path / "run", reservoir=70) as run:
        for number in range(3):
            run.fit(x + number, y, validation_data=(x, y), rehearse=0.25, verbose=0)
        kept = [each.samples for each in run.past.register.of("source")]
    folder = read_folder(tmp_path / "run")
    lines = rehearsal_lines(folder.meta, folder.history.records)
    assert kept[0] == 70
    assert any(line.startswith("fit 1: 70 of 70 samples kept for later fits (") for line in lines)
    assert any(line.startswith("fit 1: 70 of 70 samples kept of its validation set (") for line in lines)
    assert any(line.startswith(f"fit 3: {kept[2]} of 70 samples kept for later fits (") for line in lines)
    assert lines[-2:] == [
        "fit 2: 0.25 of each epoch are earlier samples, of 70 samples from fit 1",
        "fit 3: 0.25 of each epoch are earlier samples, of 70 samples from fits 1, 2",
    ]
    assert "0 B" not in " ".join(lines)
    assert rehearsal_lines({}, folder.history.records[:1]) == []
