"""``mode="append"``: every process adds fits after those that are finished."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keepfit
from keepfit.errors import KeepfitWarning, RecipeChanged
from keepfit.journal import Reader
from tests.behaviour.processes import SHORT, Interrupt, built, interrupt, numbers, process
from tests.bits import differing, state_bits
from tests.models import make


def appended(directory: Path, *fits: dict[str, Any]) -> list[Any]:
    """Return epochs, state and position after each fit of one process."""
    found: list[Any] = []
    with process(directory, mode="append") as (model, x, y):
        for fit in fits:
            history = model.fit(x, y, **{**SHORT, **fit})
            found.append((history.epoch, state_bits(model), model.run.position))
    return found


def test_numbers_start_after_the_last_finished_fit(tmp_path: Path) -> None:
    """Processes that each add a fit end in the bits of one process that makes them all."""
    parts = [appended(tmp_path / "parts", {"epochs": epochs})[0] for epochs in (2, 1, 2)]
    whole = appended(tmp_path / "whole", {"epochs": 2}, {"epochs": 1}, {"epochs": 2})
    assert [part[0] for part in parts] == [[0, 1], [2], [3, 4]]
    for part, fit in zip(parts, whole, strict=True):
        assert differing(part[1], fit[1]) == []
        assert (part[0], part[2]) == (fit[0], fit[2])


def test_position_stands_at_the_end(tmp_path: Path) -> None:
    """A new process stands after everything that is finished, with the model in that state."""
    ((_, end, position),) = appended(tmp_path / "run", {})
    with process(tmp_path / "run", mode="append") as (model, x, y):
        assert model.run.position == position
        assert len(model.run.history) == 1
        assert model.run.load() == 1
        optimizerless = {name: bits for name, bits in state_bits(model).items() if name.startswith("model/")}
        assert differing(optimizerless, {name: end[name] for name in optimizerless}) == []
        again = model.evaluate(x, y, verbose=0)
        assert differing(state_bits(model), end) == []
    with process(tmp_path / "run") as (model, x, y):
        model.fit(x, y, **SHORT)
        assert model.evaluate(x, y, verbose=0) == again


def test_run_that_replayed_can_be_appended_to(tmp_path: Path) -> None:
    """The mode belongs to a process, not to the folder."""
    with process(tmp_path / "run") as (model, x, y):
        model.fit(x, y, **SHORT)
    assert appended(tmp_path / "run", {})[0][0] == [2, 3]
    with process(tmp_path / "run") as (model, x, y):
        assert [model.fit(x, y, **SHORT).epoch for _ in range(2)] == [[0, 1], [2, 3]]
        assert len(model.run.recorder.epochs) == 4


@pytest.mark.parametrize("name", [None, "november"])
def test_interrupted_fit_goes_on(name: str | None, tmp_path: Path) -> None:
    """The same call in a new process goes on inside the fit that was interrupted, to the same bits."""
    arguments = {**SHORT, "epochs": 3, "name": name}
    with process(tmp_path / "run", mode="append") as (model, x, y):
        model.fit(x, y, **SHORT)
        interrupt(model, x, y, epoch=3, **arguments)
    with process(tmp_path / "run", mode="append") as (model, x, y):
        assert model.run.position.fit == 1
        history = model.fit(x, y, callbacks=[Interrupt(3, armed=False)], **arguments)
        assert history.epoch == [2, 3, 4]
        assert numbers(model.run) == {1: "finished", 2: "finished"}
        found = state_bits(model), model.run.position
    whole = appended(tmp_path / "whole", {}, {"epochs": 3, "name": name, "callbacks": [Interrupt(9, armed=False)]})
    assert differing(whole[1][1], found[0]) == []
    assert whole[1][2] == found[1]


@pytest.mark.filterwarnings("ignore:Fit 3 is a new phase")
def test_other_fit_after_an_interrupted_one_closes_it(tmp_path: Path) -> None:
    """With other data the interrupted fit is closed as it stands, as in one process, and a new one begins."""
    with process(tmp_path / "run", mode="append") as (model, x, y):
        model.fit(x, y, **SHORT)
        interrupt(model, x, y, epoch=2, **{**SHORT, "epochs": 3})
    with process(tmp_path / "run", mode="append") as (model, x, y):
        with pytest.warns(KeepfitWarning, match="interrupted"):
            model.fit(x[:50], y[:50], **SHORT)
        assert numbers(model.run) == {1: "finished", 2: "closed", 3: "finished"}
        epochs = [(epoch.fit, epoch.epoch) for epoch in model.run.recorder.epochs]
        assert [epoch for _, epoch in epochs] == list(range(len(epochs)))


@pytest.mark.filterwarnings("ignore:Fit 1 was interrupted in an earlier", "ignore:Fit 2 is a new phase")
def test_replay_never_trains_before_fits_that_are_finished(tmp_path: Path) -> None:
    """A fit that others came after is not gone on with: what they recorded stays."""
    arguments = {**SHORT, "epochs": 3}
    with process(tmp_path / "run", mode="append") as (model, x, y):
        interrupt(model, x, y, epoch=0, **arguments)
    with process(tmp_path / "run", mode="append") as (model, x, y):
        model.fit(x[:50], y[:50], **SHORT)
        last = max(numbers(model.run))
        assert len(model.run.recorder.epochs.of(last)) == 2
    with process(tmp_path / "run") as (model, x, y):
        with contextlib.suppress(RecipeChanged):
            model.fit(x, y, callbacks=[Interrupt(0, armed=False)], **arguments)
        assert len(model.run.recorder.epochs.of(last)) == 2


def test_name_that_the_journal_has_trains_nothing(tmp_path: Path) -> None:
    """A retried month returns what it returned, and the next one is new."""
    first = appended(tmp_path / "run", {"name": "october"}, {"name": "november"})
    with Reader.open(tmp_path / "run") as reader:
        epochs = len(reader.epochs())
    again = appended(tmp_path / "run", {"name": "november"})
    assert again[0][0] == [2, 3]
    assert differing(first[1][1], again[0][1]) == []
    assert again[0][2] == first[1][2]
    with Reader.open(tmp_path / "run") as reader:
        assert len(reader.epochs()) == epochs
    assert appended(tmp_path / "run", {"name": "december"})[0][0] == [4, 5]


def test_earlier_name_leaves_the_run_at_its_end(tmp_path: Path) -> None:
    """Retrying an early month leaves position and model at the end, so that the next month goes on from there."""
    appended(tmp_path / "run", {"name": "october"}, {"name": "november"})
    retried = appended(tmp_path / "run", {"name": "october"}, {"name": "december"})
    whole = appended(tmp_path / "whole", {"name": "october"}, {"name": "november"}, {"name": "december"})
    assert retried[0][0] == [0, 1]
    assert retried[0][2] == whole[1][2]
    assert retried[1][0] == whole[2][0] == [4, 5]
    assert differing(retried[1][1], whole[2][1]) == []


def test_name_with_another_recipe_raises(tmp_path: Path) -> None:
    """A month is not silently another month's data."""
    appended(tmp_path / "run", {"name": "october"}, {"name": "november"})
    with process(tmp_path / "run", mode="append") as (model, x, y):
        with pytest.raises(RecipeChanged, match=r'Fit 1 \("october"\) .*\n.*data: '):
            model.fit(x[:50], y[:50], name="october", **SHORT)
        assert model.run.position.fit == 2


