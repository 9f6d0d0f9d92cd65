"""PyDataset: our order, its hooks once per epoch, no item made in vain."""

import gc
import threading
import warnings

import keras
import numpy as np
import pytest

from keepfit.data import evaluation_source, training_source
from keepfit.errors import InvalidArgument, InvalidData


class Numbers(keras.utils.PyDataset):
    """Batches that tell their index; notes what is called."""

    def __init__(self, count=6, **settings):
        super().__init__(**settings)
        self.count = count
        self.calls = []

    @property
    def num_batches(self):
        return self.count

    def __getitem__(self, index):
        self.calls.append(index)
        return np.full((2, 1), index, "float32"), np.full((2,), index % 2)


class Hooked(Numbers):
    """Changes its batches with every epoch, by randomness of its own."""

    def __init__(self, count=6, **settings):
        super().__init__(count, **settings)
        self.random = np.random.default_rng(5)
        self.shift = 0

    def __getitem__(self, index):
        return np.full((2, 1), index + self.shift), np.zeros(2)

    def on_epoch_begin(self):
        self.calls.append("begin")

    def on_epoch_end(self):
        self.calls.append("end")
        self.shift = int(self.random.integers(10**6))


class Remembering(Hooked):
    """Has a state of its own."""

    def get_state(self):
        return {"shift": self.shift}

    def set_state(self, state):
        self.shift = state["shift"]


class Plain(Numbers):
    """Gives whatever it was told to."""

    def __init__(self, item):
        super().__init__(2)
        self.item = item

    def __getitem__(self, index):
        return self.item


class Failing(Numbers):
    """Fails once at one batch."""

    failures = 1

    def __getitem__(self, index):
        if index == 2 and self.failures:
            self.failures -= 1
            raise OSError("disk hiccup")
        return super().__getitem__(index)


def value(batch):
    return int(batch[0][0, 0])


def one_pass(source, number=0, start=0):
    source.begin_pass(number)
    values = [value(source.batch(number, index)) for index in range(start, source.num_batches)]
    source.end_pass()
    return values


