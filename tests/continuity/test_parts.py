"""Every part of a checkpoint decides the future: with it a resumed fit has every bit, without it it has not."""

from __future__ import annotations

import importlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit import fitting, loop
from keepfit.errors import KeepfitWarning
from keepfit.feed import Cursor
from keepfit.snapshot import PARTS, Snapshot
from tests.bits import differing, joined_history, state_bits
from tests.models import make


class Stop(Exception):
    """What ends the first process."""


class FailAt(keras.callbacks.Callback):
    """End the process after as many steps as the environment says, which no recipe tells of."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps += 1
        if self.steps == int(os.environ.get("FAIL_AT_STEP", "0")):
            raise Stop


class RandomRate(keras.callbacks.Callback):
    """Draw a learning rate from NumPy's global generator in every epoch."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.optimizer.learning_rate = float(np.random.uniform(0.001, 0.02))


# Parts of which another test shows that a resume without them is noticed: the last two below, and those of
# test_validation_places, test_leaks and test_settings.
ELSEWHERE = ("plan", "stop_training", "validation", "trained", "attributes")


class StopAfterThree(keras.callbacks.Callback):
    """Ask to stop at the end of the third epoch."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if epoch == 2:
            self.model.stop_training = True


def arguments() -> dict[str, Any]:
    """Return what every process gives to ``fit``, with new callback objects."""
    patience = keras.callbacks.EarlyStopping("loss", patience=3, min_delta=1e9, start_from_epoch=1)
    return {"batch_size": 16, "epochs": 6, "verbose": 0, "callbacks": [RandomRate(), patience, FailAt()]}


def train(directory: Path, *, times: int) -> tuple[Any, Any, Any]:
    """Train in ``times`` processes, of which all but the last end early; return state, logs and position."""
    for turn in range(times):
        model, x, y = make("dropout_batch_norm")
        os.environ["FAIL_AT_STEP"] = str(13 * (turn + 1)) if turn < times - 1 else "0"
        run = keepfit.Run(model, directory)
        try:
            history = run.fit(x, y, **arguments())
        except Stop:
            run.close()
            continue
        result = state_bits(model), joined_history([history]), run.position
        run.close()
        return result
    raise AssertionError


def without(part: str, snapshot: Snapshot) -> Snapshot:
    """Return a snapshot that has lost one part."""
    prefixes = {"model": ("model/",), "optimizers": ("optimizer/", "optimizers/"), "metrics": ("metrics/",)}
    tensors = {k: v for k, v in snapshot.tensors.items() if not k.startswith(prefixes.get(part, ("\0",)))}
    state = dict(snapshot.state)
    if part == "callbacks":
        state["callbacks"] = []
    elif part == "source":
        state["cursor"] = Cursor().to_json()
    elif part == "position":
        state["position"] = {"fit": 0, "epoch": 0, "step": 0, "samples": 0}
    elif part == "randomness":
        del state["randomness"]
    return replace(snapshot, tensors=tensors, state=state)


def test_resumed_fit_has_every_bit(tmp_path: Path) -> None:
    """A fit that ended within an epoch and goes on in a new process ends as if it had never stopped."""
    whole, resumed = train(tmp_path / "whole", times=1), train(tmp_path / "cut", times=2)
    assert differing(whole[0], resumed[0]) == []
    assert whole[1:] == resumed[1:]


def test_fit_interrupted_again_and_again_has_every_bit(tmp_path: Path) -> None:
    """Three processes in a row change nothing: the steps that a callback has counted go on, too."""
    whole, resumed = train(tmp_path / "whole", times=1), train(tmp_path / "cut", times=3)
    assert differing(whole[0], resumed[0]) == []
    assert whole[1:] == resumed[1:]


@pytest.mark.filterwarnings("ignore::keepfit.errors.KeepfitWarning")
@pytest.mark.parametrize("part", [part for part in PARTS if part not in ELSEWHERE])
def test_resumed_fit_differs_without(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a resume that leaves a part out is noticed; of parts of ELSEWHERE other tests say it."""
    whole = train(tmp_path / "whole", times=1)
    parted = fitting.parted
    monkeypatch.setattr(fitting, "parted", lambda *given: tuple(without(part, end) for end in parted(*given)))
    cut = train(tmp_path / "cut", times=2)
    assert differing(whole[0], cut[0]) or whole[1:] != cut[1:]


@pytest.fixture(autouse=True)
def _leave_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the environment back after each test."""
    monkeypatch.setenv("FAIL_AT_STEP", "0")


@pytest.mark.parametrize("lost", [False, True])
def test_wish_to_stop_survives_an_interruption(lost: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A callback that asked to stop just before a kill is heeded by the next process; without the flag it is not."""
    model, x, y = make("plain_dense")
    asked = {"epochs": 6, "verbose": 0, "callbacks": [StopAfterThree()]}
    with keepfit.Run(model, tmp_path) as run:
        run.recorder.due = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr(loop.FitLoop, "_end", _raise_stop)
        with pytest.raises(Stop):
            run.fit(x, y, **asked)
        monkeypatch.undo()
    if lost:
        parted = fitting.parted
        monkeypatch.setattr(
            fitting,
            "parted",
            lambda *given: tuple(replace(end, state={**end.state, "stop_training": False}) for end in parted(*given)),
        )
    model, x, y = make("plain_dense")
    with keepfit.Run(model, tmp_path) as run:
        history = run.fit(x, y, **asked)
    assert history.epoch == ([0, 1, 2, 3, 4, 5] if lost else [0, 1, 2])


def _raise_stop(self: Any) -> Any:
    raise Stop


def test_another_plan_on_resume_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed fit that runs under other conditions says so; with the plan left out of the state it cannot."""
    train_once = lambda: train(tmp_path, times=1)  # noqa: E731
    model, x, y = make("dropout_batch_norm")
    run = keepfit.Run(model, tmp_path)
    monkeypatch.setenv("FAIL_AT_STEP", "13")
    with pytest.raises(Stop):
        run.fit(x, y, **arguments())
    run.close()
    engine = importlib.import_module(f"keepfit.engine.{keras.backend.backend()}")
    facts = {**engine._device_facts(), "threads": 77}
    monkeypatch.setattr(engine, "_device_facts", lambda: facts)
    with pytest.warns(KeepfitWarning, match="threads: .* before, 77 now"):
        train_once()


def test_snapshot_names_every_part() -> None:
    """The list of parts and what a snapshot holds are the same: a new part must be added to both."""
    model, x, y = make("dropout_batch_norm")
    run = keepfit.Run(model)
    run.fit(x, y, verbose=0)
    held = run.place.ends.resume
    assert set(held.state) == {
        "position",
        "progress",
        "cursor",
        "source",
        "validation",
        "callbacks",
        "randomness",
        "trained",
        "plan",
        "stop_training",
        "attributes",
    }
    assert {name.split("/")[0] for name in held.tensors} == {"model", "optimizer", "metrics", "trained"}
