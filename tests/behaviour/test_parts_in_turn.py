"""The user's own loop over parts of the data: what a run holds goes on from part to part, and no size costs twice."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from tests.models import make, regression_data

X, Y = regression_data(samples=900)
SHORT: dict[str, Any] = {"batch_size": 32, "verbose": 0}


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[int]]:
    """Return a model, and a list that grows whenever its step is traced; on PyTorch, captured."""
    model = make("dropout_batch_norm")[0]
    traced: list[int] = []
    if keras.backend.backend() == "torch":
        from keepfit.engine.torch_library import Library

        capture = Library._captured
        monkeypatch.setattr(Library, "_captured", lambda *args: (traced.append(1), capture(*args))[1])
    else:
        step = model.compute_loss
        model.compute_loss = lambda *args, **kwargs: (traced.append(1), step(*args, **kwargs))[1]
    return model, traced


def fit_parts(run: Any, sizes: list[int], traced: list[int]) -> list[int]:
    """Fit on a part of each size; return how often the step was traced in each fit."""
    counts = []
    for size in sizes:
        before = len(traced)
        run.fit(X[:size], Y[:size], **SHORT)
        counts.append(len(traced) - before)
    return counts


def test_parts_of_whole_batches_trace_the_step_once(counting: tuple[Any, list[int]]) -> None:
    """However many batches a part has, the second one and all after it compile nothing."""
    model, traced = counting
    with keepfit.Run(model) as run:
        first, *others = fit_parts(run, [64, 128, 32, 320, 96, 800], traced)
    assert first > 0
    assert others == [0] * 5


def test_parts_of_ragged_sizes_trace_a_last_batch_once_for_each_of_its_sizes(counting: tuple[Any, list[int]]) -> None:
    """A part whose last batch has a size that was there before compiles nothing, whatever its own size."""
    model, traced = counting
    with keepfit.Run(model) as run:
        first, second, *again = fit_parts(run, [70, 105, 102, 38, 73, 326, 329, 6, 9], traced)
        (other,) = fit_parts(run, [75], traced)
    if keras.backend.backend() == "torch":  # what is seen seldom runs as it is written
        assert first + second + sum(again) + other <= 4
        return
    assert first > 0
    assert second > 0
    assert again == [0] * 7
    assert other > 0  # the negative control: a last batch of another size


def test_schedules_count_over_parts(tmp_path: Any) -> None:
    """A rate that falls with the steps falls over all parts, and epoch numbers and logs go on."""
    cosine = keras.optimizers.schedules.CosineDecay(1e-2, 30)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(cosine), "mse")
    log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"), append=True)
    with keepfit.Run(model) as run:
        epochs = [run.fit(X[start:][:160], Y[start:][:160], callbacks=[log], **SHORT).epoch for start in (0, 160, 320)]
        assert epochs == [[0], [1], [2]]
        assert run.position.step == 15
        assert np.isclose(run.learning_rate, float(cosine(15)))
        rates = run.history.learning_rates
        assert rates == sorted(rates, reverse=True)
    written = (tmp_path / "log.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in written] == ["epoch", "0", "1", "2"]


@pytest.mark.parametrize("prefetched", [False, True])
def test_patience_counts_over_parts(prefetched: bool) -> None:
    """A loop with a new callback for each part stops after three parts of no progress, as one callback would."""
    model = make("plain_dense")[0]
    held = X[800:], Y[800:]
    made = []
    with keepfit.Run(model) as run:
        for number in range(8):
            rows = slice(100 * number, 100 * number + 100)
            made.append(keras.callbacks.EarlyStopping("val_loss", patience=3, min_delta=1e9))
            data = (run.prefetch(X[rows], Y[rows]),) if prefetched else (X[rows], Y[rows])
            run.fit(*data, validation_data=held, callbacks=made[-1:], **SHORT)
            if model.stop_training:
                break
    assert [callback.wait for callback in made] == [0, 1, 2, 3]
