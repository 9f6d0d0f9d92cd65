"""A Keras that lacks what keepfit builds on is refused before anything starts."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import keras
import pytest
from tests.models import make

import keepfit
from keepfit import _keras
from keepfit.errors import EngineError


def test_private_names_that_keepfit_uses_are_there() -> None:
    """The Keras that runs the tests has all of them."""
    _keras.probe(make("plain_dense")[0])


def test_missing_names_are_told_with_the_versions_that_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions, methods and whole modules; the message says which Keras to install."""
    names = {"trainers.trainer": ("Trainer", "Gone"), "trainers.moved": ("Elsewhere",)}
    monkeypatch.setattr(_keras, "_MODULE_NAMES", names)
    monkeypatch.setattr(_keras, "_TRAINER_NAMES", ("train_step", "renamed_step"))
    _keras._missing_in_modules.cache_clear()
    try:
        with pytest.raises(EngineError, match=r"supports Keras 3\.\d+ to 3\.\d+") as caught:
            keepfit.Run(make("plain_dense")[0])
    finally:
        monkeypatch.undo()
        _keras._missing_in_modules.cache_clear()
    expected = ["trainers.trainer.Gone", "trainers.moved", "Trainer.renamed_step"]
    assert caught.value.missing == expected
    assert keras.__version__ in str(caught.value)


def test_supported_versions_begin_where_the_requirement_does() -> None:
    """What is tested is what can be installed."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert f"keras>={_keras.SUPPORTED[0]}" in project["dependencies"]


def test_a_built_model_is_not_built_again_until_something_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras's building is asked for once, and once more where compiling anew took metrics and optimizer away."""
    model, x, y = make("plain_dense")
    built = []
    symbolic_build = type(model)._symbolic_build

    def noted(self: Any, *args: Any, **arguments: Any) -> None:
        built.append(self)
        symbolic_build(self, *args, **arguments)

    monkeypatch.setattr(type(model), "_symbolic_build", noted)
    for _ in range(3):
        _keras.build(model, (x, y))
    assert len(built) == 1
    model.compile("sgd", "mse", metrics=["mae"])
    for _ in range(3):
        _keras.build(model, (x, y))
    assert len(built) == 2


def test_a_callback_list_makes_an_executor_only_for_who_asks_for_one() -> None:
    """Without a member that is safe in another thread none is made, and one that is keeps its thread."""

    class Safe(keras.callbacks.Callback):
        async_safe = True

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            pass

    for members, changes in (([keras.callbacks.History()], True), ([Safe()], False)):
        callbacks: Any = keras.callbacks.CallbackList(members)
        before = callbacks._async_train
        _keras.call_without_threads(callbacks)
        assert callbacks._async_train == (False if changes else before)
        callbacks.on_train_begin()
        assert (callbacks._executor is None) == (not callbacks._async_train)
        callbacks.on_train_end()
