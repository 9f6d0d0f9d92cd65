"""Random generators that a data object holds: their states are part of where a run stands in it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np

_KINDS = (np.random.Generator, np.random.RandomState, random.Random)


def generators_of(data: Any) -> dict[str, Any]:
    """Return the generators among an object's attributes, by name."""
    return {name: value for name, value in vars(data).items() if isinstance(value, _KINDS)}


def take(generators: Mapping[str, Any]) -> dict[str, Any]:
    """Return the states of generators as JSON."""
    return {name: _told(_state(generator)) for name, generator in generators.items()}


def restore(generators: Mapping[str, Any], states: Mapping[str, Any]) -> None:
    """Give generators the states that `take` gave; those it does not tell of stay as they are."""
    for name, told in states.items():
        generator, state = generators.get(name), _read(told)
        if isinstance(generator, np.random.Generator):
            generator.bit_generator.state = state
        elif isinstance(generator, np.random.RandomState):
            generator.set_state(state)
        elif isinstance(generator, random.Random):
            generator.setstate((state["version"], tuple(state["words"].tolist()), state["following"]))


def _state(generator: Any) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    version, words, following = generator.getstate()
    return {"version": version, "words": np.array(words, np.uint64), "following": following}


def _told(state: Any) -> Any:
    if isinstance(state, Mapping):
        return {key: _told(value) for key, value in state.items()}
    return {"array": state.tobytes().hex(), "dtype": state.dtype.str} if isinstance(state, np.ndarray) else state


def _read(told: Any) -> Any:
    if not isinstance(told, Mapping):
        return told
    if "array" in told:
        return np.frombuffer(bytes.fromhex(told["array"]), told["dtype"]).copy()
    return {key: _read(value) for key, value in told.items()}
