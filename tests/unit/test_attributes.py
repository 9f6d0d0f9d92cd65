from __future__ import annotations

import collections
import dataclasses
import enum
import json
from math import nan

import keras
import numpy as np
import pytest

from keepfit.attributes import Attributes


class Mode(enum.Enum):
    WHOLE = 1
    HALF = 2


@dataclasses.dataclass(frozen=True)
class Frozen:
    alpha: float = 1.0


class Node:
    """One of a chain."""

    def __init__(self, after=None):
        self.after = after
        self.value = 0.0


class Box:
    """An object of the script's; Keras puts no dicts of its own into it."""

    def __init__(self):
        self.counts = collections.Counter(a=1)
        self.recent = collections.deque([1.0], maxlen=3)
        self.seen = {1, 2}
        self.pair = (1, 2.0)


class Holding(keras.Model):
    """A model with what scripts put into attributes."""

    def __init__(self):
        super().__init__()
        self.out = keras.layers.Dense(1)
        self.frozen = Frozen()
        self.mode = None
        self.box = Box()
        self.table = {"rates": {"first": 1.0}}
        self.losses_seen = [0.5] * 63
        self.alpha = 1.0
        self.words = [f"word {number}" for number in range(5000)]
        self.kept = np.zeros(3)
        self.inside = []
        self.inside.append({"inside": self.inside})
        self.chain = None
        for _ in range(3000):
            self.chain = Node(self.chain)


def change(model):
    """Change them as callbacks do."""
    model.frozen = dataclasses.replace(model.frozen, alpha=2.5)
    model.mode = Mode.HALF
    model.box.counts["b"] += 3
    model.box.recent.extend([2.0, 3.0, 4.0])
    model.box.seen.add(7)
    model.box.pair = (3, np.float32(0.1))
    model.table["rates"]["first"] = nan
    model.losses_seen += [0.25, 1 / 3]
    model.alpha = np.float16(0.5)
    model.chain.after.after.value = 7.0


NAMES = ("frozen", "mode", "table", "losses_seen", "alpha")
IN_THE_BOX = ("counts", "recent", "seen", "pair")


@pytest.fixture
def changed():
    """Return the state after a fit that changed attributes, as a file has it, and the model."""
    model = Holding()
    attributes = Attributes(model)
    attributes.begin(everything=True)
    assert attributes.state() == {}
    change(model)
    return json.loads(json.dumps(attributes.state())), model


def test_attributes_come_back_as_they_were_in_another_process(changed):
    """Frozen dataclasses, members of enums, counters, long lists, deques and NumPy's scalars among them."""
    state, model = changed
    other = Holding()
    Attributes(other).put_back(state)
    pairs = [(other, model, name) for name in NAMES] + [(other.box, model.box, name) for name in IN_THE_BOX]
    for here, there, name in pairs:
        assert repr(getattr(here, name)) == repr(getattr(there, name)), name
        assert type(getattr(here, name)) is type(getattr(there, name)), name
    assert other.chain.after.after.value == 7.0
    assert other.box.recent.maxlen == 3


def test_attributes_hold_what_was_changed_alone(changed):
    """What a fit leaves as the script made it is the script's."""
    state, _ = changed
    assert sorted(name.rpartition(".")[2] for name in state) == sorted([*NAMES[1:], *IN_THE_BOX, "alpha", "value"])


def test_attributes_are_seen_wherever_they_change():
    """In a container, amid a fit and after it; what is changed back is still state."""
    model = Holding()
    attributes = Attributes(model)
    attributes.begin(everything=True)
    model.table["rates"]["second"] = 1.0
    assert "table" in "".join(attributes.state())
    del model.table["rates"]["second"]
    model.words[3] = "another"
    assert [name.rpartition(".")[2] for name in attributes.state()] == ["table", "words"]


def test_attributes_that_are_not_there_any_more_are_left():
    """A model whose code has changed takes what it has, and a class of members that is gone leaves what is there."""
    model = Holding()
    where = "0:Holding"
    state = {f"{where}.gone/inner.value": 1, f"{where}.mode": {"member": ["no.such.module", "Mode", "HALF"]}}
    Attributes(model).put_back(state)
    assert model.mode is None


def test_arrays_that_a_layer_holds_are_no_parts():
    """Normalisation keeps arrays of the backend, on JAX objects of C code, whose constructor has no signature."""
    layer = keras.layers.Normalization()
    layer.adapt(np.arange(12.0, dtype="float32").reshape(6, 2))
    model = keras.Sequential([keras.Input((2,)), layer, keras.layers.Dense(1)])
    found = Attributes(model)
    found.begin(everything=False)
    assert found.state() == {}
