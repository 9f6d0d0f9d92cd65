"""Calls of fit that fail late, in the middle of things, or inside another: nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit.errors import FitUnderWay, InvalidArgument, InvalidData
from tests.bits import differing, state_bits
from tests.models import make
from tests.unchanged import Batches, batches, begun, refuse, train, two_fits, unchanged

Given = Callable[[Any, Any], dict[str, Any]]


def refused(name: str, given: Given, words: str, error: type[Exception] = InvalidData) -> Any:
    """Return a case that keepfit refuses before Keras would find it, much later."""
    return pytest.param(given, error, words, id=name)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        *(
            refused(
                f"validation_freq {value}",
                lambda x, y, value=value: {"validation_data": (x, y), "validation_freq": value},
                "validation_freq",
                InvalidArgument,
            )
            for value in (0, -1, 1.5, "2", ["two"])
        ),
        *(
            refused(f"fresh {value}", lambda x, y, value=value: {"fresh": [value]}, "fresh", InvalidArgument)
            for value in ("optimiser", 3)
        ),
        refused("class", lambda x, y: {"callbacks": [keras.callbacks.EarlyStopping]}, "callbacks", InvalidArgument),
        refused("array of epochs", lambda x, y: {"epochs": np.array([1, 2])}, "epochs", InvalidArgument),
        *(
            refused(
                f"validation_data of {len(value)}",
                lambda x, y, value=value: {"validation_data": value},
                "validation_data=.*tuple of",
                InvalidArgument,
            )
            for value in ((), (1, 2, 3, 4))
        ),
        refused("no targets to validate", lambda x, y: {"validation_data": (x,)}, "validation data has no targets"),
        refused("no targets", lambda x, y: {"y": None}, r"first batch has no targets \(y\)"),
        refused("no arrays", lambda x, y: {"x": []}, "There is no data"),
        refused("uneven batch", lambda x, y: {"x": ((x, y[:3]) for _ in "ab"), "y": None}, r"(?s)\[0\]: 70.*\[1\]: 3"),
        refused("empty batch", lambda x, y: {"x": Batches(x[:0], y[:0]), "y": None}, "it has 0 samples"),
        refused(
            "tuple of four", lambda x, y: {"x": ((x, y, y, y) for _ in "ab"), "y": None}, "first batch is a tuple of 4"
        ),
    ],
)
def test_bad_argument_that_keras_would_find_late(
    given: Given, error: type[Exception], words: str, tmp_path: Path
) -> None:
    """It is refused before anything changes, too."""
    run, x, y = begun(tmp_path / "run")
    arguments = {"x": x, "y": y, "verbose": 0, **given(x, y)}
    refuse(run, lambda: run.fit(**arguments), error, words)
    train(run, x, y)
    assert differing(two_fits(), state_bits(run.model)) == []


@pytest.mark.filterwarnings("ignore:BackupAndRestore does nothing here")
def test_refused_call_leaves_no_event_behind(tmp_path: Path) -> None:
    """Also a call that is refused after something was to be said leaves the journal as it was."""
    run, x, y = begun(tmp_path / "run")
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    refuse(run, lambda: run.fit(x, y[:3], callbacks=[backup], verbose=0), InvalidData, "ambiguous")


# What each backend says of shapes that do not go together.
SHAPES: dict[str, tuple[type[Exception], str]] = {
    "jax": (ValueError, "Incompatible shapes"),
    "tensorflow": (ValueError, "Dimensions must be equal"),
    "torch": (RuntimeError, "size of tensor a"),
}
DOES_NOT_FIT: dict[str, tuple[Given, type[Exception], str]] = {
    "width": (lambda x, y: {"x": x[:, :3]}, ValueError, "expected axis -1 of input shape to have value 6"),
    "structure of x": (lambda x, y: {"x": {"a": x}}, ValueError, "doesn't match the expected structure"),
    "structure of y": (lambda x, y: {"y": (y, y)}, ValueError, "different structures"),
    "weights": (lambda x, y: {"sample_weight": np.ones((70, 3, 2))}, *SHAPES[keras.backend.backend()]),
}


@pytest.mark.parametrize("plan", [None, "fused", "stepwise"])
def test_data_that_does_not_fit_the_model_changes_nothing(plan: str | None, tmp_path: Path) -> None:
    """Keras's own error comes through, and neither model nor journal knows of the call."""
    run, x, y = begun(tmp_path / "run", plan=plan)
    for given, error, words in DOES_NOT_FIT.values():
        with unchanged(run), pytest.raises(error, match=words):
            run.fit(**{"x": x, "y": y, "verbose": 0, **given(x, y)})
    train(run, x, y)
    assert plan is not None or differing(two_fits(), state_bits(run.model)) == []


def test_validation_data_that_does_not_fit_the_model_is_found_before_training(tmp_path: Path) -> None:
    """Validation data that the model cannot take costs no epoch."""
    run, x, y = begun(tmp_path / "run")
    with unchanged(run), pytest.raises(ValueError, match="expected axis -1"):
        run.fit(x, y, validation_data=(x[:, :3], y), verbose=0)


