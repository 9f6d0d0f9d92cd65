"""A fit that was recorded with another recipe: refused, said, or let pass; and how to branch off."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keepfit.errors import KeepfitWarning, RecipeChanged
from keepfit.journal import Reader
from tests.behaviour.processes import SHORT, attach_quietly, built, numbers, process
from tests.bits import differing, joined_history, state_bits
from tests.models import make


def nothing(model: Any) -> None:
    """Leave the model as the first fit left it."""


def halved(model: Any) -> None:
    model.set_weights([weight * 0.5 for weight in model.get_weights()])


def doubled(model: Any) -> None:
    model.set_weights([weight * 2 for weight in model.get_weights()])


def frozen(model: Any) -> None:
    model.layers[0].trainable = False


def slower(model: Any) -> None:
    model.optimizer.learning_rate = 1e-3


ADAM = functools.partial(keras.optimizers.Adam, 1e-2)


@dataclass(frozen=True)
class Script:
    """Two fits, each part of which another script may do otherwise.

    Args:
        optimizer: Makes the optimizer.
        loss: What is compiled with it.
        between: What is done to the model before fit 2.
        fit: Arguments of fit 2 beyond the usual ones.
    """

    optimizer: Callable[[], Any] = ADAM
    loss: Any = "mse"
    between: Callable[[Any], None] = nothing
    fit: dict[str, Any] = field(default_factory=dict)

    def begin(self, directory: Path, **settings: Any) -> Any:
        """Open the run in a new process."""
        model, _, _ = built() if directory.exists() else make("plain_dense")
        model.compile(self.optimizer(), self.loss)
        return attach_quietly(model, directory, **settings)

    def first(self, model: Any) -> Any:
        """Call fit 1, and do what comes after it."""
        x, y = data()
        history = model.fit(x, y, **SHORT)
        self.between(model)
        return history

    def second(self, model: Any, **more: Any) -> Any:
        """Call fit 2."""
        x, y = data()
        arguments = {"x": x, "y": y, "name": "main", **SHORT, **self.fit, **more}
        return model.fit(**arguments)

    def run(self, directory: Path, **settings: Any) -> tuple[Any, Any]:
        """Return state and logs after both fits in a new process."""
        model = self.begin(directory, **settings)
        try:
            histories = [self.first(model), self.second(model)]
            return state_bits(model), joined_history(histories)
        finally:
            model.run.close()


@functools.cache
def data() -> tuple[Any, Any]:
    """Return inputs, and targets that are classes."""
    _, x, y = make("plain_dense")
    return x, (y > 0).astype("float32")


def journal(directory: Path) -> tuple[Any, ...]:
    """Return all that the journal says, but for what wall clocks and sessions say."""
    with Reader.open(directory) as reader:
        return reader.fits(branch=None), reader.epochs(branch=None), reader.checkpoints(), len(reader.events())


@dataclass(frozen=True)
class Recorded:
    """A script's run, and what it ended with."""

    script: Script
    directory: Path
    end: tuple[Any, Any]

    def copy(self, target: Path) -> Path:
        """Return a copy of the run for a test of its own."""
        return Path(shutil.copytree(self.directory, target / "run"))


def recorded(script: Script, factory: pytest.TempPathFactory) -> Recorded:
    """Return the run of a script."""
    directory = factory.mktemp("recorded") / "run"
    return Recorded(script, directory, script.run(directory))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Two fits with nothing between them."""
    return recorded(Script(), tmp_path_factory)


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Two fits, the second of which begins with weights set by hand."""
    with pytest.warns(KeepfitWarning, match="set by hand"):
        return recorded(Script(between=halved), tmp_path_factory)


X, Y = data()
OTHER_VALUES = X.copy()
OTHER_VALUES[33] += 1
SGD = functools.partial(keras.optimizers.SGD, 1e-2)
OTHER_BETA = functools.partial(keras.optimizers.Adam, 1e-2, beta_1=0.8)
OTHER_RATE = functools.partial(keras.optimizers.Adam, 2e-2)