def test_train_on_batch_is_kept(tmp_path: Path) -> None:
    """Single batches count in the position and are there in a new process, before the first fit and after one."""
    for fits in (0, 1):
        directory = tmp_path / str(fits)
        with process(directory, mode="append") as (model, x, y):
            for _ in range(fits):
                model.fit(x, y, **SHORT)
            for _ in range(2):
                model.train_on_batch(x[:10], y[:10])
            end, position = state_bits(model), model.run.position
        assert (position.step, position.samples, position.epoch) == (10 * fits + 2, 140 * fits + 20, 2 * fits)
        with process(directory, mode="append") as (model, x, y):
            assert model.run.position == position
            model.evaluate(x, y, verbose=0)
            assert differing(end, state_bits(model)) == []


def test_fit_after_batches_is_the_same_in_another_process(tmp_path: Path) -> None:
    """Whether a process ends between single batches and a fit changes neither bits nor journal."""
    ends, phases = [], []
    for folder in ("whole", "parts"):
        model, x, y = make("averaged_weights")
        run = keepfit.Run(model, tmp_path / folder, mode="append")
        run.fit(x, y, **SHORT)
        run.train_on_batch(x[:10], y[:10])
        if folder == "parts":
            run.close()
            model, x, y = built("averaged_weights")
            run = keepfit.Run(model, tmp_path / folder, mode="append")
        with pytest.warns(KeepfitWarning, match="Fit 2 is a new phase"):
            run.fit(x, y, **SHORT)
        ends.append((state_bits(model), run.position))
        phases.append([(record.phase, record.first_step) for record in run.recorder.fits.values()])
        run.close()
    assert phases[0] == phases[1]
    assert differing(ends[0][0], ends[1][0]) == []
    assert ends[0][1] == ends[1][1]


