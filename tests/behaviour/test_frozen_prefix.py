"""What frozen layers give is computed once for each sample: the same training, never stale; where it is not, why."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click.testing
import keras
import numpy as np
import pytest

import keepfit
from keepfit import features, frozen
from keepfit.cli import command
from keepfit.cli.verify import verify_folder
from keepfit.errors import EngineError, InvalidArgument, KeepfitWarning
from keepfit.store.features import FeatureFiles
from tests.bits import differing, joined_history, state_bits
from tests.models import regression_data

layers = keras.layers
GENERATOR = np.random.default_rng(8)
IMAGES = GENERATOR.normal(size=(70, 10, 10, 2)).astype("float32")
VALUES = GENERATOR.normal(size=(70, 3)).astype("float32")
TARGETS = IMAGES.mean(axis=(1, 2)).sum(axis=1, keepdims=True) + VALUES[:, :1]


def images_first() -> Any:
    """Return the frozen convolutional part of some of the models."""
    inputs = keras.Input((10, 10, 2))
    hidden = layers.Conv2D(4, 3, activation="relu", padding="same")(layers.Rescaling(0.5)(inputs))
    hidden = hidden + layers.Conv2D(4, 3, padding="same")(layers.BatchNormalization()(hidden))
    pooled = layers.GlobalAveragePooling2D()(hidden)
    return keras.Model(inputs, layers.Dense(6, activation="relu", name="top")(pooled), name="backbone")


def sequential() -> tuple[Any, Any, Any]:
    """A list of layers, the first ones frozen."""
    frozen_ones = [layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization(), layers.Flatten()]
    model = keras.Sequential([keras.Input((10, 10, 2)), *frozen_ones, layers.Dropout(0.3), layers.Dense(1)])
    for layer in frozen_ones:
        layer.trainable = False
    return model, IMAGES, TARGETS


def whole_backbone() -> tuple[Any, Any, Any]:
    """A frozen nested model."""
    backbone = images_first()
    backbone.trainable = False
    inputs = keras.Input((10, 10, 2))
    return keras.Model(inputs, layers.Dense(1)(layers.Dropout(0.2)(backbone(inputs)))), IMAGES, TARGETS


def cut_in_backbone() -> tuple[Any, Any, Any]:
    """A nested model whose last layer trains."""
    model, x, y = whole_backbone()
    model.get_layer("backbone").trainable = True
    for layer in model.get_layer("backbone").layers:
        layer.trainable = layer.name == "top"
    return model, x, y


def several_tensors() -> tuple[Any, Any, Any]:
    """Two inputs, of which one trains at once; two tensors of the frozen part cross the cut, and one is an output."""
    images, values = keras.Input((10, 10, 2), name="images"), keras.Input((3,), name="values")
    first = layers.Conv2D(4, 3, activation="relu", trainable=False)(images)
    second = layers.Conv2D(4, 3, activation="relu", trainable=False)(first)
    pooled = [layers.GlobalAveragePooling2D()(first), layers.GlobalMaxPooling2D()(second)]
    joined = layers.Concatenate()([*pooled, layers.Dense(4, activation="relu")(values)])
    outputs = {"sum": layers.Dense(1, name="sum")(joined), "seen": pooled[0]}
    model = keras.Model({"images": images, "values": values}, outputs)
    return (
        model,
        {"images": IMAGES, "values": VALUES},
        {"sum": TARGETS, "seen": IMAGES.mean(axis=(1, 2))[:, [0, 1, 0, 1]]},
    )


def mixed() -> tuple[Any, Any, Any]:
    """Layers that compute in bfloat16."""
    policy = keras.DTypePolicy("mixed_bfloat16")
    inputs = keras.Input((6,))
    hidden = layers.Dense(8, activation="relu", dtype=policy, trainable=False)(inputs)
    model = keras.Model(inputs, layers.Dense(1, dtype="float32")(layers.Dense(4, dtype=policy)(hidden)))
    return model, *regression_data()


def shared_layer() -> tuple[Any, Any, Any]:
    """A frozen layer that is used again behind one that trains."""
    shared = layers.Dense(6, activation="tanh", trainable=False)
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(1)(shared(layers.Dense(6)(shared(inputs)))))
    return model, *regression_data()


def frozen_recurrent() -> tuple[Any, Any, Any]:
    """Frozen layers with a mask among them, which does not cross the cut."""
    inputs = keras.Input((5,), dtype="int32")
    hidden = layers.Embedding(9, 4, mask_zero=True, trainable=False)(inputs)
    hidden = layers.LSTM(5, trainable=False)(hidden)
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    return model, np.random.default_rng(3).integers(0, 9, size=(70, 5)).astype("int32"), TARGETS


KINDS: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    maker.__name__: maker
    for maker in (
        sequential,
        whole_backbone,
        cut_in_backbone,
        several_tensors,
        mixed,
        shared_layer,
        frozen_recurrent,
    )
}


def make(kind: str, **compiled: Any) -> tuple[Any, Any, Any]:
    """Return a fresh compiled model with its data."""
    keras.utils.set_random_seed(2)
    model, x, y = KINDS[kind]()
    model.compile(keras.optimizers.Adam(1e-2), "mse", **compiled)
    return model, x, y


# XLA compiles frozen layers and the rest into one program, and may join operations over the cut: the last bits differ.
EXACT = keras.backend.backend() != "jax"


def apart(one: tuple[Any, ...], other: tuple[Any, ...]) -> list[str]:
    """Return the names under which training on features differs from the ordinary one: by a bit, on JAX by rounding.

    A few units in the last place of single precision, through a dozen steps at a rate of 1e-2, come to less
    than 1e-6; features that are off by a thousandth come to more.
    """
    if EXACT:
        return differing(one[0], other[0]) + differing(one[1], other[1])
    numbers = {name: [np.frombuffer(s[0][name][2], s[0][name][0]) for s in (one, other)] for name in other[0]}
    numbers |= {name: [np.asarray(s[1][name]) for s in (one, other)] for name in other[1]}
    return [name for name, (mine, theirs) in numbers.items() if not np.allclose(mine, theirs, rtol=1e-5, atol=2e-6)]


def rows(data: Any, stop: int) -> Any:
    """Return the first samples of data."""
    return keras.tree.map_structure(lambda array: array[:stop], data)


def train(
    model: Any, x: Any, y: Any, *, cuts: tuple[int, ...] = (3,), folder: Path | None = None, **arguments: Any
) -> tuple[Any, Any, Any]:
    """Return all state, everything logged and what the plan says about the prefix after some fits."""
    given = {"batch_size": 16, "verbose": 0, "validation_data": (rows(x, 30), rows(y, 30)), **arguments}
    with keepfit.Run(model, folder, checkpoint_share="each") as run:
        histories = [run.fit(x, y, epochs=epochs, **given) for epochs in cuts]
        told = run.recorder.fits[len(cuts)].plan.get("prefix")
    return state_bits(model), joined_history(histories), told


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of samples whenever features are computed."""
    calls: list[int] = []
    compute = features.computed

    def counted(engine: Any, source: Any) -> Iterator[Any]:
        calls.append(source.num_samples)
        yield from compute(engine, source)

    monkeypatch.setattr(features, "computed", counted)
    return calls