STRICT = {
    "data values": (Script(fit={"x": OTHER_VALUES}), "data", "x"),
    "targets": (Script(fit={"y": 1 - Y}), "data", "y"),
    "data shape": (Script(fit={"x": X[:60], "y": Y[:60]}), "data", "70"),
    "data dtype": (Script(fit={"x": X.astype("float64")}), "data", "dtype"),
    "batch size": (Script(fit={"batch_size": 10}), "batch_size", "recorded 16, now 10"),
    "shuffle": (Script(fit={"shuffle": False}), "shuffle", "recorded True, now False"),
    "steps per epoch": (Script(fit={"steps_per_epoch": 3}), "steps_per_epoch", "recorded none, now 3"),
    "class weight": (Script(fit={"class_weight": {0: 1.0, 1: 2.0}}), "class_weight", "recorded none, now"),
    "sample weight": (Script(fit={"sample_weight": np.arange(70.0)}), "data", "sample_weight"),
    "loss": (Script(loss="mae"), "loss", '"mse"'),
    "optimizer class": (Script(optimizer=SGD), "optimizer", "SGD"),
    "optimizer config": (Script(optimizer=OTHER_BETA), "optimizer.beta_1", "recorded 0.9, now 0.8"),
    "rate at the start": (Script(optimizer=OTHER_RATE), "learning_rate", "recorded 0.01, now 0.02"),
    "rate set by hand": (Script(between=slower), "learning_rate", "recorded 0.01, now 0.001"),
    "trained variables": (Script(between=frozen), "trainable", "dense/kernel"),
    "fewer epochs": (Script(fit={"epochs": 1}), "epochs", "recorded 2, now 1"),
    "name": (Script(fit={"name": "other"}), "name", 'recorded "main", now "other"'),
    "no name": (Script(fit={"name": None}), "name", 'recorded "main", now none'),
    "state set by hand": (Script(between=halved), "start", "model/dense"),
}


def refused(recorded: Recorded, script: Script, directory: Path) -> RecipeChanged:
    """Run another script on a recorded run; what it raises is returned, after nothing was found changed."""
    model = script.begin(directory)
    try:
        call: Callable[[Any], Any] = script.first
        try:
            script.first(model)
        except RecipeChanged:
            pass
        else:
            call = script.second
        model.run.recorder.flush()
        before, bits, position = journal(directory), state_bits(model), model.run.position
        with pytest.raises(RecipeChanged) as caught:
            call(model)
        model.run.recorder.flush()
        assert journal(directory) == before
        assert differing(bits, state_bits(model)) == []
        assert model.run.position == position
    finally:
        model.run.close()
    again = recorded.script.run(directory)
    assert differing(again[0], recorded.end[0]) == []
    assert again[1] == recorded.end[1]
    return caught.value


@pytest.mark.filterwarnings("ignore:Other layers train")
@pytest.mark.parametrize("thing", STRICT)
def test_change_raises_and_changes_nothing(thing: str, plain: Recorded, tmp_path: Path) -> None:
    """The error names what differs, the journal stays as it was, and the right script replays after it."""
    script, path, told = STRICT[thing]
    error = refused(plain, script, plain.copy(tmp_path))
    assert {found.split(".")[0] for found in error.differences} == {path.split(".")[0]}
    assert path in str(error)
    assert told in str(error)
    assert "Nothing was changed" in str(error)
    assert error.fit == (1 if script.optimizer is not ADAM or script.loss != "mse" else 2)


@pytest.mark.parametrize("between", [nothing, doubled])
def test_other_start_state_raises(between: Callable[[Any], None], by_hand: Recorded, tmp_path: Path) -> None:
    """Weights that were set by hand must be set again, to the same values."""
    error = refused(by_hand, Script(between=between), by_hand.copy(tmp_path))
    assert all(path.startswith("start") for path in error.differences)
    assert "start.model/dense/kernel" in error.differences
    assert error.fit == 2


def test_error_names_the_fit_and_the_ways_on(plain: Recorded, tmp_path: Path) -> None:
    """It says which fit, that nothing was changed, how to branch, how to fork, and asks about the split."""
    error = refused(plain, Script(fit={"x": OTHER_VALUES}), plain.copy(tmp_path))
    for text in (
        'Fit 2 ("main") was recorded with another recipe: 1 difference',
        "split, shuffled or generated without a seed?",
        'on_change="branch"',
        "after fit 1",
        "run.fork(",
    ):
        assert text in str(error)


