"""Data that fails amid a pass: the next call of ``fit`` trains what is left, nothing twice and nothing never."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit.data.foreign import _Place
from tests.bits import differing, state_bits
from tests.models import make, regression_data

pytestmark = pytest.mark.filterwarnings("ignore:Fit 1. the position in :keepfit.errors.KeepfitWarning")

SIZE, BATCHES = 10, 7
X, Y = regression_data()


class Trouble:
    """Raises once, when so many things were asked for."""

    def __init__(self, after: int | None = None) -> None:
        self.left = after

    def come(self) -> None:
        """Count."""
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                raise OSError("the disk is away")


def batch(index: int) -> tuple[Any, Any]:
    """Return a batch of a pass."""
    rows = slice(SIZE * (index % BATCHES), SIZE * (index % BATCHES) + SIZE)
    return X[rows], Y[rows]


def torch_loader(trouble: Trouble) -> dict[str, Any]:
    """Return a shuffling loader whose data set fails at a sample."""
    torch = pytest.importorskip("torch")

    class Samples(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
        def __len__(self) -> int:
            return len(X)

        def __getitem__(self, index: int) -> Any:
            trouble.come()
            return torch.from_numpy(X[index]), torch.from_numpy(Y[index])

    generator = torch.Generator().manual_seed(5)
    return {"x": torch.utils.data.DataLoader(Samples(), batch_size=SIZE, shuffle=True, generator=generator)}


def tensorflow_data(trouble: Trouble) -> dict[str, Any]:
    """Return a data set of TensorFlow that reads from Python."""
    tf = pytest.importorskip("tensorflow")

    def samples() -> Iterator[Any]:
        for sample in zip(X, Y, strict=True):
            trouble.come()
            yield sample

    shapes = (tf.TensorSpec((6,)), tf.TensorSpec((1,)))
    return {"x": tf.data.Dataset.from_generator(samples, output_signature=shapes).batch(SIZE)}


def grain_data(trouble: Trouble) -> dict[str, Any]:
    """Return a shuffled data set of Grain, read without threads, which would read ahead into the trouble."""
    grain = pytest.importorskip("grain")

    def sample(index: Any) -> Any:
        trouble.come()
        return X[int(index)], Y[int(index)]

    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    mixed = grain.MapDataset.source(np.arange(len(X))).shuffle(seed=3).map(sample)
    return {"x": mixed.to_iter_dataset(options).batch(SIZE)}


LOADERS: dict[str, Callable[[Trouble], dict[str, Any]]] = {
    maker.__name__: maker for maker in (torch_loader, tensorflow_data, grain_data)
}


def train(data: dict[str, Any], *callbacks: Any, folder: Path | None = None, calls: int = 1) -> Any:
    """Call one fit of three epochs until it ends, and return its run and its bits."""
    model, _, _ = make("dropout_batch_norm")
    with keepfit.Run(model, folder, seed=1) as run:
        for _ in range(calls - 1):
            with pytest.raises(Exception, match="the disk is away"):
                run.fit(**data, epochs=3, verbose=0, callbacks=list(callbacks))
        run.fit(**data, epochs=3, verbose=0, callbacks=list(callbacks))
        return run, state_bits(model)


@pytest.mark.parametrize("name", LOADERS)
def test_loader_that_fails_amid_a_pass_goes_on_where_training_stands(name: str) -> None:
    """An iterator that has raised has ended, or skips what it could not give: the pass is read again instead."""
    _, whole = train(LOADERS[name](Trouble()))
    run, bits = train(LOADERS[name](Trouble(after=95)), calls=2)
    assert differing(whole, bits) == []
    assert (run.position.epoch, run.position.step) == (3, 3 * BATCHES)


@pytest.mark.parametrize("name", LOADERS)
def test_without_reading_again_batches_would_be_missing_or_come_twice(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: an iterator that has raised is not asked again for nothing."""
    _, whole = train(LOADERS[name](Trouble()))
    monkeypatch.setattr(_Place, "begin_again", lambda self: None)
    assert differing(whole, train(LOADERS[name](Trouble(after=95)), calls=2)[1]) != []


class Fails(keras.callbacks.Callback):
    """Raises before a batch is trained on, once."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__()
        self._trouble = [trouble]

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._trouble[0].come()


def generator(_: Trouble) -> dict[str, Any]:
    """Return a generator without end."""
    return {"x": (batch(index) for index in range(10**6)), "steps_per_epoch": BATCHES}


@pytest.mark.parametrize("maker", [generator, torch_loader, tensorflow_data, grain_data])
@pytest.mark.filterwarnings("ignore:Fails holds what cannot be saved:keepfit.errors.KeepfitWarning")
def test_batch_that_was_not_trained_on_is_the_next_one_again(maker: Callable[[Trouble], dict[str, Any]]) -> None:
    """What fails between the drawing of a batch and its step loses none, also where a stream has no way back."""
    _, whole = train(maker(Trouble()), Fails(Trouble()))
    run, bits = train(maker(Trouble()), Fails(Trouble(after=10)), calls=2)
    assert differing(whole, bits) == []
    assert run.recorder.fits[1].approximate == []