# What is the same


@pytest.mark.parametrize("kind", KINDS)
def test_training_on_features_is_the_ordinary_training(kind: str) -> None:
    """Every bit of state and every logged number is that of ``cache_frozen=False``."""
    kept = train(*make(kind))
    ordinary = train(*make(kind), cache_frozen=False)
    assert kept[2]["used"]
    assert ordinary[2] == {"used": False, "why": "cache_frozen=False"}
    assert apart(kept, ordinary) == []


@pytest.mark.parametrize("weights", ["sample_weight", "class_weight"])
def test_weights_go_with_the_features(weights: str) -> None:
    """Weights of samples and of classes count as ever."""
    y = (TARGETS > 0).astype("float32")
    given = {
        "sample_weight": np.linspace(0.1, 2, 70, dtype="float32"),
        "class_weight": {0: 0.5, 1: 3.0},
    }[weights]
    kept, ordinary, plain = (
        train(*make("sequential")[:2], y, **extra)
        for extra in ({weights: given}, {weights: given, "cache_frozen": False}, {})
    )
    assert apart(kept, ordinary) == []
    assert apart(kept, plain) != []


def test_training_differs_when_features_are_not_those_of_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: features a little off, or in another order, give other weights."""
    ordinary = train(*make("whole_backbone"), cache_frozen=False)
    compute = features.computed
    for wrong in (lambda array: array * np.float32(1.001), lambda array: array[::-1]):
        monkeypatch.setattr(
            features, "computed", lambda *given, wrong=wrong: ([wrong(a) for a in batch] for batch in compute(*given))
        )
        assert apart(train(*make("whole_backbone")), ordinary) != []


@pytest.mark.parametrize("cuts", [(1,) * 6, (2, 4)])
@pytest.mark.parametrize("place", ["in memory", "on disk"])
def test_cut_training_on_features_is_whole_training(
    place: str, cuts: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1: fits in a row are one fit, wherever features are kept."""
    whole = train(*make("cut_in_backbone"), cuts=(6,))
    if place == "on disk":
        monkeypatch.setattr(features, "MEMORY_BYTES", 0)
    cut = train(*make("cut_in_backbone"), cuts=cuts, folder=tmp_path / "run")
    assert cut[2]["kept"] == place
    assert differing(whole[0], cut[0]) == []
    assert cut[1] == whole[1]