@pytest.mark.parametrize(
    ("plan", "given"),
    [
        (None, lambda x, y: {"x": x[:, :3]}),
        (None, lambda x, y: {"epochs": -1}),
        ("fused", lambda x, y: {"x": x[:, :3]}),
        ("stepwise", lambda x, y: {"y": None}),
        (None, lambda x, y: {"callbacks": [FailsAtOnce()]}),
        (None, lambda x, y: {"validation_data": (x[:, :3], y)}),
    ],
)
@pytest.mark.filterwarnings("ignore:Fit 2 is a new phase")
def test_corrected_script_goes_on_where_the_wrong_one_failed(plan: str | None, given: Given, tmp_path: Path) -> None:
    """A script that failed with an error and was put right continues its run in a new process."""
    run, x, y = begun(tmp_path / "run", plan=plan)
    with pytest.raises((ValueError, ArithmeticError)):
        run.fit(**{"x": x, "y": y, "verbose": 0, **given(x, y)})
    run.close()
    again, x, y = begun(tmp_path / "run", plan=plan)
    train(again, x, y)
    assert [(fit.number, fit.status) for fit in again.recorder.fits.values()] == [(1, "finished"), (2, "finished")]


def test_call_that_failed_at_its_first_step_gives_way_to_another(tmp_path: Path) -> None:
    """In the same process too, a fit that trained nothing leaves its number to the corrected call."""
    run, x, y = begun(tmp_path / "run")
    with pytest.raises(ArithmeticError):
        run.fit(x, y, batch_size=5, callbacks=[FailsAtOnce()], verbose=0)
    train(run, x, y)
    assert differing(two_fits(), state_bits(run.model)) == []
    run.close()
    again, x, y = begun(tmp_path / "run")
    train(again, x, y)
    assert [(fit.number, fit.status) for fit in again.recorder.fits.values()] == [(1, "finished"), (2, "finished")]


class FailsAtOnce(keras.callbacks.Callback):
    """Raise before the first step."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Raise."""
        raise ArithmeticError(batch, logs)


def test_error_of_a_generator_comes_through(tmp_path: Path) -> None:
    """An exception from the first batch is the caller's, and changes nothing."""
    run, x, y = begun(tmp_path / "run")
    with unchanged(run), pytest.raises(ZeroDivisionError):
        run.fit((1 / 0 for _ in "ab"), verbose=0)
    train(run, x, y)
    assert differing(two_fits(), state_bits(run.model)) == []


def test_refused_generator_loses_no_batch() -> None:
    """A generator that was given with a contradiction has all its batches for the fit after it."""
    states = []
    for wrong in (False, True):
        run, x, y = begun(None)
        stream = batches(x, y)
        with run:
            if wrong:
                for more in ({"batch_size": 4}, {"y": y}, {"validation_split": 0.5}, {"class_weight": {0: 1.0}}):
                    with pytest.raises(InvalidArgument):
                        run.fit(stream, steps_per_epoch=3, verbose=0, **more)
            run.fit(stream, steps_per_epoch=3, verbose=0)
            states.append(state_bits(run.model))
    assert differing(*states) == []


def test_no_epochs_train_nothing(tmp_path: Path) -> None:
    """As in Keras, epochs=0 is a fit without an epoch: weights and optimizer stay."""
    run, x, y = begun(tmp_path / "run")
    before = {name: bits for name, bits in state_bits(run.model).items() if not name.startswith("metrics/")}
    assert run.fit(x, y, batch_size=10, epochs=0, verbose=0).history == {}
    after = state_bits(run.model)
    assert [name for name in before if before[name] != after[name]] == []
    assert run.position.epoch == 1


def test_class_weights_may_be_floats_and_leave_classes_out() -> None:
    """A class number may be written as 1.0, and a class without a weight weighs 1, as in Keras."""
    states = []
    for weights in ({1.0: 3.0}, {0: 1.0, 1: 3.0}, {0: 1.0}):
        model, x, y = make("plain_dense")
        with keepfit.Run(model) as run:
            run.fit(x, (y > 0).astype("float32"), class_weight=weights, verbose=0)
            states.append(state_bits(model))
    assert differing(states[0], states[1]) == []
    assert differing(states[0], states[2]) != []


class FitInside(keras.callbacks.Callback):
    """Call fit of the run from a hook, once."""

    def __init__(self, hook: str, call: Callable[[], Any]) -> None:
        super().__init__()
        calls = [call]
        setattr(self, hook, lambda *_arguments, **_named: calls.pop()() if calls else None)


@pytest.mark.filterwarnings("ignore::keepfit.errors.KeepfitWarning")
@pytest.mark.parametrize("folder", [None, "run"])
@pytest.mark.parametrize("mode", ["replay", "append"])
@pytest.mark.parametrize("hook", ["on_epoch_end", "on_train_end"])
def test_fit_from_a_callback_of_fit_is_refused(hook: str, mode: str, folder: str | None, tmp_path: Path) -> None:
    """A fit inside a fit says that one is under way, and the outer one goes on from where it stood."""
    run, x, y = begun(None if folder is None else tmp_path / folder, mode=mode)
    said: list[str] = []

    def inner() -> None:
        with pytest.raises(FitUnderWay, match="is under way") as caught:
            train(run, x, y)
        said.append(str(caught.value))

    run.fit(x, y, batch_size=10, verbose=0, callbacks=[FitInside(hook, inner)])
    assert len(said) == 1
    assert (list(run.recorder.fits), len(run.recorder.epochs)) == ([1, 2], 2)


def test_evaluating_from_a_callback_changes_nothing() -> None:
    """Evaluate and predict may be called from inside a fit."""
    run, x, y = begun(None)
    with run:
        look = FitInside("on_epoch_end", lambda: (run.evaluate(x, y, verbose=0), run.predict(x, verbose=0)))
        run.fit(x, y, batch_size=10, verbose=0, callbacks=[look])
        assert differing(two_fits(), state_bits(run.model)) == []
