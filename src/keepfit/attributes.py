"""What lies in plain attributes of a model and is changed during a fit: state that no variable holds.

A callback may anneal ``dropout.rate`` or ``model.alpha`` when an epoch begins.
A process that resumes amid that epoch does not begin it again, so that what
the attributes were must come from the checkpoint.
"""

from __future__ import annotations

import copy
import functools
import sys
from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import Any

import keras
import numpy as np

from keepfit import _keras
from keepfit.callbacks.plain import NotPlain, decode, encode
from keepfit.engine.program import own_settings

_LIBRARIES = ("keras", "keepfit", "torch", "tensorflow", "jax", "jaxlib", "numpy", "builtins")
_WITH_SETTINGS = (keras.Regularizer, keras.constraints.Constraint, keras.losses.Loss)
# More items than a setting has; to write them down would take longer than the fit.
_MOST_ITEMS = 100_000
_MOST_DEPTH = 12


class Attributes:
    """The plain attributes of a model that fits have changed.

    Args:
        model: A Keras model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._before: dict[str, Any] = {}
        self._changed: set[str] = set()
        self._everything = False
        self._of_itself: tuple[Any, bool] = (None, False)
        # To list what there is takes much longer than to see that it is as it was.
        self._listed: _Listed | None = None

    def may_change(self, variables: Any) -> bool:
        """Return whether a class of the user's is in the model, whose steps may change its attributes.

        Args:
            variables: Those of the model, which are listed anew where layers come or go.
        """
        if self._of_itself[0] is not variables:
            self._listed = None
            self._of_itself = variables, any(_is_own(type(layer)) for layer in _keras.all_layers(self._model))
        return self._of_itself[1]

    def begin(self, *, everything: bool) -> None:
        """Note what the attributes are before a fit's first hook.

        Args:
            everything: Whether steps read any attribute as it is, rather than those settings alone that an engine
                looks at.
        """
        if everything is not self._everything:
            self._everything, self._listed = everything, None
        self._before = self._now()

    def state(self) -> dict[str, Any]:
        """Return the attributes that differ from what they were before a fit, as plain data."""
        now = self._now()
        if now is not self._before:
            differing = (name for name, value in now.items() if repr(self._before.get(name, self)) != repr(value))
            self._changed.update(differing)
        return {name: now[name] for name in sorted(self._changed & now.keys())}

    def put_back(self, state: dict[str, Any]) -> None:
        """Let the attributes be what `state` gave; of one that is not there any more nothing is done."""
        self._changed.update(state)
        for label, part in _parts(self._model):
            for name in [name for name in state if name.rpartition(".")[0] == label]:
                attribute, value = name.rpartition(".")[2], state[name]
                now = vars(part).get(attribute)
                if repr(_encoded(now)) != repr(value):
                    _set(part, attribute, _decoded(value, now))

    def _now(self) -> dict[str, Any]:
        """Return the attributes as plain data: the same object as long as nothing has changed."""
        if self._listed is None or not self._listed.is_so():
            self._listed = _Listed(self._model, everything=self._everything)
        return self._listed.encoded


class _Listed:
    """The attributes of a model as they are at one moment."""

    def __init__(self, model: Any, *, everything: bool) -> None:
        self.encoded: dict[str, Any] = {}
        self._owners: list[dict[str, Any]] = []
        self._values: list[tuple[dict[str, Any], str, Any]] = []
        # With copies, since what lies in them may change.
        self._containers: list[tuple[Any, Any]] = []
        for label, part in _parts(model):
            attributes = vars(part)
            self._owners.append(attributes)
            for name in _names(part, everything=everything):
                value = attributes.get(name)
                self._values.append((attributes, name, value))
                encoded = _encoded(value)
                if encoded is not _NOTHING:
                    self.encoded[f"{label}.{name}"] = encoded
                    if isinstance(value, _CONTAINERS):
                        self._containers.append((value, copy.deepcopy(_untracked(value))))
        self._size = sum(map(len, self._owners))

    def is_so(self) -> bool:
        """Return whether they are the same now; where that cannot be told without listing them, False."""
        if sum(map(len, self._owners)) != self._size:
            return False
        if not all(attributes.get(name) is value for attributes, name, value in self._values):
            return False
        try:
            return all(bool(value == before) for value, before in self._containers)
        except (TypeError, ValueError):  # arrays do not compare to one truth
            return False


_NOTHING = object()
_ATOMS = (bool, int, str, type(None))
_CONTAINERS = (list, dict, deque, set)


def _encoded(value: Any) -> Any:
    """Return plain data as JSON; what is none of it, and an array, as `_NOTHING`."""
    if type(value) in _ATOMS:
        return value
    if isinstance(value, Enum):
        kind = type(value)
        return {"member": [kind.__module__, kind.__qualname__, value.name]}
    if isinstance(value, np.ndarray) or keras.ops.is_tensor(value):
        return _NOTHING
    arrays: dict[str, Any] = {}

    def keep(path: str, array: Any) -> None:
        arrays[path] = [array.dtype.str, list(array.shape), array.tobytes().hex()]

    try:
        plain = encode(_untracked(value), "", keep)
    except NotPlain:
        return _NOTHING
    return {"plain": plain, "arrays": arrays} if arrays else plain


def _decoded(value: Any, now: Any) -> Any:
    """Return what `_encoded` was given; ``now`` where it was a member of a class that is not there any more."""
    if isinstance(value, dict) and "member" in value:
        module, path, name = value["member"]
        kind: Any = type(now)
        if (kind.__module__, kind.__qualname__) != (module, path):
            kind = sys.modules.get(module)
            for part in path.split("."):
                kind = getattr(kind, part, None)
        return getattr(kind, "__members__", {}).get(name, now)
    if not isinstance(value, dict) or "plain" not in value:
        return decode(value, _no_array)

    def read(path: str) -> Any:
        dtype, shape, data = value["arrays"][path]
        return np.frombuffer(bytes.fromhex(data), np.dtype(dtype)).reshape(shape).copy()

    return decode(value["plain"], read)


def _no_array(path: str) -> Any:
    raise KeyError(path)


def _set(part: Any, name: str, value: Any) -> None:
    try:
        setattr(part, name, value)
    except (AttributeError, TypeError):  # frozen, as dataclasses may be
        vars(part)[name] = value


def _untracked(value: Any) -> Any:
    """Return Python's lists and dicts where a backend or Keras has put its own into a layer."""
    left = _MOST_ITEMS

    def plain(value: Any, depth: int) -> Any:
        nonlocal left
        kind = type(value)
        if kind in _ATOMS or kind is float:
            return value
        left -= len(value) if isinstance(value, (*_CONTAINERS, tuple)) else 1
        if left < 0 or depth > _MOST_DEPTH or keras.ops.is_tensor(value):
            raise NotPlain("more than a setting")
        if isinstance(value, list) and (kind is list or not _is_own(kind)):
            return [plain(item, depth + 1) for item in value]
        if isinstance(value, dict) and (kind is dict or not _is_own(kind)):
            return {name: plain(item, depth + 1) for name, item in value.items()}
        if isinstance(value, (tuple, deque, set)):
            for item in value:
                plain(item, depth + 1)
        return value

    return plain(value, 0)