def test_fits_that_end_inside_a_pass_on_features_are_whole_training() -> None:
    """P1: with ``steps_per_epoch`` too, a fit trains on features, so that its bits are those of whole passes."""
    given = {"batch_size": 7, "validation_data": None}  # ten steps in a pass
    whole = train(*make("cut_in_backbone"), cuts=(2,), **given)
    cut = train(*make("cut_in_backbone"), cuts=(1,) * 10, steps_per_epoch=2, **given)
    assert cut[2]["used"]
    # Metrics are those of an epoch, and the epochs are others.
    assert [name for name in differing(whole[0], cut[0]) if not name.startswith("metrics/")] == []


def test_features_are_computed_once(computed: list[int]) -> None:
    """Training and validation data go through the frozen layers once, however many fits and epochs there are."""
    train(*make("whole_backbone"), cuts=(2, 3, 1))
    assert computed == [70, 30]


def test_whole_model_is_there_for_callbacks() -> None:
    """A callback that predicts or evaluates amid a fit finds the model that takes inputs, and changes no bit."""
    seen = []

    class Looks(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.append(self.model.predict(IMAGES[:5], verbose=0).shape)
            self.model.evaluate(IMAGES, TARGETS, verbose=0)

    def fit(callbacks: list[Any]) -> Any:
        model, x, y = make("whole_backbone")
        model = keepfit.attach(model)
        model.fit(x, y, batch_size=16, epochs=3, verbose=0, callbacks=callbacks)
        return state_bits(model)

    assert differing(fit([Looks()]), fit([])) == []
    assert seen == [(5, 1)] * 3


def test_evaluate_and_predict_stay_ordinary() -> None:
    """What the user asks of the model goes through all of it, before and after a fit on features."""
    model, x, y = make("several_tensors")
    model = keepfit.attach(model)
    model.fit(x, y, batch_size=16, verbose=0)
    ours, loss = model.predict(x, batch_size=16, verbose=0), model.evaluate(x, y, batch_size=16, verbose=0)
    model.run.close()
    theirs = model.predict(x, batch_size=16, verbose=0)
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    # Sums in another order; the losses of single outputs TensorFlow's trainer does not weight by the size of a batch.
    assert np.isclose(loss[0], model.evaluate(x, y, batch_size=16, verbose=0)[0], rtol=1e-5)


# Never stale


@pytest.mark.filterwarnings("ignore:Fit 2 is a new phase")
def test_frozen_weight_set_by_hand_is_heeded(computed: list[int]) -> None:
    """A weight of a frozen layer that is set between fits gives other features."""

    def fit(**arguments: Any) -> Any:
        model, x, y = make("whole_backbone")
        with keepfit.Run(model) as run:
            run.fit(x, y, batch_size=16, verbose=0, **arguments)
            kernel = model.get_layer("backbone").get_layer("top").kernel
            kernel.assign(kernel * 1.5)
            run.fit(x, y, batch_size=16, verbose=0, **arguments)
        return state_bits(model), {}

    kept = fit()
    assert computed == [70, 70]
    assert apart(kept, fit(cache_frozen=False)) == []


def test_frozen_setting_changed_by_hand_is_heeded(computed: list[int]) -> None:
    """A plain setting of a frozen layer that is changed between fits gives other features."""
    model, x, y = make("whole_backbone")
    with keepfit.Run(model) as run:
        run.fit(x, y, batch_size=16, verbose=0)
        model.get_layer("backbone").layers[1].scale = 2.0
        run.fit(x, y, batch_size=16, verbose=0)
    assert computed == [70, 70]


def test_data_changed_in_place_is_heeded(computed: list[int]) -> None:
    """One number of the data that is changed in place, between the rows that fingerprints look at, is seen."""
    model, x, y = make("whole_backbone")
    x = x.copy()
    with keepfit.Run(model) as run:
        run.fit(x, y, batch_size=16, verbose=0)
        x[61, 3, 3, 1] += 1
        run.fit(x, y, batch_size=16, verbose=0)
        run.fit(x, y * 2, batch_size=16, verbose=0)  # other targets need no other features
    assert computed == [70, 70]


def test_going_back_and_forth_between_cuts_computes_once(computed: list[int]) -> None:
    """Layers that are frozen in turns find the features of their cut again."""
    model, x, y = make("whole_backbone")
    with warnings.catch_warnings(), keepfit.Run(model) as run:
        warnings.simplefilter("ignore", KeepfitWarning)
        for train_too in (False, True, False, True):
            model.get_layer("backbone").trainable = train_too
            for layer in model.get_layer("backbone").layers:
                layer.trainable = train_too and layer.name == "top"
            run.fit(x, y, batch_size=16, verbose=0)
    # The layer that trained in the second fit has other weights in the third; the cut before it knows them all.
    assert len(computed) == 3


def test_callback_that_changes_frozen_weights_is_found_out() -> None:
    """A callback of the user's that writes into a frozen layer amid a fit does not train on in silence."""

    class Writes(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            layer = self.model.get_layer("backbone").get_layer("top")
            layer.kernel.assign(layer.kernel * 1.1)

    model, x, y = make("whole_backbone")
    with keepfit.Run(model) as run, pytest.raises(EngineError, match="cache_frozen=False"):
        run.fit(x, y, batch_size=16, epochs=2, verbose=0, callbacks=[Writes()])


# On disk


@pytest.fixture
def _on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "MEMORY_BYTES", 0)


def begun(folder: Path, **arguments: Any) -> Any:
    """Train a first fit whose features are on disk, and close the run; returns the state after two fits in a row."""
    whole = train(*make("whole_backbone"), cuts=(1, 1), **arguments)
    train(*make("whole_backbone"), cuts=(1,), folder=folder, **arguments)
    return whole[0]


@pytest.mark.usefixtures("_on_disk")
def test_features_on_disk_are_found_again(tmp_path: Path, computed: list[int]) -> None:
    """A later process reads them instead of computing them."""
    whole = begun(tmp_path / "run")
    del computed[:]
    after = train(*make("whole_backbone"), cuts=(1, 1), folder=tmp_path / "run")
    assert computed == []
    assert differing(after[0], whole) == []
    assert len(list((tmp_path / "run" / "features").iterdir())) == 2


@pytest.mark.usefixtures("_on_disk")
@pytest.mark.parametrize("harm", ["flipped", "cut short", "gone", "half written"])
def test_damaged_features_are_computed_again(harm: str, tmp_path: Path, computed: list[int]) -> None:
    """Bytes that are not those that were written are found out, said, and replaced; the end has the same bits."""
    whole = begun(tmp_path / "run")
    file = max((tmp_path / "run" / "features").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    del computed[:]
    if harm == "flipped":
        data[-9] ^= 1
        file.write_bytes(data)
    elif harm == "cut short":
        file.write_bytes(data[:-4])
    else:
        file.unlink()
    if harm == "half written":
        with keepfit.Run(make("whole_backbone")[0], tmp_path / "run") as run:
            run.recorder.set_meta("features", {**run.recorder.meta["features"], file.name: None})
        file.with_name(f"{file.name}.part").write_bytes(data[:50])
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        after = train(*make("whole_backbone"), cuts=(1, 1), folder=tmp_path / "run")
    assert computed == [70]
    assert any("damaged" in str(each.message) for each in told) == (harm != "half written")
    assert differing(after[0], whole) == []
    assert sorted(path.suffix for path in file.parent.iterdir()) == [".safetensors"] * 2


@pytest.mark.usefixtures("_on_disk")
def test_damage_goes_unnoticed_without_the_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: where bytes are not checked, training on other ones ends with other bits."""
    whole = begun(tmp_path / "run")
    file = max((tmp_path / "run" / "features").iterdir(), key=lambda path: path.stat().st_size)
    data = file.read_bytes()
    # Four samples a little off, not so much that it ends the training.
    data = data[:-96] + (np.frombuffer(data[-96:], "float32") * np.float32(1.5)).tobytes()
    file.write_bytes(data)
    monkeypatch.setattr(FeatureFiles, "_damage", lambda self, name: None)
    after = train(*make("whole_backbone"), cuts=(1, 1), folder=tmp_path / "run")
    assert differing(after[0], whole) != []


@pytest.mark.usefixtures("_on_disk")
def test_files_of_others_stay_and_old_features_go(tmp_path: Path) -> None:
    """Disk stays bounded over ever new data, and what is not ours is never removed."""
    model, x, y = make("whole_backbone")
    with keepfit.Run(model, tmp_path / "run") as run:
        run.fit(x, y, batch_size=16, verbose=0)
        mine = tmp_path / "run" / "features" / "notes-0.safetensors"
        mine.write_text("not yours")
        for shift in range(8):
            run.fit(x + np.float32(shift), y, batch_size=16, verbose=0)
    assert mine.read_text() == "not yours"
    assert len(list(mine.parent.iterdir())) <= 1 + features._KEPT_SETS


def test_memory_of_features_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over ever new data no more than a few sets stay, and the oldest ones go when they are large."""
    model, x, y = make("whole_backbone")
    with keepfit.Run(model) as run:
        for shift in range(6):
            run.fit(x + np.float32(shift), y, batch_size=16, verbose=0)
        held = run.frozen._features._held
        assert len(held) == features._KEPT_SETS
        monkeypatch.setattr(features, "MEMORY_BYTES", 70 * 6 * 4 + 10)
        run.fit(x, y, batch_size=16, verbose=0)
        assert len(held) == 1


@pytest.mark.usefixtures("_on_disk")
def test_verify_tells_of_damaged_features_and_loses_nothing(tmp_path: Path) -> None:
    """They are computed again, so that they are a notice and no damage."""
    train(*make("whole_backbone"), cuts=(1,), folder=tmp_path / "run")
    assert verify_folder(tmp_path / "run").notices == ()
    file = next(iter((tmp_path / "run" / "features").iterdir()))
    file.write_bytes(file.read_bytes()[:-1])
    report = verify_folder(tmp_path / "run")
    assert report.damages == ()
    assert [f"features/{file.name}" in text for text in report.notices] == [True]


@pytest.mark.usefixtures("_on_disk")
def test_features_that_cannot_be_written_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is said before anything is trained, and half a file is not left there."""

    def full(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    model, x, y = make("whole_backbone")
    with keepfit.Run(model, tmp_path / "run") as run:
        with monkeypatch.context() as patched:
            patched.setattr("keepfit.store.disk.Disk.append", full)
            with pytest.raises(keepfit.errors.StoreFull):
                run.fit(x, y, batch_size=16, verbose=0)
        assert list((tmp_path / "run" / "features").iterdir()) == []
        run.fit(x, y, batch_size=16, verbose=0)
    assert run.position.epoch == 1


@pytest.fixture
def _heeds_ctrl_c() -> Iterator[None]:
    """Python's own handler of Ctrl-C, which a process that a shell began in the background has not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Interrupted:
    """Features that a signal interrupts after a batch, as often as is asked.

    Args:
        times: How often.
    """

    def __init__(self, times: int) -> None:
        self._left = times
        self._compute = features.computed

    def __call__(self, engine: Any, source: Any) -> Iterator[Any]:
        """Give batches, and send the signal after the second one."""
        for number, batch in enumerate(self._compute(engine, source)):
            if number == 2 and self._left:
                self._left -= 1
                signal.raise_signal(signal.SIGINT)
            yield batch


@pytest.mark.usefixtures("_heeds_ctrl_c")
@pytest.mark.parametrize("place", ["in memory", "on disk"])
def test_ctrl_c_while_features_are_computed_loses_nothing(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes through at once; the next call computes them anew and trains as if nothing had been."""
    if place == "on disk":
        monkeypatch.setattr(features, "MEMORY_BYTES", 0)
    given = {"batch_size": 16, "verbose": 0}
    whole = train(*make("whole_backbone"), cuts=(2, 2), validation_data=None)
    model, x, y = make("whole_backbone")
    monkeypatch.setattr(features, "computed", Interrupted(times=2))
    with keepfit.Run(model, tmp_path / "run", checkpoint_share="each") as run:
        start = state_bits(model)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                run.fit(x, y, epochs=2, **given)
            after = state_bits(model)  # of an optimizer too, which the first call has built
            assert differing(start, {name: after[name] for name in start}) == []
            assert run.position.fit == 0
        run.fit(x, y, epochs=2, **given)
        run.fit(x, y, epochs=2, **given)
        assert differing(whole[0], state_bits(model)) == []
        assert [record.status for record in run.recorder.fits.values()] == ["finished", "finished"]


@pytest.mark.usefixtures("_heeds_ctrl_c")
@pytest.mark.parametrize("rewinds", [True, False])
def test_ctrl_c_before_a_continuing_fit_leaves_the_averages(rewinds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit that would go on from before the averages were written leaves them, and goes on from there when called."""
    model, x, y = make("whole_backbone")
    model.compile(keras.optimizers.Adam(1e-2, use_ema=True), "mse")
    given = {"batch_size": 16, "verbose": 0}
    with keepfit.Run(model) as run:
        run.fit(x, y, **given)
        ended = state_bits(model)
        run.frozen._features._held.clear()
        monkeypatch.setattr(features, "computed", Interrupted(times=1))
        if not rewinds:  # the control
            monkeypatch.setattr("keepfit.state.Variables.assign", _no_weights(keepfit.state.Variables.assign))
        with pytest.raises(KeyboardInterrupt):
            run.fit(x, y, **given)
        assert (differing(ended, state_bits(model)) == []) is rewinds


def _no_weights(assign: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``assign`` that works once."""
    calls: list[None] = []

    def once(self: Any, values: Any, **given: Any) -> Any:
        calls.append(None)
        return assign(self, values, **given) if len(calls) == 1 else []

    return once


FEATURES = """
import sys
import keepfit
from keepfit import features
from tests.behaviour.test_frozen_prefix import make
features.MEMORY_BYTES = 0
compute = features.computed
def computed(engine, source):
    for number, batch in enumerate(compute(engine, source)):
        if number == 2:
            print("computing", flush=True)
            sys.stdin.readline()
        yield batch
features.computed = computed
model, x, y = make("whole_backbone")
run = keepfit.Run(model, sys.argv[1], checkpoint_share="each")
run.fit(x, y, epochs=2, batch_size=16, verbose=0)
"""


@pytest.mark.usefixtures("_on_disk")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_process_killed_while_features_are_computed_loses_nothing(number: int, tmp_path: Path) -> None:
    """The next process removes what is half written, computes them, and ends with the bits of one never killed."""
    whole = train(*make("whole_backbone"), cuts=(2,), validation_data=None)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FEATURES, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "computing\n"
        left = [file.name for file in (tmp_path / "run" / "features").iterdir()]
        process.send_signal(number)
        assert process.wait() == -number
    assert [name.endswith(".part") for name in left] == [True]
    again = train(*make("whole_backbone"), cuts=(2,), folder=tmp_path / "run", validation_data=None)
    assert differing(whole[0], again[0]) == []
    assert [file.suffix for file in (tmp_path / "run" / "features").iterdir()] == [".safetensors"]


@pytest.mark.usefixtures("_on_disk")
def test_run_without_a_folder_keeps_large_features_in_a_temporary_one(tmp_path: Path, monkeypatch: Any) -> None:
    """Whether features are used does not depend on the folder: without one they go with the run."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    told = train(*make("whole_backbone"))[2]
    assert (told["used"], told["kept"]) == (True, "on disk")


# Where it is not used, and why


def two_dense(*before: Any, **arguments: Any) -> tuple[Any, Any, Any]:
    """Return a model with given layers before a frozen one, and data for it."""
    keras.utils.set_random_seed(2)
    stack = [*before, layers.Dense(6, activation="relu", trainable=False, **arguments), layers.Dense(1)]
    model = keras.Sequential([keras.Input((6,)), *stack])
    model.compile("sgd", "mse")
    return model, *regression_data()


class Scaled(layers.Layer):
    """A layer of the user's own."""

    def call(self, x: Any) -> Any:
        return x * 2


class OwnLoss(keras.Model):
    """A model whose loss may look at the inputs."""

    def compute_loss(self, x: Any = None, y: Any = None, *given: Any, **more: Any) -> Any:
        return super().compute_loss(x, y, *given, **more)


def own_loss() -> tuple[Any, Any, Any]:
    """Return a functional model with a loss of its own."""
    inputs = keras.Input((6,))
    model = OwnLoss(inputs, layers.Dense(1)(layers.Dense(4, trainable=False)(inputs)))
    model.compile("sgd", "mse")
    return model, *regression_data()


class Subclassed(keras.Model):
    """A model without a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = layers.Dense(4, trainable=False), layers.Dense(1)

    def call(self, x: Any) -> Any:
        return self.last(self.first(x))


def subclassed() -> tuple[Any, Any, Any]:
    """Return a model that is code."""
    model = Subclassed()
    model.compile("sgd", "mse")
    return model, *regression_data()


def masked() -> tuple[Any, Any, Any]:
    """Return a model whose only frozen layer gives a mask."""
    inputs = keras.Input((5,), dtype="int32")
    model = keras.Model(
        inputs, layers.Dense(1)(layers.LSTM(3)(layers.Embedding(9, 4, mask_zero=True, trainable=False)(inputs)))
    )
    model.compile("sgd", "mse")
    return model, np.ones((70, 5), "int32"), TARGETS


UNUSED: dict[str, tuple[Callable[[], tuple[Any, Any, Any]], str]] = {
    "noise": (lambda: two_dense(layers.GaussianNoise(0.1, seed=1)), "gaussian_noise.* draws random numbers"),
    "code": (lambda: two_dense(Scaled()), "scaled.* is a Scaled, whose code keepfit does not know"),
    "lambda": (lambda: two_dense(layers.Lambda(lambda x: x)), "lambda.* is a Lambda, which is not known"),
    "batch norm": (lambda: two_dense(layers.BatchNormalization(center=False, scale=False)), "normalises by the batch"),
    "trains": (lambda: two_dense(layers.Dense(6)), "dense.* has weights that train"),
    "activity": (lambda: two_dense(activity_regularizer="l2"), "dense.* adds to the loss"),
    "loss": (own_loss, "the model has a compute_loss of its own"),
    "subclassed": (subclassed, "the model runs code of its own"),
    "mask": (masked, "embedding.* gives a mask"),
}


@pytest.mark.parametrize("case", UNUSED)
def test_prefix_that_is_not_safe_is_not_used(case: str) -> None:
    """Nothing is kept where it might not be the same each time; the plan says why, and training is ordinary."""
    maker, why = UNUSED[case]

    def end(**arguments: Any) -> Any:
        keras.utils.set_random_seed(2)
        return train(*maker(), **arguments)

    kept, ordinary = end(), end(cache_frozen=False)
    assert kept[2]["used"] is False
    assert re.search(why, kept[2]["why"]), kept[2]
    assert differing(kept[0], ordinary[0]) == []


def test_nothing_is_said_where_nothing_is_frozen() -> None:
    """A model that trains whole has nothing about a prefix in its plan."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(1)])
    model.compile("sgd", "mse")
    assert train(model, *regression_data())[2] is None


def test_dropout_ends_the_prefix_before_it(tmp_path: Path) -> None:
    """With dropout amid a frozen backbone, what lies before it is kept; ``keepfit show`` says where it ends."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((6,))
    hidden = layers.Dropout(0.5, name="drop")(layers.Dense(8, activation="tanh", name="early")(inputs))
    backbone = keras.Model(inputs, layers.Dense(5, name="late")(hidden), name="backbone")
    backbone.trainable = False
    model = keras.Sequential([keras.Input((6,)), backbone, layers.Dense(1)])
    model.compile("sgd", "mse")
    told = train(model, *regression_data(), folder=tmp_path / "run")[2]
    assert told["layers"] == 1
    assert told["ends"] == ["backbone/drop draws random numbers"]
    shown = click.testing.CliRunner().invoke(command, ["show", str(tmp_path / "run")], env={"COLUMNS": "200"}).output
    assert "backbone/drop draws random numbers" in shown


def test_show_says_why_no_prefix_is_used(tmp_path: Path) -> None:
    """The reason is in the journal, and ``keepfit show`` prints it."""
    train(*two_dense(layers.GaussianNoise(0.1, name="noise")), folder=tmp_path / "run")
    shown = click.testing.CliRunner().invoke(command, ["show", str(tmp_path / "run")], env={"COLUMNS": "200"}).output
    assert "noise draws random numbers" in shown


def test_streams_are_not_kept() -> None:
    """What a generator gives next is not known."""

    def batches() -> Iterator[Any]:
        while True:
            yield IMAGES[:10], TARGETS[:10]

    with keepfit.Run(make("whole_backbone")[0]) as run:
        run.fit(batches(), steps_per_epoch=3, verbose=0)
        assert run.recorder.fits[1].plan["prefix"]["why"] == "the data is not given as dense arrays"


def test_much_larger_features_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the memory's budget features may take four times the bytes of the inputs."""
    monkeypatch.setattr(features, "MEMORY_BYTES", 1000)

    def told(units: int) -> Any:
        keras.utils.set_random_seed(2)
        stack = [layers.Dense(units, trainable=False), layers.Dropout(0.1), layers.Dense(1)]
        model = keras.Sequential([keras.Input((6,)), *stack])
        model.compile("sgd", "mse")
        return train(model, *regression_data())[2]

    assert told(24)["kept"] == "on disk"
    assert told(30) == {"used": False, "why": "what the frozen layers give is 5.0 times as large as the inputs"}


def test_validation_that_cannot_be_kept_is_ordinary(computed: list[int]) -> None:
    """Validation data from a data set goes through the whole model, beside training on features."""

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            return IMAGES[index * 10 : index * 10 + 10], TARGETS[index * 10 : index * 10 + 10]

    kept = train(*make("whole_backbone"), validation_data=Batches())
    assert computed == [70]
    ordinary = train(*make("whole_backbone"), validation_data=Batches(), cache_frozen=False)
    assert apart(kept, ordinary) == []


def test_resumed_without_features_says_so(tmp_path: Path) -> None:
    """A fit that began on features and goes on without is equal to rounding only, which is said."""

    class Stops(keras.callbacks.Callback):
        at: int | None = 2

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == Stops.at:
                raise RuntimeError("stopped")

    model, x, y = make("whole_backbone")
    with keepfit.Run(model, tmp_path / "run") as run:
        with pytest.raises(RuntimeError, match="stopped"):
            run.fit(x, y, batch_size=16, epochs=4, verbose=0, callbacks=[Stops()])
        Stops.at = None
        with pytest.warns(KeepfitWarning, match="features of frozen layers: kept before, not kept now"):
            run.fit(x, y, batch_size=16, epochs=4, verbose=0, callbacks=[Stops()], cache_frozen=False)


def test_argument_is_checked() -> None:
    """``cache_frozen`` is True or False."""
    model, x, y = make("whole_backbone")
    with keepfit.Run(model) as run, pytest.raises(InvalidArgument, match="cache_frozen"):
        run.fit(x, y, cache_frozen="no")
    assert frozen.MOST_TIMES == 4  # the documentation says so
