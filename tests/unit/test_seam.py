"""A Keras that lacks what keepfit builds on is refused before anything starts."""

from __future__ import annotations

import tomllib
from pathlib import Path

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