def _names(part: Any, *, everything: bool) -> list[str]:
    if everything and _is_own(type(part)):
        return [name for name in vars(part) if name not in _passing()]
    return own_settings(part)


def _parts(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield what may hold such attributes, each under a name that is the same in every process."""
    seen: set[int] = set()
    for index, layer in enumerate(_keras.all_layers(model)):
        yield from _with_inner(f"{index}:{type(layer).__name__}", layer, seen)
    if isinstance(model.loss, keras.losses.Loss):
        yield from _with_inner("loss", model.loss, seen)


def _with_inner(label: str, part: Any, seen: set[int]) -> Iterator[tuple[str, Any]]:
    waiting = [(label, part)]
    while waiting:
        label, part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield label, part
        waiting += [
            (f"{label}/{name}", value)
            for name, value in reversed(vars(part).items())
            if isinstance(value, _WITH_SETTINGS) or (_is_holder(value) and name not in _passing())
        ]


@functools.cache
def _passing() -> frozenset[str]:
    """Return the names of what Keras and keepfit keep in a model of the user's class."""
    return frozenset(
        {*vars(keras.layers.Layer(name="keepfit")), *vars(keras.Model(name="keepfit"))}
        | {"training", "history", "run", "fit", "evaluate", "predict", "train_on_batch", "test_on_batch"}
        | {"predict_on_batch", "loss", "optimizer", "steps_per_execution", "run_eagerly", "jit_compile", "compiled"}
        | {"train_function", "test_function", "predict_function", "stop_training"}
    )


def _is_holder(value: Any) -> bool:
    """Return whether a value is an object of the user's that keeps attributes, and no part of Keras."""
    if not hasattr(value, "__dict__") or isinstance(value, (type, Enum)) or callable(value):
        return False
    return _is_own(type(value)) and not isinstance(value, keras.Variable)


def _is_own(kind: type) -> bool:
    return kind.__module__.partition(".")[0] not in _LIBRARIES
