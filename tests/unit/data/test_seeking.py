"""Every kind of source, taken to every place: the rest is the rest of the uninterrupted stream."""

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from tests.bits import dense

from keepfit.data import BatchSource, IndexedSource, StreamSource, training_source

COUNT, SIZE, PASSES = 11, 4, 3


class Batches(keras.utils.PyDataset):
    """Batches by index; with ``own`` randomness they change after every epoch."""

    def __init__(self, own=False, **settings):
        super().__init__(**settings)
        self.own, self.shift, self.random = own, 0, np.random.default_rng(1)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return np.full((2, 1), index + self.shift), np.zeros(2)


class Changing(Batches):
    """Changes after every epoch."""

    def on_epoch_end(self):
        self.shift = int(self.random.integers(1000))


def generator():
    for value in range(3 * PASSES):
        yield np.full((2, 1), value), np.zeros(2)


def array():
    return np.arange(COUNT * 2, dtype="float32").reshape(COUNT, 2)


KINDS = {
    "array": array,
    "float64": lambda: array().astype("float64"),
    "nested": lambda: {"a": array(), "b": [array()]},
    "frame": lambda: pd.DataFrame(array()),
    "sparse": lambda: scipy.sparse.csr_matrix(array()),
    "in batches": array,
    "not shuffled": array,
    "PyDataset": Batches,
    "PyDataset with workers": lambda: Batches(workers=2),
    "PyDataset with hooks": Changing,
    "generator": generator,
}


def made(kind):
    x = KINDS[kind]()
    arguments = {"shuffle": {"in batches": "batch", "not shuffled": False}.get(kind, True)}
    if not isinstance(x, keras.utils.PyDataset) and kind != "generator":
        arguments |= {"y": np.arange(COUNT), "batch_size": SIZE}
    return training_source(x, seed=17, **arguments)


def steps(source, place=(0, 0), *, resumed=False):
    """Yield ``(place, consumed, state, batch)`` of every batch from a place on, what is saved being that before it."""
    number, offset = place
    for current in range(number, PASSES):
        source.begin_pass(current, resumed=resumed and current == number and offset > 0)
        order = source.order(current, 0, source.num_samples) if isinstance(source, IndexedSource) else None
        for index in range(offset if current == number else 0, 3):
            saved = (getattr(source, "consumed", None), source.get_state())
            if order is not None:
                batch = source.take(order[index * SIZE : (index + 1) * SIZE])
            elif isinstance(source, BatchSource):
                batch = source.batch(current, index)
            else:
                batch = source.next_batch()
            yield (current, index), *saved, batch
        source.end_pass()


def assert_equal(mine, other):
    keras.tree.assert_same_structure(mine, other)
    for left, right in zip(keras.tree.flatten(mine), keras.tree.flatten(other), strict=True):
        assert np.array_equal(dense(left), dense(right))


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_source_goes_on_from_every_place(kind):
    """The state before every batch, given to a new source, brings all the batches that were to come."""
    stream = list(steps(made(kind)))
    assert len(stream) == 3 * PASSES
    for at, (place, consumed, state, _) in enumerate(stream):
        source = made(kind)
        if isinstance(source, StreamSource):
            source.peek()
            source.replay_to(consumed)
        elif state is not None:
            source.set_state(state)
        rest = list(steps(source, place, resumed=True))
        assert len(rest) == len(stream) - at
        for (_, _, _, mine), (_, _, _, other) in zip(rest, stream[at:], strict=True):
            assert_equal(mine, other)


@pytest.mark.parametrize("kind", ["PyDataset with hooks", "generator"])
def test_without_its_state_a_source_does_not_go_on(kind):
    """The test above is no accident: where the state is left out, other batches come."""
    stream = list(steps(made(kind)))
    place, _, _, expected = stream[4]
    *_, found = next(iter(steps(made(kind), place, resumed=True)))
    assert not np.array_equal(found[0], expected[0])
