"""Models that share layers with an attached one: Keras trains, evaluates and predicts with them as ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit import _keras
from tests.bits import differing, state_bits
from tests.models import regression_data

pytestmark = pytest.mark.filterwarnings("ignore:Fit . is a new phase")


def autoencoder() -> tuple[Any, Any]:
    """Return an autoencoder, and its encoder as a model of its own."""
    keras.utils.set_random_seed(4)
    inputs = keras.Input((6,))
    code = keras.layers.Dense(3, activation="tanh")(inputs)
    # On PyTorch, Keras's own predict draws from the generator that dropout draws from.
    kept = code if keras.backend.backend() == "torch" else keras.layers.Dropout(0.1)(code)
    whole = keras.Model(inputs, keras.layers.Dense(6)(kept))
    encoder = keras.Model(inputs, code)
    for model in (whole, encoder):
        model.compile(keras.optimizers.Adam(1e-2), "mse")
    return whole, encoder


def use(encoder: Any, verb: str) -> None:
    """Do something with the encoder, by Keras's own means."""
    x = regression_data()[0]
    arguments = {"predict": (x,), "predict_on_batch": (x,)}.get(verb, (x, x[:, :3]))
    verbose = {} if verb.endswith("on_batch") else {"verbose": 0}
    getattr(encoder, verb)(*arguments, **verbose)


READING = ("predict", "evaluate", "predict_on_batch", "test_on_batch")
TRAINING = ("fit", "train_on_batch")


@pytest.mark.parametrize("when", ["between", "amid"])
@pytest.mark.parametrize("verb", READING)
def test_what_a_model_on_shared_layers_reads_leaves_no_trace(verb: str, when: str, tmp_path: Path) -> None:
    """Activations of an attached model, asked for between fits or by a callback, change no bit and lose no state."""
    found = []
    for asks in (False, True):
        whole, encoder = autoencoder()
        x = regression_data()[0]
        ask = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs, asks=asks, encoder=encoder: use(encoder, verb) if asks else None
        )
        with keepfit.Run(whole, tmp_path / f"{asks}", checkpoint_share="each") as run:
            for _ in range(3):
                run.fit(x, x, epochs=2, verbose=0, batch_size=16, callbacks=[ask] if when == "amid" else None)
                if asks and when == "between":
                    use(encoder, verb)
            found.append(state_bits(whole))
            assert run.load(fit=1) == 1
            found.append(state_bits(whole))
    assert differing(found[0], found[2]) == differing(found[1], found[3]) == []


@pytest.mark.parametrize("verb", TRAINING)
def test_training_a_model_on_shared_layers_counts_as_set_by_hand(verb: str, tmp_path: Path) -> None:
    """The script that trains both in turn, as a GAN's may, replays, goes on, and finds its kept states."""
    found = []
    for fits in (2, 3, 3):
        whole, encoder = autoencoder()
        x = regression_data()[0]
        with keepfit.Run(whole, tmp_path / "run") as run:
            ends = []
            for _ in range(fits):
                history = run.fit(x, x, epochs=2, verbose=0, batch_size=16)
                ends.append(state_bits(whole))
                use(encoder, verb)
            found.append((state_bits(whole), history.history))
            run.load(fit=fits)
            assert differing(ends[-1], state_bits(whole)) == []
            assert [record.phase for record in run.recorder.fits.values()][1:] == ["new"] * (fits - 1)
    assert differing(found[1][0], found[2][0]) == []
    assert found[1][1] == found[2][1]


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only Keras's JAX trainer donates arrays")
def test_states_are_lost_where_arrays_are_donated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: without copies Keras takes the run's arrays with it."""
    monkeypatch.setattr(_keras, "_owned", lambda: ())
    monkeypatch.setattr(_keras, "donate_copies", lambda owned: None)
    whole, encoder = autoencoder()
    x = regression_data()[0]
    with keepfit.Run(whole) as run:
        run.fit(x, x, verbose=0)
        use(encoder, "predict")
        with pytest.raises(RuntimeError, match="deleted"):
            run.fit(x, x, verbose=0)
        assert np.isfinite(whole.get_weights()[0]).all()
