"""keepfit.attach, and the public names of the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keepfit
from keepfit.errors import InvalidArgument


def small() -> keras.Model:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


def test_attaching_again_changes_nothing(tmp_path: Path) -> None:
    """The same model, folder and settings give the same run."""
    run = keepfit.attach(small(), tmp_path / "run", keep=3).run
    assert keepfit.attach(run.model, tmp_path / "run", keep=3).run is run


def test_attaching_with_another_setting_takes_it(tmp_path: Path) -> None:
    """A setting given to a second attach is not ignored: the run is opened again with it."""
    model = small()
    before = keepfit.attach(model, tmp_path / "run").run
    after = keepfit.attach(model, tmp_path / "run", keep=3, checkpoint_share="each").run
    assert (before.closed is None, after.closed is None) == (False, True)
    assert (after.settings.keep, after.settings.checkpoint_share) == (3, "each")


@pytest.mark.parametrize("again", [False, True])
def test_unknown_setting_is_refused(again: bool, tmp_path: Path) -> None:
    """A setting that Run does not have is named, at the first attach and at any other."""
    model = small()
    if again:
        keepfit.attach(model, tmp_path / "run")
    with pytest.raises(InvalidArgument, match=r"attach\(\) has no argument 'kep'") as caught:
        keepfit.attach(model, tmp_path / "run", kep=3)
    assert caught.value.argument == "kep"
    assert again or not (tmp_path / "run").exists()


def test_public_names_are_there_and_reading_needs_no_keras() -> None:
    """Every public name is reached from the package, and those that only read import no Keras."""
    script = (
        "import sys, keepfit; keepfit.errors.KeepfitError; keepfit.History; assert 'keras' not in sys.modules\n"
        "assert callable(keepfit.attach) and callable(keepfit.Run) and set(dir(keepfit)) >= set(keepfit.__all__)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