def test_error_tells_at_most_five_differences(plain: Recorded, tmp_path: Path) -> None:
    """Of seven differences five are told and two are counted; all are there for a program."""
    many = {
        "x": OTHER_VALUES,
        "batch_size": 10,
        "shuffle": False,
        "steps_per_epoch": 2,
        "class_weight": {0: 1.0, 1: 2.0},
        "epochs": 1,
        "name": "other",
    }
    error = refused(plain, Script(fit=many), plain.copy(tmp_path))
    assert len(error.differences) == 7
    assert sum(f"  {path}:" in str(error) for path in error.differences) == 5
    assert "and 2 more" in str(error)


# What is said and recorded


def squared(scale: float) -> Any:
    """Return a loss with a value in its closure."""

    def error(y: Any, prediction: Any) -> Any:
        return keras.ops.mean((y - prediction) ** 2) * scale

    return error


def rewritten() -> Any:
    """Return a loss of the same name with another body."""

    def error(y: Any, prediction: Any) -> Any:
        difference = y - prediction
        return keras.ops.mean(keras.ops.abs(difference) ** 2) * 1.0

    error.__qualname__ = squared(1.0).__qualname__
    return error


class Scaled(keras.losses.Loss):
    """A loss class of the script."""

    def call(self, y: Any, prediction: Any) -> Any:
        return keras.ops.mean((y - prediction) ** 2, axis=-1)


def scaled_again() -> Any:
    """Return a loss of a class of the same name with another body."""

    class Again(keras.losses.Loss):
        def call(self, y: Any, prediction: Any) -> Any:
            return keras.ops.mean(keras.ops.square(y - prediction), axis=-1)

    Again.__name__ = Again.__qualname__ = "Scaled"
    return Again()


def stopping(patience: int) -> dict[str, Any]:
    """Return callbacks of which one has a config."""
    return {"callbacks": [keras.callbacks.EarlyStopping("loss", patience=patience)]}


def logged(greeting: str) -> dict[str, Any]:
    """Return callbacks of which one is a function with a value in its closure."""
    return {"callbacks": [keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: greeting)]}


WARNED = {
    "body of a loss": (Script(loss=squared(1.0)), Script(loss=rewritten()), "loss"),
    "closure of a loss": (Script(loss=squared(1.0)), Script(loss=squared(2.0)), "loss"),
    "body of a loss class": (Script(loss=Scaled()), Script(loss=scaled_again()), "loss"),
    "config of a callback": (
        Script(fit=stopping(3)),
        Script(fit=stopping(5)),
        "callbacks.keras.EarlyStopping.settings.patience",
    ),
    "closure of a callback": (Script(fit=logged("a")), Script(fit=logged("b")), "callbacks"),
    "another callback": (Script(), Script(fit=stopping(5)), "callbacks"),
}


@pytest.mark.parametrize("thing", WARNED)
def test_change_of_code_or_callbacks_warns(thing: str, tmp_path: Path) -> None:
    """The fit replays; a warning and an event say what differs."""
    first, second, path = WARNED[thing]
    end = first.run(tmp_path / "run")
    with pytest.warns(KeepfitWarning, match=rf"Fit \d was recorded .* is not trained again .*: .*{path}.*: recorded"):
        again = second.run(tmp_path / "run")
    with Reader.open(tmp_path / "run") as reader:
        events = [event.message for event in reader.events() if event.kind == "recipe"]
    assert events
    assert all(path in message for message in events)
    assert differing(end[0], again[0]) == []
    assert end[1] == again[1]


# What is let pass


def outputs(folder: Path, number: int) -> list[Any]:
    """Return callbacks that write files below a folder."""
    return [
        keras.callbacks.CSVLogger(folder / f"log {number}.csv"),
        keras.callbacks.ModelCheckpoint(folder / f"model {number}.keras", verbose=0),
        keras.callbacks.TerminateOnNaN(),
    ]


@pytest.mark.parametrize("thing", ["verbose", "files", "fresh", "on_change"])
def test_output_is_no_part_of_the_recipe(thing: str, plain: Recorded, tmp_path: Path) -> None:
    """Other verbosity and other places of output replay without a word."""
    change: Any
    if thing == "files":
        directory = tmp_path / "run"
        end = Script(fit={"callbacks": outputs(tmp_path, 1)}).run(directory)
        change = {"callbacks": outputs(tmp_path, 2)}
    else:
        directory, end = plain.copy(tmp_path), plain.end
        change = {"verbose": {"verbose": 2}, "fresh": {"fresh": ["optimizer"]}, "on_change": {"on_change": "branch"}}[
            thing
        ]
    again = Script(fit=change).run(directory)
    assert differing(again[0], end[0]) == []
    assert again[1] == end[1]


