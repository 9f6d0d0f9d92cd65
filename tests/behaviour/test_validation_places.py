"""What a fit validates on goes on where it was too: its values decide when callbacks stop a training."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit import placing
from tests.behaviour.test_random_data import Noisy, Shuffling
from tests.bits import joined_history, state_bits
from tests.models import make, regression_data

pytestmark = pytest.mark.filterwarnings("ignore:Fit .* the position in validation:UserWarning")


def batches() -> Iterator[Any]:
    """Yield the data over and over in batches of seven, each followed by one with other targets."""
    x, y = regression_data()
    number = 0
    while True:
        rows = np.arange(7 * number, 7 * number + 7) % len(x)
        yield x[rows], y[rows] + number
        number += 1


def torch_loader(*, shuffle: bool = False) -> Any:
    """Return a loader whose data set draws, or that shuffles with a generator of its own."""
    torch = pytest.importorskip("torch")
    x, y = regression_data()
    generator = np.random.default_rng(4)

    class Samples(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
        def __len__(self) -> int:
            return len(x)

        def __getitem__(self, index: int) -> Any:
            return x[index] + np.float32(0.0 if shuffle else generator.normal()), y[index]

    order = torch.Generator().manual_seed(5) if shuffle else None
    return torch.utils.data.DataLoader(Samples(), batch_size=10, shuffle=shuffle, generator=order)


def tensorflow_data() -> Any:
    """Return a data set of TensorFlow that shuffles."""
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(regression_data()).shuffle(70, seed=2).batch(10)


DATA: dict[str, Callable[[], Any]] = {
    "generator": batches,
    "random": lambda: Noisy(np.random.default_rng(3)),
    "shuffling": lambda: Shuffling(np.random.default_rng(3)),
    "torch": torch_loader,
    "torch shuffled": lambda: torch_loader(shuffle=True),
    "tensorflow": tensorflow_data,
}


class Bomb(keras.callbacks.Callback):
    """Raises at the end of an epoch, or within the validation after it; which one, no recipe tells."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._raise_at(f"epoch {epoch}")

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self._raise_at(f"test {batch}")

    def _raise_at(self, spot: str) -> None:
        if os.environ["BOMB"] == spot:
            os.environ["BOMB"] = ""
            raise ZeroDivisionError


def train(kind: str, folder: Path | None, fits: list[int], *, bomb: str = "", thinned: bool = False) -> Any:
    """Train as a new process does; return bits and logs of the end. Thinned: other data between first and last fit."""
    model, x, y = make("plain_dense")
    data = [DATA[kind]()] * len(fits)
    if thinned:
        data[1:-1] = [DATA[kind]()] * 3
    histories = []
    os.environ["BOMB"] = ""
    with keepfit.Run(model, folder, checkpoint_share="each", keep=2 if thinned else 10) as run:
        for number, epochs in enumerate(fits):
            os.environ["BOMB"] = bomb if number == len(fits) - 1 else ""
            stop = keras.callbacks.EarlyStopping("val_loss", patience=9, restore_best_weights=True)
            given = {"validation_data": data[number], "validation_steps": 3, "callbacks": [stop, Bomb()]}
            histories.append(run.fit(x, y, epochs=epochs, verbose=0, **given))
        return state_bits(model), joined_history(histories)


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("spot", ["epoch 3", "test 1"])
def test_validation_goes_on_in_another_process(kind: str, spot: str, tmp_path: Path) -> None:
    """Replayed fits, and one that was interrupted between or within validations, leave the data where it was."""
    whole = train(kind, None, [2, 3, 1])
    train(kind, tmp_path, [2])
    with pytest.raises(ZeroDivisionError):
        train(kind, tmp_path, [2, 3], bomb=spot)
    assert train(kind, tmp_path, [2, 3, 1]) == whole


