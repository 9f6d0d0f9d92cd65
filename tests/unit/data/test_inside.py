"""What a torch loader holds: found, told as plain data, and put back."""

from __future__ import annotations

import functools
import json
import random
from typing import Any

import keras
import numpy as np
import pytest

from keepfit.data import draws, inside

torch = pytest.importorskip("torch")
data = torch.utils.data


class Samples(data.Dataset):
    """Numbers, with all that a data set may hold beside."""

    def __init__(self) -> None:
        generator, other = np.random.default_rng(1), random.Random(2)
        self.old = np.random.RandomState(3)
        self.closes = lambda: generator.random()
        self.partial = functools.partial(other.random)
        self.table = {"deep": [torch.Generator().manual_seed(4)]}
        self.reads, self.scale, self.is_open = 0, 0.1, False
        self.names, self.order = ["a", "b"], np.arange(3)
        self.cache: dict[int, Any] = {}

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return index

    def change(self) -> list[Any]:
        """Change everything; return what was drawn."""
        self.reads, self.scale, self.is_open = self.reads + 1, self.scale / 3, True
        self.names.reverse()
        np.random.default_rng(self.reads).shuffle(self.order)
        drawn = torch.rand(1, generator=self.table["deep"][0])
        return [self.closes(), self.partial(), self.old.normal(), drawn.item()]


def loader(**settings: Any) -> Any:
    """Return a loader."""
    made = data.DataLoader(Samples(), batch_size=1, **settings)
    inside.begin(made)
    return made


def facts(dataset: Samples) -> Any:
    """Return what is to come back."""
    return dataset.reads, dataset.scale, dataset.names, dataset.order.tolist()


def test_what_changed_comes_back_in_another_process():
    """Numbers, lists, arrays and generators, wherever they lie, through JSON; in place, as others may hold them."""
    first, other = loader(), loader()
    first.dataset.change()
    told = json.loads(json.dumps(inside.take(first)))
    order, names = other.dataset.order, other.dataset.names
    inside.restore(other, told)
    assert facts(other.dataset) == facts(first.dataset)
    assert other.dataset.order is order
    assert other.dataset.names is names
    assert other.dataset.change() == first.dataset.change()


def test_what_had_not_changed_yet_goes_back_in_the_same_process():
    """What a state does not tell of is as it was made."""
    made = loader()
    told = inside.take(made)
    before = facts(made.dataset)[:2], list(made.dataset.names), made.dataset.order.tolist()
    drawn = made.dataset.change()
    inside.restore(made, told)
    assert (facts(made.dataset)[:2], made.dataset.names, made.dataset.order.tolist()) == before
    assert made.dataset.change() == drawn


def test_truth_values_stay():
    """What says that a file is open is of the process that opened it."""
    first, other = loader(), loader()
    first.dataset.change()
    inside.restore(other, inside.take(first))
    assert first.dataset.is_open
    assert not other.dataset.is_open


def test_nothing_is_told_of_what_does_not_change():
    """A stock loader costs a checkpoint nothing."""
    made = data.DataLoader(data.TensorDataset(torch.arange(3)), shuffle=True)
    inside.begin(made)
    list(made)
    assert inside.take(made) == {}


@pytest.mark.parametrize(
    ("settings", "seeks", "hidden"),
    [
        ({}, True, False),
        ({"num_workers": 1}, False, False),
        ({"num_workers": 1}, True, True),
        ({"num_workers": 1, "persistent_workers": True}, False, True),
    ],
)
def test_workers_hide_what_they_hold(settings: dict[str, Any], seeks: bool, hidden: bool):
    """Those that outlive a pass, and those in whose midst a loader goes on, unless the data set draws nothing."""
    assert inside.is_hidden(loader(**settings), seeks=seeks) is hidden
    stock = data.DataLoader(data.Subset(data.TensorDataset(torch.arange(3)), [0, 2]), **settings)
    assert not inside.is_hidden(stock, seeks=seeks)


def test_iterators_hide_where_they_stand():
    """A data set that reads on from an iterator cannot be brought back."""
    made = loader()
    made.dataset.rows = iter([1, 2])
    assert inside.is_hidden(made, seeks=False)


def test_models_are_not_looked_into():
    """What layers hold is the run's to keep."""
    dropout = keras.layers.Dropout(0.1)
    made = loader()
    made.dataset.features = dropout
    assert not [path for path, _ in draws.parts_of(made.dataset) if path.startswith("features.")]


GLOBAL = np.random.default_rng(5)


def test_generators_that_methods_use_are_found():
    """Those of the function around a class, and those of the module."""
    around = np.random.default_rng(6)

    class Uses:
        def draw(self) -> float:
            return float(GLOBAL.random() + around.random())

    assert set(map(id, draws.generators_of(Uses()).values())) == {id(GLOBAL), id(around)}


def test_parts_are_looked_at_within_bounds():
    """Each once, also where they hold one another, and no more than so many."""
    one, other = Samples(), Samples()
    one.other, other.other = other, one
    paths = [path for path, _ in draws.parts_of(one)]
    assert len(paths) == len(set(paths))
    one.many = {number: Samples() for number in range(60)}
    assert len(list(draws.parts_of(one))) < 600
