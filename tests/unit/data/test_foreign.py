"""What only Keras's adapters read: a stream that begins again with each pass."""

import itertools

import numpy as np
import pytest
from keras.src.trainers.data_adapters.data_adapter import DataAdapter

from keepfit.data import evaluation_source, training_source
from keepfit.errors import InvalidData


class Numbers(DataAdapter):
    """A custom adapter, whose every pass has another order as a shuffling data set's."""

    def __init__(self, count=5, known=True):
        self.count, self.known, self.passes, self.hooks = count, known, 0, []

    def get_jax_iterator(self):
        self.passes += 1
        order = np.random.default_rng(self.passes).permutation(self.count)
        return ((np.full((2, 1), value), np.zeros(2)) for value in order)

    get_numpy_iterator = get_jax_iterator

    @property
    def num_batches(self):
        return self.count if self.known else None

    def on_epoch_begin(self):
        self.hooks.append("begin")

    def on_epoch_end(self):
        self.hooks.append("end")


def epoch(source, number, steps=None, *, resumed=False):
    source.begin_pass(number, resumed=resumed)
    found = []
    for _ in itertools.count() if steps is None else range(steps):
        try:
            found.append(int(source.next_batch()[0][0, 0]))
        except StopIteration:
            break
    source.end_pass()
    return found


def orders(count=5, passes=4):
    return [np.random.default_rng(number + 1).permutation(count).tolist() for number in range(passes)]


@pytest.mark.parametrize("known", [True, False])
def test_every_epoch_is_a_pass(known):
    """Without steps each epoch is one new pass, over several sources too."""
    data = Numbers(known=known)
    source = training_source(data, seed=0)
    source.peek()
    found = [epoch(source, 0), epoch(source, 1), epoch(training_source(data, seed=0), 2)]
    assert found == orders()[:3]
    assert data.hooks == ["begin", "end"] * 3


def test_an_epoch_left_early_is_not_gone_on_with():
    """Without steps the epoch after one that was stopped begins a new pass."""
    source = training_source(Numbers(), seed=0)
    assert epoch(source, 0, steps=2) == orders()[0][:2]
    assert epoch(source, 1) == orders()[1]


def test_steps_go_on_inside_a_pass():
    """With steps the data goes on inside the pass, in another source too, as it does for generators."""
    data = Numbers(4)
    first = epoch(training_source(data, steps_per_epoch=2, seed=0), 0, 2)
    second = epoch(training_source(data, steps_per_epoch=2, seed=0), 0, 2)
    third = epoch(training_source(data, steps_per_epoch=2, seed=0), 1, 2)
    assert first + second == orders(4)[0]
    assert third == orders(4)[1][:2]


def test_evaluation_begins_anew_and_leaves_the_training_alone():
    """Every evaluation reads from the beginning, and moves nothing of the training's place."""
    data = Numbers(4)
    training = training_source(data, steps_per_epoch=2, seed=0)
    epoch(training, 0, 2)
    evaluation = evaluation_source(data, steps=2)
    assert epoch(evaluation, 0, 2) == orders(4)[1][:2]
    assert epoch(evaluation, 0, 2) == orders(4)[2][:2]
    assert training.consumed == 2
    assert epoch(training, 0, 2) == orders(4)[0][2:]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("taken", [0, 3, 5, 7, 10])
@pytest.mark.parametrize("way", ["consumed", "state"])
def test_a_new_process_reaches_the_place(known, taken, way):
    """Reading what came before gives the rest as it would have been, at and between ends of passes."""
    whole = training_source(Numbers(known=known), seed=0)
    stream = [value for number in range(4) for value in epoch(whole, number)]
    before = training_source(Numbers(known=known), seed=0)
    for number in range(taken // 5):
        epoch(before, number)
    if taken % 5:
        before.begin_pass(taken // 5)
        for _ in range(taken % 5):
            before.next_batch()
    again = training_source(Numbers(known=known), seed=0)
    again.peek()
    again.replay_to(before.consumed) if way == "consumed" else again.set_state(before.get_state())
    rest = epoch(again, taken // 5, resumed=bool(taken % 5)) + epoch(again, taken // 5 + 1)
    assert rest == stream[taken : taken + len(rest)]
    assert len(rest) == 10 - taken % 5


def test_no_more_than_a_few_iterators_stay_open():
    """Data sets left in the middle of a pass are not all kept alive."""
    from keepfit.data import foreign

    data = [Numbers() for _ in range(9)]
    for one in data:
        epoch(training_source(one, steps_per_epoch=2, seed=0), 0, 2)
    assert sum(foreign._PLACES.of(one).iterator is not None for one in data) <= 4


def test_an_empty_data_set_is_refused():
    """A data set without a batch is refused, at the peek and when it is replayed."""
    with pytest.raises(InvalidData, match="Numbers gave no batch"):
        training_source(Numbers(0), seed=0).peek()
    with pytest.raises(InvalidData, match="Numbers gave no batch"):
        training_source(Numbers(0), seed=0).replay_to(3)


@pytest.mark.parametrize(
    "arguments",
    [{"y": np.zeros(1)}, {"sample_weight": np.zeros(1)}, {"class_weight": {0: 1}}, {"batch_size": 4}],
)
def test_what_contradicts_is_refused(arguments):
    """Nothing can be given beside a data set that makes whole batches."""
    with pytest.raises(ValueError, match="Nothing was changed"):
        training_source(Numbers(), seed=0, **arguments)
