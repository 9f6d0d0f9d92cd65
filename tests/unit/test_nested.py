"""Structures taken apart as Keras does it."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import keras
import numpy as np
import pytest

from keepfit import nested

Pair = namedtuple("Pair", ["first", "second"])
LEAF = np.ones(2)

STRUCTURES = [
    LEAF,
    None,
    (),
    (LEAF, None),
    [LEAF, (1, "two")],
    {"b": LEAF, "a": [1, None]},
    pytest.param(
        {"b": {"d": 1, "c": 2}, "a": ()},
        marks=pytest.mark.skipif(
            keras.backend.backend() == "torch", reason="there Keras sorts the keys of the outermost dict only"
        ),
    ),
    Pair(LEAF, {"b": 1, "a": 2}),
    (OrderedDict([("z", 1), ("y", LEAF)]), [Pair(3, 4)]),
]


@pytest.mark.parametrize("structure", STRUCTURES, ids=repr)
def test_structures_are_those_of_keras(structure: Any) -> None:
    """Leaves, paths, mapping and packing are what ``keras.tree`` gives."""
    leaves = keras.tree.flatten(structure)
    assert all(one is other for one, other in zip(nested.flatten(structure), leaves, strict=True))
    expected = [tuple(path) for path, _ in keras.tree.flatten_with_path(structure)]
    assert [tuple(path) for path, _ in nested.flatten_with_path(structure)] == expected
    mapped = nested.map_structure(lambda leaf: (str(leaf),), structure)
    keras_mapped = keras.tree.map_structure(lambda leaf: (str(leaf),), structure)
    assert mapped == keras_mapped
    assert type(mapped) is type(keras_mapped)
    assert nested.map_structure(str, structure, none_is_leaf=False) == keras.tree.map_structure(
        str, structure, none_is_leaf=False
    )
    numbers = list(range(len(leaves)))
    assert nested.pack_sequence_as(structure, numbers) == keras.tree.pack_sequence_as(structure, numbers)


def test_other_kinds_of_keys_are_left_to_keras() -> None:
    """Keys that have no order raise or are taken as Keras does."""
    structure = {1: "one", "a": "two"}
    try:
        expected = keras.tree.flatten(structure)
    except TypeError:
        with pytest.raises(TypeError):
            nested.flatten(structure)
    else:
        assert nested.flatten(structure) == expected