@pytest.mark.parametrize("workers", [1, 3])
def test_shuffled_passes_hold_every_batch_once(workers):
    """A pass gives every batch once, in the same order whether or not workers make them."""
    orders = [one_pass(training_source(Numbers(20, workers=workers), seed=4), number) for number in range(3)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert orders == [one_pass(training_source(Numbers(20), seed=4), number) for number in range(3)]


def test_unshuffled_batches_come_in_order():
    """Without shuffling, and in evaluation, batches come by their index."""
    assert one_pass(training_source(Numbers(), shuffle=False, seed=1)) == list(range(6))
    assert one_pass(evaluation_source(Numbers())) == list(range(6))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("start", [0, 1, 5])
def test_a_pass_can_begin_anywhere(workers, start):
    """Beginning inside a pass gives what the whole pass has from there."""
    whole = one_pass(training_source(Numbers(workers=workers), seed=2), 1)
    assert one_pass(training_source(Numbers(workers=workers), seed=2), 1, start=start) == whole[start:]


def test_no_item_is_made_in_vain():
    """Every item is made once, plus at most one for the peek, also with workers and epochs shorter than a pass."""
    dataset = Numbers(6, workers=2, max_queue_size=4)
    source = training_source(dataset, steps_per_epoch=2, shuffle=False, seed=0)
    source.peek()
    source.peek()
    assert dataset.calls == [0]
    values = []
    for epoch in range(3):
        source.begin_pass(0)
        values += [value(source.batch(0, epoch * 2 + step)) for step in range(2)]
        source.end_pass()
    assert values == list(range(6))
    assert sorted(dataset.calls) == [0, *range(6)]


@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_processes_make_the_same_batches():
    """Worker processes give the batches that the process itself would make."""
    assert one_pass(training_source(Hooked(workers=2, use_multiprocessing=True), seed=3)) == one_pass(
        training_source(Hooked(), seed=3)
    )


def test_no_thread_outlives_its_epoch():
    """Workers are gone when the epoch ends."""
    before = threading.active_count()
    one_pass(training_source(Numbers(workers=3), seed=0))
    gc.collect()
    assert threading.active_count() <= before  # those of an earlier test may end meanwhile


def test_hooks_are_called_once_per_epoch():
    """``on_epoch_begin`` and ``on_epoch_end`` are called once per epoch, with a peek or without."""
    dataset = Hooked()
    source = training_source(dataset, seed=0)
    source.peek()
    for number in range(2):
        source.begin_pass(number)
        source.end_pass()
    assert dataset.calls == ["begin", "end", "begin", "end"]


def test_a_resumed_epoch_is_not_begun_twice():
    """Going on inside an epoch in the same process calls no hook; in a new process the epoch is begun there."""
    dataset = Hooked()
    training_source(dataset, seed=0).begin_pass(0)
    training_source(dataset, seed=0).begin_pass(0, resumed=True)
    assert dataset.calls == ["begin"]
    fresh = Hooked()
    training_source(fresh, seed=0).begin_pass(0, resumed=True)
    assert fresh.calls == ["begin"]


def test_an_epoch_that_was_left_is_ended_first():
    """After an epoch that an exception left open, the next one begins with the hooks in order."""
    dataset = Hooked()
    source = training_source(dataset, seed=0)
    source.begin_pass(0)
    source.begin_pass(1)
    assert dataset.calls == ["begin", "end", "begin"]


def test_hooks_of_evaluation_do_not_count_as_training():
    """Validation calls the hooks too, but leaves the epochs that a resume replays."""
    dataset = Hooked()
    source = training_source(dataset, seed=0)
    one_pass(source)
    one_pass(evaluation_source(dataset))
    assert source.get_state()["epochs"] == 1


def test_own_state_is_used():
    """A data set with ``get_state`` and ``set_state`` is brought back by these alone."""
    source = training_source(Remembering(), seed=0)
    one_pass(source)
    fresh = Remembering()
    again = training_source(fresh, seed=0)
    assert again.exactness == "exact"
    again.set_state(source.get_state())
    assert fresh.calls == []
    assert one_pass(again, 1) == one_pass(source, 1)


def test_a_data_set_that_is_further_on_warns():
    """Hooks cannot be taken back: that is said."""
    source = training_source(Hooked(), seed=0)
    one_pass(source)
    with pytest.warns(UserWarning, match="cannot go back to 0"):
        source.set_state({"epochs": 0})


def test_exactness_says_whether_hooks_matter():
    """Without hooks of its own a data set is sought; with them it is replayed."""
    assert training_source(Numbers(), seed=0).exactness == "exact"
    assert training_source(Numbers(), seed=0).get_state() is None
    assert training_source(Hooked(), seed=0).exactness == "replay"


def test_endless_data_sets_count_on():
    """A data set without a length has no order and no end."""
    source = training_source(Numbers(None), steps_per_epoch=3, seed=0)
    assert source.num_batches is None
    source.begin_pass(0)
    assert [value(source.batch(0, index)) for index in (0, 1, 500)] == [0, 1, 500]


def test_a_length_may_change_between_epochs():
    """The length is read anew for every epoch."""
    dataset = Numbers(4)
    source = training_source(dataset, seed=0)
    assert len(one_pass(source)) == 4
    dataset.count = 7
    assert sorted(one_pass(source, 1)) == list(range(7))


@pytest.mark.parametrize("workers", [1, 2])
def test_training_can_go_on_after_an_error(workers):
    """An error while making a batch is the user's own, and the same batch can be asked for again."""
    source = training_source(Failing(6, workers=workers), shuffle=False, seed=0)
    source.begin_pass(0)
    assert [value(source.batch(0, index)) for index in range(2)] == [0, 1]
    with pytest.raises(OSError, match="hiccup"):
        source.batch(0, 2)
    assert [value(source.batch(0, index)) for index in range(2, 6)] == [2, 3, 4, 5]
    source.end_pass()


@pytest.mark.parametrize(
    ("item", "structure"),
    [
        (np.zeros((2, 1)), (np.zeros((2, 1)),)),
        ([np.zeros((2, 1)), np.ones(2)], (np.zeros((2, 1)), np.ones(2))),
        ({"a": np.zeros(2)}, {"a": np.zeros(2)}),
        ((np.zeros(2), None), (np.zeros(2), None)),
    ],
)
def test_items_have_the_structure_that_keras_gives(item, structure):
    """Arrays, lists and dicts become what Keras makes of them."""
    batch = training_source(Plain(item), seed=0).peek()
    keras.tree.assert_same_structure(batch, structure)


def test_class_weights_become_sample_weights():
    """Class weights give each batch its sample weights, and contradict ones that are there."""
    source = training_source(Numbers(), class_weight={1: 3.0}, shuffle=False, seed=0)
    assert source.batch(0, 1)[2].tolist() == [3.0, 3.0]
    weighted = Plain((np.zeros(2), np.zeros(2), np.zeros(2)))
    with pytest.raises(InvalidData, match="class_weight"):
        training_source(weighted, class_weight={1: 3.0}, seed=0).peek()


@pytest.mark.parametrize("item", ["text", (1, 2, 3, 4), (np.array(["a"]), np.zeros(1)), (np.float32(1), np.zeros(1))])
def test_bad_items_are_named(item):
    """Items that are no batch are refused at the peek."""
    if keras.backend.backend() == "tensorflow" and isinstance(item[0], np.ndarray):
        pytest.skip("TensorFlow has tensors of text")
    with pytest.raises(InvalidData, match="PyDataset"):
        training_source(Plain(item), seed=0).peek()


def test_what_contradicts_is_refused():
    """Targets, weights or a batch size beside a PyDataset, and an empty one, are refused."""
    for arguments in ({"y": np.zeros(1)}, {"sample_weight": np.zeros(1)}):
        with pytest.raises(InvalidData, match="PyDataset"):
            training_source(Numbers(), seed=0, **arguments)
        with pytest.raises(InvalidData, match="PyDataset"):
            evaluation_source(Numbers(), **arguments)
    with pytest.raises(InvalidArgument, match="batch_size=8"):
        training_source(Numbers(), batch_size=8, seed=0)
    with pytest.raises(InvalidData, match="no batches"):
        training_source(Numbers(0), seed=0)


def test_evaluation_ignores_the_batch_size_of_training():
    """A batch size handed on from the training data does not concern a PyDataset."""
    assert evaluation_source(Numbers(), batch_size=8).num_batches == 6


def test_a_data_set_without_super_is_taken():
    """A class that forgot ``super().__init__`` is warned about by Keras and taken."""

    class Forgetful(Numbers):
        def __init__(self):
            self.count, self.calls = 3, []

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert sorted(one_pass(training_source(Forgetful(), seed=0))) == [0, 1, 2]