@pytest.mark.parametrize("kind", ["generator", "random", "torch", "torch shuffled", "tensorflow"])
@pytest.mark.parametrize("resumed", [True, False])
def test_without_its_place_validation_gives_other_values(
    kind: str, resumed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control, for a fit that is resumed and for fits that are replayed."""
    whole = train(kind, None, [2, 3])
    train(kind, tmp_path, [2])
    if resumed:
        with pytest.raises(ZeroDivisionError):
            train(kind, tmp_path, [2, 3], bomb="epoch 3")
    bring = placing.bring
    monkeypatch.setattr(
        "keepfit.training.bring",
        lambda *given, part, **more: None if part == "validation" else bring(*given, part=part, **more),
    )
    assert train(kind, tmp_path, [2, 3])[1] != whole[1]


@pytest.mark.parametrize("kind", ["generator", "random", "shuffling", "tensorflow"])
def test_validation_goes_on_after_fits_whose_states_are_not_kept(kind: str, tmp_path: Path) -> None:
    """Where a state was thinned out, the place in the validation data is in the record of its fit."""
    whole = train(kind, None, [1, 1, 1, 1, 2], thinned=True)
    with pytest.raises(ZeroDivisionError):
        train(kind, tmp_path, [1, 1, 1, 1, 2], thinned=True, bomb="test 0")
    with pytest.warns(keepfit.errors.KeepfitWarning, match="thinned out"):
        assert train(kind, tmp_path, [1, 1, 1, 1, 2], thinned=True) == whole


@pytest.mark.parametrize(
    ("kind", "told"),
    [("torch", []), ("tensorflow", ["the position in validation _BatchDataset was reached by going through it again"])],
)
def test_what_a_resume_says_of_validation(kind: str, told: list[str], tmp_path: Path) -> None:
    """A loader is brought back to where it was; a data set that shuffles is gone through again."""
    with pytest.raises(ZeroDivisionError):
        train(kind, tmp_path, [3], bomb="epoch 1")
    train(kind, tmp_path, [3])
    said = keepfit.History.read(tmp_path).records[0].approximate
    assert [text.partition(",")[0] for text in said] == told


def test_training_and_validating_on_one_loader_goes_on_in_another_process(tmp_path: Path) -> None:
    """What the validations drew decides the passes of training, and the other way round."""

    def process(folder: Path | None, fits: int) -> Any:
        model, _, _ = make("plain_dense")
        data = torch_loader()
        with keepfit.Run(model, folder, checkpoint_share="each") as run:
            for _ in range(fits):
                run.fit(data, epochs=2, validation_data=data, validation_steps=3, verbose=0)
            return state_bits(model)

    process(tmp_path, 1)
    assert process(tmp_path, 2) == process(None, 2)


def test_a_generator_that_cannot_go_back_is_said() -> None:
    """A validation left by an exception has taken batches that the same call again will not see."""
    model, x, y = make("plain_dense")
    given = {"validation_data": batches(), "validation_steps": 3, "callbacks": [Bomb()], "epochs": 2, "verbose": 0}
    with keepfit.Run(model) as run:
        os.environ["BOMB"] = "test 1"
        with pytest.raises(ZeroDivisionError):
            run.fit(x, y, **given)
        with pytest.warns(keepfit.errors.KeepfitWarning, match="2 batches further on"):
            run.fit(x, y, **given)
        assert "cannot go back" in run.recorder.fits[1].approximate[0]


def test_evaluating_on_the_training_stream_between_fits_is_the_same_in_a_replay(tmp_path: Path) -> None:
    """Also where the fit before is replayed, evaluate and predict read on where that fit left the generator."""

    def script(folder: Path | None, fits: int) -> Any:
        model, _, _ = make("plain_dense")
        data = batches()
        seen = []
        with keepfit.Run(model, folder) as run:
            for _ in range(fits):
                run.fit(data, steps_per_epoch=3, verbose=0)
                seen += [run.evaluate(data, steps=2, verbose=0), run.predict(data, steps=1).tolist()]
        return state_bits(model), seen

    whole = script(None, 3)
    script(tmp_path, 2)
    assert script(tmp_path, 3) == whole


@pytest.fixture(autouse=True)
def _leave_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the environment back after each test."""
    monkeypatch.setenv("BOMB", "")


def test_a_phase_for_the_want_of_validation_data_is_told_as_that() -> None:
    """Data that is there for the first time, or not any more, is not told as data that changed."""
    model, x, y = make("plain_dense")
    asked = {"verbose": 0, "batch_size": len(x)}
    with keepfit.Run(model, leak_guard=False) as run:
        for validation, words in ((None, None), ((x, y), "validation data now"), (None, "no validation data now")):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                run.fit(x, y, validation_data=validation, **asked)
            told = [str(each.message) for each in caught if "new phase" in str(each.message)]
            assert [text.partition(": ")[2] for text in told] == ([f"there is {words}."] if words else [])
