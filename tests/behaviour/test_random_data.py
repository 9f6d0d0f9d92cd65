"""Data sets that are random or change themselves go on where they were, in another process too."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit.errors import KeepfitWarning
from tests.bits import state_bits
from tests.models import make, regression_data


class Noisy(keras.utils.PyDataset):
    """Batches with noise drawn as they are made, from a generator of its own."""

    def __init__(self, generator: Any, **settings: Any) -> None:
        super().__init__(**settings)
        self.x, self.y = regression_data()
        self.generator = generator

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> Any:
        rows = slice(10 * index, 10 * index + 10)
        return self.x[rows] + self.noise(), self.y[rows]

    def noise(self) -> float:
        return float(self.generator.random())


class LegacyNoisy(Noisy):
    """The same from one of NumPy's old generators."""

    def noise(self) -> float:
        return float(self.generator.normal())


class GlobalNoisy(Noisy):
    """The same from NumPy's global generator."""

    def noise(self) -> float:
        return float(np.random.normal())


class Shuffling(Noisy):
    """Puts its samples in another order at the end of each epoch; batches themselves draw nothing."""

    def on_epoch_end(self) -> None:
        order = self.generator.permutation(len(self.x))
        self.x, self.y = self.x[order], self.y[order]

    def noise(self) -> float:
        return 0.0


class ShufflingFirst(Noisy):
    """Puts its samples in another order at the beginning of each epoch."""

    def on_epoch_begin(self) -> None:
        Shuffling.on_epoch_end(self)  # type: ignore[arg-type]

    def noise(self) -> float:
        return 0.0


class Growing(Shuffling):
    """Has one batch more in each epoch."""

    count = 3

    def __len__(self) -> int:
        return self.count

    def on_epoch_end(self) -> None:
        self.count += 1


class Tutorial(Noisy):
    """Puts the numbers of its samples in another order, drawn from NumPy's global generator, as tutorials have it."""

    def __init__(self, *_: Any) -> None:
        super().__init__(None)
        self.indexes = np.arange(len(self.x))
        self.on_epoch_end()

    def __getitem__(self, index: int) -> Any:
        rows = self.indexes[10 * index : 10 * index + 10]
        return self.x[rows], self.y[rows]

    def on_epoch_end(self) -> None:
        self.indexes = np.arange(len(self.x))
        np.random.shuffle(self.indexes)


class TutorialOfFiles(Tutorial):
    """The same with a list of names, drawn from Python's global generator."""

    def on_epoch_end(self) -> None:
        self.names = [f"{number}.png" for number in range(len(self.x))]
        random.shuffle(self.names)

    def __getitem__(self, index: int) -> Any:
        self.indexes = np.array([int(name.partition(".")[0]) for name in self.names])
        return super().__getitem__(index)


class Samples:
    """Single samples by index, with noise from a generator of its own."""

    def __init__(self, generator: Any) -> None:
        self.x, self.y = regression_data()
        self.generator = generator

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return self.x[index] + np.float32(self.noise()), self.y[index]

    def noise(self) -> float:
        return float(self.generator.random())


class GlobalSamples(Samples):
    """The same from NumPy's global generator."""

    def noise(self) -> float:
        return float(np.random.normal())


class Both(Shuffling):
    """Draws in batches and in hooks, from one generator."""

    def noise(self) -> float:
        return float(self.generator.random())


EXACT: dict[str, Callable[[], Any]] = {
    "numpy": lambda: Noisy(np.random.default_rng(3)),
    "legacy": lambda: LegacyNoisy(np.random.RandomState(3)),
    "python": lambda: Noisy(random.Random(3)),
    "global": lambda: GlobalNoisy(None),
    "shuffling": lambda: Shuffling(np.random.default_rng(3)),
    "shuffling first": lambda: ShufflingFirst(np.random.default_rng(3)),
    "growing": lambda: Growing(np.random.default_rng(3)),
    "tutorial": Tutorial,
    "tutorial of files": TutorialOfFiles,
    "samples": lambda: Samples(np.random.default_rng(3)),
    "global samples": lambda: GlobalSamples(None),
}


