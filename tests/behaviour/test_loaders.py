"""Loaders of other libraries go on where they stood: in the next fit, and in a process that is started after a kill."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit.data import foreign, inside
from tests.bits import differing, state_bits

pytestmark = [
    pytest.mark.filterwarnings("ignore::keepfit.errors.KeepfitWarning"),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),  # torchdata calls it
]

SAMPLES, SIZE = 200, 4
BATCHES = SAMPLES // SIZE
READ: list[int] = []


def sample(number: Any) -> tuple[Any, Any]:
    """Return a sample, and note that it was read."""
    READ.append(int(number))
    x = np.random.default_rng(int(number)).normal(size=6).astype("float32")
    return x, x.sum(keepdims=True)


def grain_map() -> Any:
    """Return a shuffled MapDataset of Grain."""
    grain = pytest.importorskip("grain")
    return grain.MapDataset.source(np.arange(SAMPLES)).shuffle(seed=3).map(sample).batch(SIZE)


def grain_loader() -> Any:
    """Return a shuffling DataLoader of Grain."""
    grain = pytest.importorskip("grain")

    class Read(grain.transforms.Map):
        def map(self, element: Any) -> Any:
            return sample(element)

    sampler = grain.samplers.IndexSampler(SAMPLES, shuffle=True, seed=1, num_epochs=1)
    operations = [Read(), grain.transforms.Batch(SIZE)]
    return grain.DataLoader(data_source=np.arange(SAMPLES), sampler=sampler, operations=operations)


def torch_data() -> Any:
    """Return a data set of PyTorch."""
    torch = pytest.importorskip("torch")

    class Samples(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
        def __len__(self) -> int:
            return SAMPLES

        def __getitem__(self, index: int) -> Any:
            x, y = sample(index)
            return torch.from_numpy(x), torch.from_numpy(y)

    return Samples()


def torch_loader() -> Any:
    """Return a shuffling loader that draws from PyTorch's global generator."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(5)
    return torch.utils.data.DataLoader(torch_data(), batch_size=SIZE, shuffle=True)


def torch_loader_with_generator() -> Any:
    """Return a shuffling loader with a generator of its own."""
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(5)
    return torch.utils.data.DataLoader(torch_data(), batch_size=SIZE, shuffle=True, generator=generator)


def stateful_loader() -> Any:
    """Return a loader with the protocol of torchdata's StatefulDataLoader, as its documentation gives it."""
    torch = pytest.importorskip("torch")

    class Stateful(torch.utils.data.DataLoader):  # type: ignore[misc, name-defined]
        """Its order is its own; ``state_dict`` tells how many batches were given, ``load_state_dict`` comes first."""

        def __init__(self) -> None:
            super().__init__(torch_data(), batch_size=SIZE)
            self.passes, self.given, self.first = 0, 0, 0

        def __iter__(self) -> Any:
            order = np.random.default_rng(self.passes).permutation(SAMPLES).reshape(-1, SIZE)
            self.given, self.first = self.first, 0
            for rows in order[self.given :]:
                self.given += 1
                yield tuple(torch.stack(column) for column in zip(*(self.dataset[int(i)] for i in rows), strict=True))
            self.passes, self.given = self.passes + 1, 0

        def state_dict(self) -> dict[str, Any]:
            return {"passes": self.passes, "given": self.given}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.passes, self.first = state["passes"], state["given"]

    return Stateful()


def torchdata_loader() -> Any:
    """Return a shuffling loader of torchdata with a generator of its own."""
    torch = pytest.importorskip("torch")
    loaders = pytest.importorskip("torchdata.stateful_dataloader")
    generator = torch.Generator().manual_seed(5)
    return loaders.StatefulDataLoader(torch_data(), batch_size=SIZE, shuffle=True, generator=generator)


def noisy_data() -> Any:
    """Return a data set of PyTorch whose samples have noise from a generator that lies in a transform."""
    generator = np.random.default_rng(8)
    data = torch_data()

    class Noisy(type(data)):  # type: ignore[misc]
        def __init__(self) -> None:
            self.transforms = [lambda x: x + float(generator.normal())]

        def __getitem__(self, index: int) -> Any:
            x, y = super().__getitem__(index)
            return self.transforms[0](x), y

    return Noisy()