# Branches


@pytest.mark.parametrize("where", ["attach", "fit"])
def test_branch_goes_on_after_the_fit_before(where: str, plain: Recorded, tmp_path: Path) -> None:
    """The recorded fit is closed and kept, the new one trains from the one before, and a later process replays it."""
    directory = plain.copy(tmp_path)
    other = Script(fit={"batch_size": 10})
    model = other.begin(directory, **({"on_change": "branch"} if where == "attach" else {}))
    other.first(model)
    with pytest.warns(KeepfitWarning, match=r"Fit 2 has another recipe than recorded \(batch_size\).*after fit 1"):
        other.second(model, **({"on_change": "branch"} if where == "fit" else {}))
    branch = state_bits(model), model.run.position
    closed = model.run.recorder.closed_fits
    assert [(record.number, record.branch, record.name) for record in closed] == [(2, 1, "main")]
    assert numbers(model.run) == {1: "finished", 2: "finished"}
    model.run.close()

    control = other.run(tmp_path / "control")
    assert differing(control[0], branch[0]) == []
    later = other.run(directory)
    assert differing(later[0], branch[0]) == []
    assert later[1] == control[1]
    with Reader.open(directory) as reader:
        assert [(record.branch, record.number) for record in reader.fits(branch=None)] == [(0, 1), (0, 2), (1, 2)]
        assert {(c.branch, c.fit) for c in reader.checkpoints(branch=None) if c.kind == "end"} >= {(1, 2), (0, 2)}
    with pytest.raises(RecipeChanged, match="batch_size"):
        plain.script.run(directory)


def three_fits(directory: Path, *batch_sizes: int, **settings: Any) -> tuple[dict[str, Any], list[int], Any]:
    """Return end state, numbers of closed fits and position after three fits in a new process."""
    with process(directory, **settings) as (model, x, y):
        for batch_size in batch_sizes:
            model.fit(x, y, **{**SHORT, "batch_size": batch_size})
        assert numbers(model.run) == dict.fromkeys((1, 2, 3), "finished")
        return state_bits(model), [record.number for record in model.run.recorder.closed_fits], model.run.position


def test_branch_closes_all_that_follows(tmp_path: Path) -> None:
    """Fits k and later go together, with one warning: every later fit of the script is trained anew."""
    three_fits(tmp_path / "run", 16, 16, 16)
    with pytest.warns(KeepfitWarning, match="Fit 2 has another recipe") as caught:
        branch = three_fits(tmp_path / "run", 16, 10, 16, on_change="branch")
    assert [item.category for item in caught].count(KeepfitWarning) == 1
    assert branch[1] == [2, 3]
    assert three_fits(tmp_path / "run", 16, 10, 16) == branch
    control = three_fits(tmp_path / "control", 16, 10, 16)
    assert differing(control[0], branch[0]) == []
    assert control[2] == branch[2]


def test_branch_from_the_first_fit_begins_at_the_start(plain: Recorded, tmp_path: Path) -> None:
    """Another first fit is trained from checkpoint 0."""
    other = Script(optimizer=OTHER_RATE)
    directory = plain.copy(tmp_path)
    with pytest.warns(KeepfitWarning, match=r"Fit 1 has another recipe than recorded \(learning_rate\)"):
        found = other.run(directory, on_change="branch")
    control = other.run(tmp_path / "control")
    assert differing(found[0], control[0]) == []
    assert found[1] == control[1]


def test_shorter_fit_can_be_branched_to(plain: Recorded, tmp_path: Path) -> None:
    """Fewer epochs are a change like others: the branch is that long."""
    shorter = Script(fit={"epochs": 1})
    with pytest.warns(KeepfitWarning, match=r"Fit 2 has another recipe than recorded \(epochs\)"):
        _, logs = shorter.run(plain.copy(tmp_path), on_change="branch")
    assert logs["epoch"] == [0, 1, 2]
    assert logs["loss"] == plain.end[1]["loss"][:3]