class Bomb(keras.callbacks.Callback):
    """Raises after a number of steps, which is neither in its memory nor in the recipe."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        left = int(os.environ["STEPS_LEFT"]) - 1
        os.environ["STEPS_LEFT"] = str(left)
        if left == 0:
            raise ZeroDivisionError


def train(make_data: Callable[[], Any], folder: Path | None, fits: list[int], *, bomb: int = 0) -> Any:
    """Train as a new process does and return the bits of the end."""
    keras.utils.set_random_seed(5)
    model, _, _ = make("plain_dense")
    data = make_data()
    os.environ["STEPS_LEFT"] = str(bomb)
    with keepfit.Run(model, folder, checkpoint_share="each") as run:
        for epochs in fits:
            run.fit(data, epochs=epochs, verbose=0, callbacks=[Bomb()], **sized(data))
        return state_bits(model)


def sized(data: Any) -> dict[str, int]:
    """Return the size of batches, where the data does not say."""
    return {"batch_size": 10} if isinstance(data, Samples) else {}


@pytest.mark.parametrize("kind", EXACT)
def test_it_does_not_matter_how_often_fit_is_called(kind: str) -> None:
    """The look that each fit takes at a batch leaves no trace in generators."""
    assert train(EXACT[kind], None, [1, 1, 2]) == train(EXACT[kind], None, [4])


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.filterwarnings("ignore:Fit [23]. the position in (Shuffling|Growing|Tutorial):UserWarning")
def test_another_process_goes_on_with_the_same_draws(kind: str, tmp_path: Path) -> None:
    """Fits that are replayed, and one that was interrupted, leave the data where it was."""
    whole = train(EXACT[kind], None, [2, 2, 1])
    train(EXACT[kind], tmp_path, [2])
    with pytest.raises(ZeroDivisionError):
        train(EXACT[kind], tmp_path, [2, 2], bomb=9)
    assert train(EXACT[kind], tmp_path, [2, 2, 1]) == whole


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.filterwarnings("ignore:Fit 3. the position in (Shuffling|Growing|Tutorial):UserWarning")
def test_fits_of_one_process_are_replayed_by_another(kind: str, tmp_path: Path) -> None:
    """A data set that has changed itself between two fits is known, though nothing has changed it in a replay."""
    whole = train(EXACT[kind], None, [1, 1, 2])
    train(EXACT[kind], tmp_path, [1, 1])
    assert train(EXACT[kind], tmp_path, [1, 1, 2]) == whole


def test_what_cannot_be_brought_back_is_said(tmp_path: Path) -> None:
    """Items and hooks that draw from one generator cannot be replayed apart: the resume says so."""
    with pytest.raises(ZeroDivisionError):
        train(lambda: Both(np.random.default_rng(3)), tmp_path, [3], bomb=9)
    with pytest.warns(KeepfitWarning, match="may differ, for its items are random"):
        train(lambda: Both(np.random.default_rng(3)), tmp_path, [3])


@pytest.mark.parametrize("kind", ["tutorial", "tutorial of files"])
@pytest.mark.filterwarnings("ignore:Fit 2. the position in Tutorial")
def test_without_what_hooks_have_changed_the_bits_differ(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: hooks that are called again draw other numbers."""
    whole = train(EXACT[kind], None, [1, 1])
    train(EXACT[kind], tmp_path, [1])
    monkeypatch.setattr("keepfit.data.attributes.put", lambda roots, values: None)
    assert train(EXACT[kind], tmp_path, [1, 1]) != whole


@pytest.mark.parametrize("kind", ["numpy", "samples"])
def test_without_the_states_of_generators_the_bits_differ(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control."""
    whole = train(EXACT[kind], None, [1, 1])
    train(EXACT[kind], tmp_path, [1])
    monkeypatch.setattr("keepfit.data.pydataset.restore", lambda generators, states: None)
    monkeypatch.setattr("keepfit.data.samples.SampleSource.set_state", lambda self, state: None)
    assert train(EXACT[kind], tmp_path, [1, 1]) != whole


@pytest.mark.parametrize("kind", ["numpy", "legacy", "python", "global", "samples", "global samples"])
@pytest.mark.parametrize("folder", [True, False])
def test_item_that_drew_before_it_failed_draws_the_same_again(kind: str, folder: bool, tmp_path: Path) -> None:
    """In the next call of ``fit``, and in another process, the batch is the one that did not come."""
    whole = train(EXACT[kind], None, [3])
    model, _, _ = make("plain_dense")
    data = EXACT[kind]()
    taken = type(data).__getitem__
    with pytest.MonkeyPatch.context() as patch, keepfit.Run(model, tmp_path if folder else None) as run:
        left = [100 if isinstance(data, Samples) else 10]

        def failing(self: Any, index: int) -> Any:
            found = taken(self, index)
            left[0] -= 1
            if left[0] == 0:
                raise OSError
            return found

        os.environ["STEPS_LEFT"] = "0"
        patch.setattr(type(data), "__getitem__", failing)
        with pytest.raises(OSError):
            run.fit(data, epochs=3, verbose=0, callbacks=[Bomb()], **sized(data))
        if not folder:
            run.fit(data, epochs=3, verbose=0, callbacks=[Bomb()], **sized(data))
            assert state_bits(model) == whole
    if folder:
        assert train(EXACT[kind], tmp_path, [3]) == whole
