"""Class-sorted partitions: a window of four converges like the shuffle in memory, one fit for each does not."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit.data import training_source

SAMPLES, PARTS, CLASSES, FEATURES, EPOCHS, WINDOW = 16_000, 20, 10, 64, 5, 4
STEPS = EPOCHS * SAMPLES // 32
# Twice the spread over five seeds, of the arrays and of each window, in docs/decisions/0030.
NEAR = 0.01


@pytest.fixture(scope="module")
def blobs() -> Any:
    """Ten overlapping classes: sorted ones to train on, mixed ones to be tested with."""
    generator = np.random.default_rng(0)
    centres = 0.5 * generator.normal(size=(CLASSES, FEATURES))

    def draw(count: int) -> Any:
        y = np.sort(generator.integers(0, CLASSES, count)).astype("int32")
        return (centres[y] + generator.normal(size=(count, FEATURES))).astype("float32"), y

    return draw(SAMPLES), draw(4_000)


def parts_of(x: Any, y: Any) -> list[Callable[[], Any]]:
    """Return the data as partitions of half a class each."""
    return [lambda part=part: part for part in zip(np.split(x, PARTS), np.split(y, PARTS), strict=True)]


def accuracy(held: Any, train: Callable[[Any], None]) -> float:
    """Return the accuracy of a small net after ``train(run)``, at a rate that falls to zero."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(32, activation="relu"), keras.layers.Dense(CLASSES)]
    model = keras.Sequential([keras.Input((FEATURES,)), *layers])
    rate = keras.optimizers.schedules.CosineDecay(0.05, STEPS)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss, metrics=["accuracy"])
    with keepfit.Run(model, seed=1) as run:
        train(run)
        return float(run.evaluate(*held, verbose=0)[1])


def test_a_window_over_class_sorted_partitions_converges_like_the_shuffle_in_memory(blobs: Any) -> None:
    """Four of twenty partitions at a time, each half of a class, come to the accuracy of arrays in memory.

    The control is the usual advice, one fit for each partition, which does not.
    """
    (x, y), held = blobs
    parts = parts_of(x, y)

    def one_fit_each(run: Any) -> None:
        for _, part in itertools.product(range(EPOCHS), parts):
            run.fit(*part(), verbose=0)

    in_memory = accuracy(held, lambda run: run.fit(x, y, epochs=EPOCHS, verbose=0))
    data = keepfit.partitions(parts, window=WINDOW)
    in_windows = accuracy(held, lambda run: run.fit(data, epochs=EPOCHS, verbose=0))
    assert in_windows == pytest.approx(in_memory, abs=NEAR)
    assert accuracy(held, one_fit_each) < in_memory - 2 * NEAR


def test_a_batch_has_as_many_classes_as_the_window_lets_it(blobs: Any) -> None:
    """The figures of the pages: classes in a batch of 32 of class-sorted partitions, window by window."""
    (x, y), _ = blobs
    found = []
    for window in (1, 4, 8, PARTS):
        source = training_source(keepfit.partitions(parts_of(x, y), window=window), batch_size=32, seed=1)
        starts = range(0, SAMPLES - 32, 32)
        found.append(np.mean([len(np.unique(y[source.order(0, start, start + 32)])) for start in starts]))
    assert found == pytest.approx([1.2, 4.1, 6.3, 9.7], abs=0.3)
