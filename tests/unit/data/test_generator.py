"""Generators: one stream over all fits, no batch lost and none twice."""

import gc
import weakref

import numpy as np
import pytest

from keepfit.data import training_source
from keepfit.errors import InvalidData


def numbers(count=10):
    for value in range(count):
        yield np.full((2, 1), value, "float32"), np.zeros(2)


def values(source, count=100):
    found = []
    for _ in range(count):
        try:
            found.append(int(source.next_batch()[0][0, 0]))
        except StopIteration:
            break
    return found


def test_a_generator_goes_on_over_fits():
    """The same generator object given again goes on where it was, peeked batches included."""
    generator = numbers()
    first = training_source(generator, seed=0)
    assert int(first.peek()[0][0, 0]) == 0
    assert values(first, 3) == [0, 1, 2]
    first.peek()
    second = training_source(generator, seed=1)
    assert second.consumed == 3
    second.peek()
    assert values(second) == list(range(3, 10))
    assert first.consumed == 10


def test_a_new_generator_is_brought_to_the_place():
    """A new generator is taken to where the old one stood."""
    source = training_source(numbers(), seed=0)
    source.peek()
    source.replay_to(4)
    assert values(source) == list(range(4, 10))


def test_what_is_further_on_warns():
    """A generator cannot go back: that is said, and training goes on."""
    source = training_source(numbers(), seed=0)
    source.skip(5)
    with pytest.warns(UserWarning, match="cannot go back to 2"):
        source.replay_to(2)
    assert values(source, 1) == [5]


def test_a_generator_that_is_shorter_than_before_is_refused():
    """A generator that ends before the place was made differently, and that is said."""
    with pytest.raises(InvalidData, match="ended after 10 batches"):
        training_source(numbers(), seed=0).replay_to(12)


def test_an_empty_generator_is_refused():
    """A generator without a batch, or at its end, is refused at the peek."""
    with pytest.raises(InvalidData, match="no batch to give; 0 were taken"):
        training_source(numbers(0), seed=0).peek()


@pytest.mark.parametrize("batch", [np.zeros(2), [np.zeros(2), np.zeros(2)], {"a": np.zeros(2)}, 3])
def test_batches_must_be_tuples(batch):
    """A generator that yields no tuples is refused as by Keras."""
    with pytest.raises(InvalidData, match="must yield tuples"):
        training_source((item for item in [batch]), seed=0).peek()


def test_batches_of_another_form_reach_a_custom_step():
    """A tuple of four is for the model's own step to understand."""
    source = training_source((item for item in [tuple(np.zeros((4, 2)))]), seed=0)
    assert len(source.peek()) == 4


@pytest.mark.parametrize(
    "arguments",
    [{"y": np.zeros(1)}, {"sample_weight": np.zeros(1)}, {"class_weight": {0: 1}}, {"batch_size": 4}],
)
def test_what_contradicts_is_refused(arguments):
    """Nothing can be given beside a generator."""
    with pytest.raises(ValueError, match="generator"):
        training_source(numbers(), seed=0, **arguments)


def test_a_generator_is_not_kept_alive():
    """What is remembered about a generator goes with it."""
    generator = numbers()
    gone = weakref.ref(generator)
    source = training_source(generator, seed=0)
    source.peek()
    del generator, source
    gc.collect()
    assert gone() is None


def test_exactness_is_replay():
    """A generator says that its place is reached by going through it."""
    source = training_source(numbers(), seed=0)
    assert (source.exactness, source.num_batches, source.batch_size) == ("replay", None, None)