def test_train_on_batch_elsewhere_says_that_it_is_not_kept(tmp_path: Path) -> None:
    """In a run that replays one warning says so, once; in memory there is nothing to say."""
    with process(tmp_path / "run") as (model, x, y):
        with pytest.warns(KeepfitWarning, match=r'train_on_batch\(\) is not recorded .* mode="append"'):
            model.train_on_batch(x[:10], y[:10])
        model.train_on_batch(x[:10], y[:10])
        assert model.run.position.step == 2
    model, x, y = make("plain_dense")
    with keepfit.Run(model) as run:
        run.train_on_batch(x[:10], y[:10])
        assert run.position.step == 1


def test_data_that_has_grown_is_pointed_to_append(tmp_path: Path) -> None:
    """A replay with more rows is refused with a word about append; append takes it as a new fit."""
    with process(tmp_path / "run") as (model, x, y):
        model.fit(x[:50], y[:50], **SHORT)
    with process(tmp_path / "run") as (model, x, y), pytest.raises(RecipeChanged) as caught:
        model.fit(x, y, **SHORT)
    assert "x has grown from 50 to 70 rows with the same first rows" in str(caught.value)
    assert 'mode="append"' in str(caught.value)
    assert "without a seed" not in str(caught.value)
    with process(tmp_path / "run", mode="append") as (model, x, y):
        assert model.fit(x, y, **SHORT).epoch == [2, 3]


def test_data_that_shrank_is_not_pointed_to_append(tmp_path: Path) -> None:
    """Fewer rows are no new month."""
    with process(tmp_path / "run") as (model, x, y):
        model.fit(x, y, **SHORT)
    with process(tmp_path / "run") as (model, x, y), pytest.raises(RecipeChanged) as caught:
        model.fit(x[:50], y[:50], **SHORT)
    assert 'mode="append"' not in str(caught.value)


def test_weights_set_by_hand_begin_a_new_phase(tmp_path: Path) -> None:
    """What a process sets before it appends is part of the new fit, and is never refused."""
    appended(tmp_path / "run", {})
    with process(tmp_path / "run", mode="append") as (model, x, y):
        model.layers[0].set_weights([np.ones((6, 8)), np.zeros(8)])
        with pytest.warns(KeepfitWarning, match="Fit 2 is a new phase: 2 variables were set by hand"):
            model.fit(x, y, **SHORT)