def counting_sampler() -> Any:
    """Return a sampler that counts its passes, on which its order depends."""
    torch = pytest.importorskip("torch")

    class Counting(torch.utils.data.Sampler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.passes = 0

        def __iter__(self) -> Any:
            self.passes += 1
            return iter(np.random.default_rng(self.passes).permutation(SAMPLES).tolist())

        def __len__(self) -> int:
            return SAMPLES

    return Counting()


def drawing_stream() -> Any:
    """Return an iterable data set that draws its order from a generator of its own."""
    torch = pytest.importorskip("torch")

    class Stream(torch.utils.data.IterableDataset):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.generator = np.random.default_rng(9)

        def __iter__(self) -> Any:
            return (torch_data()[number] for number in self.generator.permutation(SAMPLES))

    return Stream()


def torch_loader_that_changes() -> Any:
    """Return a loader whose sampler counts and whose data set draws."""
    torch = pytest.importorskip("torch")
    return torch.utils.data.DataLoader(noisy_data(), batch_size=SIZE, sampler=counting_sampler())


def torch_batch_sampler() -> Any:
    """Return a loader whose generator lies in the sampler of its batch sampler."""
    torch = pytest.importorskip("torch")
    data = torch_data()
    order = torch.utils.data.RandomSampler(data, generator=torch.Generator().manual_seed(5))
    batches = torch.utils.data.BatchSampler(order, SIZE, drop_last=False)
    return torch.utils.data.DataLoader(data, batch_sampler=batches)


def torchdata_that_changes() -> Any:
    """Return a loader of torchdata whose sampler counts and whose data set draws."""
    loaders = pytest.importorskip("torchdata.stateful_dataloader")
    return loaders.StatefulDataLoader(noisy_data(), batch_size=SIZE, sampler=counting_sampler())


def torchdata_stream() -> Any:
    """Return a loader of torchdata over a stream that draws."""
    loaders = pytest.importorskip("torchdata.stateful_dataloader")
    return loaders.StatefulDataLoader(drawing_stream(), batch_size=SIZE)


def tensorflow_data() -> Any:
    """Return a shuffling data set of TensorFlow; its samples are not read one by one in Python."""
    tf = pytest.importorskip("tensorflow")
    x = np.stack([sample(number)[0] for number in range(SAMPLES)])
    return tf.data.Dataset.from_tensor_slices((x, x.sum(axis=1, keepdims=True))).shuffle(30, seed=3).batch(SIZE)


LOADERS: dict[str, Callable[[], Any]] = {
    maker.__name__: maker
    for maker in (
        grain_map,
        grain_loader,
        torch_loader,
        torch_loader_with_generator,
        stateful_loader,
        torchdata_loader,
        torch_loader_that_changes,
        torch_batch_sampler,
        torchdata_that_changes,
        torchdata_stream,
        tensorflow_data,
    )
}
HOLD = ("torch_loader_that_changes", "torch_batch_sampler", "torchdata_that_changes", "torchdata_stream")
SEEK = (
    "grain_map",
    "grain_loader",
    "stateful_loader",
    "torchdata_loader",
    "torchdata_stream",
    "tensorflow_data",
)


@pytest.fixture(autouse=True)
def _marks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save states of TensorFlow's data sets as often as those of the others."""
    monkeypatch.setattr("keepfit.data.tensorflow_data.BETWEEN_S", 0.0)
    monkeypatch.setattr("keepfit.data.tensorflow_data._SHARE", 1e9)


class Stop(keras.callbacks.Callback):
    """Leave as Ctrl-C does, after so many batches of the fit; hooks let steps go one by one."""

    def __init__(self, after: int | None) -> None:
        super().__init__()
        self.after, self.seen = after, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count."""
        self.seen += 1
        if self.seen == self.after:
            raise KeyboardInterrupt


def model_of() -> Any:
    """Return a small model."""
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(4), keras.layers.Dropout(0.2), keras.layers.Dense(1)]
    )
    model.compile("adam", "mse")
    return model


def process(
    name: str, directory: Path | None, fits: list[int], *, steps: int | None = None, stop: int | None = None
) -> tuple[Any, Any]:
    """Play a process: a model and a loader made anew; it is stopped in its last fit after so many batches."""
    model, data = model_of(), LOADERS[name]()
    if steps and name == "grain_map":
        data = data.repeat()  # Keras does not know how long it is, and ends an epoch where it ends
    READ.clear()
    run = keepfit.Run(model, directory, seed=1, checkpoint_share="each")
    for number, epochs in enumerate(fits):
        last = number == len(fits) - 1
        try:
            run.fit(data, epochs=epochs, steps_per_epoch=steps, verbose=0, callbacks=[Stop(stop if last else None)])
        except KeyboardInterrupt:
            break
    bits = state_bits(model)
    run.close()
    return bits, run


@pytest.mark.parametrize("steps", [None, 25])
@pytest.mark.parametrize("name", LOADERS)
def test_loader_goes_on_in_the_next_fit_and_in_the_next_process(name: str, steps: int | None, tmp_path: Path) -> None:
    """Cut between fits, inside a pass and by an interruption: the bits of one fit; what can seek does."""
    if steps and name == "torchdata_stream":
        pytest.skip("Keras does not know how long it is, and ends an epoch where it ends")
    if steps and name == "grain_loader":
        pytest.skip("Keras does not know how long it is, and it has no repeat()")
    whole, _ = process(name, None, [4], steps=steps)
    assert differing(whole, process(name, None, [1, 3], steps=steps)[0]) == []
    for stop in (25, 2 * (steps or BATCHES) + 7):
        directory = tmp_path / f"stop-{stop}"
        process(name, directory, [4], steps=steps, stop=stop)
        again, run = process(name, directory, [4], steps=steps)
        assert differing(whole, again) == []
        assert any(event.kind == "resumed" for event in run.recorder.events)
        said = [event.message for event in run.recorder.events if "going through it again" in event.message]
        assert bool(said) == (name not in SEEK)
        left = 4 * (steps or BATCHES) - stop
        if name in ("stateful_loader", "torchdata_loader"):  # Grain reads ahead in threads
            assert len(READ) <= (left + foreign.EVERY + 1) * SIZE


@pytest.mark.parametrize("name", LOADERS)
def test_without_marks_the_order_would_be_another(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: read on from the beginning, under other generators, a loader gives other batches."""
    whole, _ = process(name, None, [4])
    process(name, tmp_path / "run", [4], stop=2 * BATCHES + 7)
    monkeypatch.setattr(foreign.ForeignSource, "go_to", lambda self, state: "exact")
    again, _ = process(name, tmp_path / "run", [4])
    assert differing(whole, again) != []


@pytest.mark.parametrize("name", LOADERS)
def test_replayed_fits_leave_the_loader_where_they_did(name: str, tmp_path: Path) -> None:
    """A process that replays two fits trains the third as if it had trained them."""
    whole, _ = process(name, tmp_path / "whole", [1, 1, 2])
    process(name, tmp_path / "cut", [1, 1])
    assert differing(whole, process(name, tmp_path / "cut", [1, 1, 2])[0]) == []


@pytest.mark.parametrize("name", HOLD)
def test_without_what_a_loader_holds_the_next_pass_would_be_another(name: str, tmp_path: Path) -> None:
    """The control: a sampler and a data set as the script makes them are where the first pass began."""
    whole, _ = process(name, tmp_path / "whole", [1, 1, 2])
    process(name, tmp_path / "cut", [1, 1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inside, "restore", lambda loader, state: None)
        assert differing(whole, process(name, tmp_path / "cut", [1, 1, 2])[0]) != []


def epochs_set(directory: Path, fits: int, *, by_callback: bool = False, stop: int | None = None) -> Any:
    """Play a process that tells a sampler the epoch, as distributed ones are told, in the script or in a callback."""
    torch = pytest.importorskip("torch")

    class Told(torch.utils.data.Sampler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.epoch = self.passes = 0

        def __iter__(self) -> Any:
            self.passes += 1
            return iter(np.random.default_rng([self.epoch, self.passes]).permutation(SAMPLES).tolist())

        def __len__(self) -> int:
            return SAMPLES

    class Tell(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            sampler.epoch = epoch + 7

    model, sampler = model_of(), Told()
    data = torch.utils.data.DataLoader(torch_data(), batch_size=SIZE, sampler=sampler)
    with keepfit.Run(model, directory, seed=1, checkpoint_share="each") as run:
        for number in range(fits):
            if not by_callback:
                sampler.epoch = 3 * number
            callbacks = [*([Tell()] if by_callback else []), Stop(stop if number == fits - 1 else None)]
            with suppress(KeyboardInterrupt):
                run.fit(data, epochs=2, verbose=0, callbacks=callbacks)
        return state_bits(model)


@pytest.mark.parametrize("is_reset", [False, True])
def test_what_a_script_sets_in_a_loader_stays(is_reset: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that replays two fits leaves the sampler as the script has it for the third; else it would differ."""
    whole = epochs_set(tmp_path / "whole", 3)
    epochs_set(tmp_path / "cut", 2)
    if is_reset:
        monkeypatch.setattr(inside, "as_set", lambda loader: nullcontext())
    assert bool(differing(whole, epochs_set(tmp_path / "cut", 3))) == is_reset


def test_what_a_callback_sets_in_a_loader_comes_back(tmp_path: Path) -> None:
    """A resume amid an epoch does not begin it again: the sampler is told by the checkpoint."""
    whole = epochs_set(tmp_path / "whole", 2, by_callback=True)
    epochs_set(tmp_path / "cut", 2, by_callback=True, stop=BATCHES + 7)
    assert differing(whole, epochs_set(tmp_path / "cut", 2, by_callback=True)) == []


def test_what_no_state_tells_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit that begins behind such a pass says that it may see other samples, and so does the journal."""
    process("torch_loader", tmp_path, [1])
    monkeypatch.setattr(inside, "is_hidden", lambda loader, seeks: True)
    _, run = process("torch_loader", tmp_path, [1, 1])
    assert run.recorder.fits[1].approximate == []
    assert "in DataLoader may differ" in run.recorder.fits[2].approximate[0]


@pytest.mark.parametrize(
    ("change", "seeks"),
    [
        (lambda tf, data: data.shuffle(30, seed=3).map(lambda x, y: (2 * x, y)).prefetch(2), True),
        (lambda tf, data: data, True),
        (lambda tf, data: data.shuffle(30), False),
        (lambda tf, data: data.map(lambda x, y: (x + tf.random.normal((6,)), y)), False),
        (lambda tf, data: data.map(lambda x, y: (x + 1, y), num_parallel_calls=2, deterministic=False), False),
        (lambda tf, data: data.cache(), False),
        (lambda tf, data: data.shuffle(10**6, seed=3), False),
        (lambda tf, data: data.shuffle(30, seed=3).repeat(), False),
        (lambda tf, data: data.shuffle(30, seed=3).concatenate(data.shuffle(30, seed=3)), False),
        (lambda tf, data: data.repeat(), True),
    ],
    ids=[
        "seeded",
        "plain",
        "no seed",
        "random numbers",
        "order by threads",
        "cache",
        "large buffer",
        "shuffles in a pass",
        "shuffles in turn",
        "repeated",
    ],
)
def test_states_of_tensorflow_data_are_used_where_they_decide_all(change: Any, seeks: bool) -> None:
    """What draws, races or caches beside an iterator's state is read again instead."""
    tf = pytest.importorskip("tensorflow")
    tf.random.set_seed(None)  # so that operations without a seed have none
    data = tf.data.Dataset.from_tensor_slices((np.ones((SAMPLES, 6), "float32"), np.ones((SAMPLES, 1), "float32")))
    source = foreign.ForeignSource(change(tf, data).batch(SIZE), class_weight=None, steps=None, training=True)
    source.peek()
    assert bool(source.marks(0)) is seeks


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="text is for TensorFlow alone")
def test_text_in_data_of_tensorflow_is_trained_on() -> None:
    """A model that takes text gets it from tf.data, and gives what Keras's own loop gives."""
    tf = pytest.importorskip("tensorflow")
    words, values = np.array(["red", "green", "blue", "red blue"] * 5), np.arange(20, dtype="float32")[:, None]
    data = tf.data.Dataset.from_tensor_slices((words, values)).batch(8)
    bits = []
    for ours in (True, False):
        keras.utils.set_random_seed(1)
        vectors = keras.layers.TextVectorization(max_tokens=9, output_sequence_length=2)
        vectors.adapt(words)
        inputs = keras.Input((), dtype="string")
        hidden = keras.layers.Flatten()(keras.layers.Embedding(9, 3)(vectors(inputs)))
        model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
        model.compile("adam", "mse")
        if ours:
            keepfit.Run(model).fit(data, epochs=2, verbose=0)
        else:
            model.fit(data, epochs=2, shuffle=False, verbose=0)
        bits.append([weight.tobytes() for weight in model.get_weights()])
    assert bits[0] == bits[1]
