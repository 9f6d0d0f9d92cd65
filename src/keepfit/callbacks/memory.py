"""The memory of one callback: taken from one object, given back to it or to another."""

from __future__ import annotations

import functools
import logging
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Literal

import keras
import numpy as np

from keepfit import _keras
from keepfit.callbacks import files
from keepfit.callbacks.attributes import attributes_of, put_attribute
from keepfit.callbacks.origin import OUTPUTS, class_name, is_stock, large_hash, origin_of, settings_of
from keepfit.callbacks.plain import Array, NotPlain, decode, encode
from keepfit.callbacks.stock import BEST, knowledge_of
from keepfit.errors import InvalidArgument

Mode = Literal["all", "best", "none"]

# Code and places, which training does not change: nothing is lost when they are not saved.
_CODE = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, functools.partial, type)
_STATELESS = (*_CODE, logging.Logger, PurePath)


@dataclass(frozen=True)
class Memory:
    """What one callback remembers.

    Args:
        key: Which callback it is; see `callback_keys`.
        class_name: Its class.
        how: ``"state"`` for what ``get_state`` gave, ``"attributes"`` otherwise.
        plain: Attribute -> JSON, as `encode` makes it; for ``"state"`` all under the name ``state``.
        tensors: Name -> array, named like ``best_weights/0``; nobody may change them.
        file: Where the callback's file ended, if it has one that goes on.
        of_run: The attributes that go on whatever the task is.
        unsaved: Attributes that could not be saved, with what they hold.
    """

    key: str
    class_name: str
    how: str = "attributes"
    plain: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Array] = field(default_factory=dict)
    file: Mapping[str, Any] | None = None
    of_run: Sequence[str] = ()
    unsaved: Sequence[str] = ()

    def __bool__(self) -> bool:
        """Return whether there is anything to remember."""
        return bool(self.plain or self.file or self.unsaved)

    def without_task(self) -> Memory:
        """Return what of it goes on whatever the task is."""
        if self.how == "state":
            return self
        plain = {name: value for name, value in self.plain.items() if name in self.of_run}
        tensors = {name: array for name, array in self.tensors.items() if name.split("/")[0] in plain}
        return Memory(self.key, self.class_name, self.how, plain, tensors, self.file, self.of_run)


def take(callback: Any, key: str = "", *, known: Mapping[str, Array] | None = None) -> Memory:
    """Return what a callback remembers now.

    ``get_state`` of a callback that also has ``set_state`` is all that is used.
    Of others it is the attributes that are plain data, arrays or generators. An attribute
    that still is as the script gave it, a text or a large array, is noted
    rather than saved: output folders may move, and validation data is no memory.

    Args:
        callback: The callback.
        key: Its key.
        known: Arrays taken before, by name: equal ones are used again rather than copied.

    Raises:
        InvalidArgument: ``get_state`` gave something that cannot be saved.
    """
    tensors: dict[str, Array] = {}
    # Keras replaces its callbacks' arrays and never writes into them, so that they need no copy.
    keep = tensors.__setitem__ if is_stock(callback) else functools.partial(_keep_copy, tensors, known or {})
    if has_state(callback):
        plain = {"state": _state(callback, keep)}
        return Memory(key, class_name(callback), "state", plain, tensors)
    plain, unsaved = _attributes(callback, keep, tensors)
    of_run = sorted(knowledge_of(callback).of_run & set(plain))
    return Memory(key, class_name(callback), "attributes", plain, tensors, files.end_of(callback), of_run, unsaved)


def restore(callback: Any, memory: Memory, *, mode: Mode = "all", drop_best_weights: bool = False) -> list[str]:
    """Give a callback its memory back; after ``on_train_begin``, which resets Keras's own.

    Args:
        callback: The callback.
        memory: What `take` returned, perhaps from another object.
        mode: ``"all"``; ``"best"`` keeps best values and what goes on whatever the task is; ``"none"`` only that.
        drop_best_weights: Leave best weights out: they belong to other data.

    Returns:
        What a user should know, a sentence each.
    """
    name = type(callback).__name__
    if has_state(callback) != (memory.how == "state"):
        return [
            f"{name} offers get_state and set_state now and did not before, or the reverse: it starts without memory."
        ]
    if memory.how == "state":
        callback.set_state(decode(memory.plain["state"], functools.partial(_read_copy, memory.tensors)))
        return []
    said: list[str] = []
    read = functools.partial(_read_shared if is_stock(callback) else _read_copy, memory.tensors)
    for attribute, encoded in memory.plain.items():
        if not _goes_on(memory, attribute, mode) or (attribute == "best_weights" and drop_best_weights):
            continue
        if isinstance(encoded, dict) and "given" in encoded:
            said += _as_given(callback, attribute, encoded["given"])
            continue
        if isinstance(encoded, dict) and "seed" in encoded:
            _put_seed(callback, attribute, read(encoded["seed"]))
            continue
        value = decode(encoded, read)
        if attribute == "best_weights" and not _fits(callback, value):
            said.append(f"{name}: its best weights do not fit the model any more and were left out.")
            continue
        put_attribute(callback, attribute, value)
    return said


def settings_since(callback: Any, left: Memory) -> dict[str, Any]:
    """Return the settings of a callback that differ from what was taken of it: its script set them by hand.

    Args:
        callback: The callback; Keras's own have no settings in their memory.
        left: What was taken of it last.
    """
    if is_stock(callback) or left.how == "state":
        return {}
    now = take(callback, left.key, known=left.tensors)
    changed = {}
    for name in settings_of(callback) & set(left.plain) & set(now.plain):
        names = {tensor for tensor in now.tensors if tensor.split("/")[0] == name}
        if now.plain[name] != left.plain[name] or any(now.tensors[n] is not left.tensors.get(n) for n in names):
            changed[name] = attributes_of(callback)[name]
    return changed


def has_state(callback: Any) -> bool:
    """Return whether a callback says itself what it remembers."""
    return callable(getattr(callback, "get_state", None)) and callable(getattr(callback, "set_state", None))


def _state(callback: Any, keep: Any) -> Any:
    try:
        return encode(callback.get_state(), "state", keep)
    except NotPlain as error:
        raise InvalidArgument(
            f"{type(callback).__name__}.get_state() returned something that cannot be saved: {error}. "
            "Return None, numbers, texts, arrays, and lists, tuples, sets and dicts of those."
        ) from None


def _attributes(callback: Any, keep: Any, tensors: dict[str, Array]) -> tuple[dict[str, Any], list[str]]:
    stock = is_stock(callback)
    settings = settings_of(callback)
    skipped = knowledge_of(callback).not_memory | ((settings - BEST) if stock else (settings & OUTPUTS))
    origin = origin_of(callback)
    plain: dict[str, Any] = {}
    unsaved: list[str] = []
    for name, value in attributes_of(callback).items():
        if name in skipped:
            continue
        if name in origin.texts and value == origin.texts[name] and type(value) is type(origin.texts[name]):
            plain[name] = {"given": None}
        elif name in origin.large and large_hash(value) == origin.large[name]:
            plain[name] = {"given": origin.large[name]}
        elif isinstance(value, keras.random.SeedGenerator):
            if not _is_elsewhere(callback, value):
                plain[name] = {"seed": name}
                keep(name, np.array(keras.ops.convert_to_numpy(value.state)))
        else:
            before = set(tensors)
            try:
                plain[name] = encode(value, name, keep)
            except NotPlain as error:
                for half in set(tensors) - before:
                    del tensors[half]
                if not stock and not _is_elsewhere(callback, value):
                    unsaved.append(f"{name} ({error})")
    return plain, unsaved


def _is_elsewhere(callback: Any, value: Any) -> bool:
    """Return whether a value is code, or a part of the model, whose state the run keeps."""
    if isinstance(value, _STATELESS):
        return True
    model = getattr(callback, "model", None)
    if model is None:
        return False
    if value is getattr(model, "optimizer", None):
        return True
    layers = _keras.all_layers(model)
    if isinstance(value, keras.random.SeedGenerator):
        return any(value is seed for layer in layers for seed in _keras.layer_parts(layer)[1])
    return any(value is layer for layer in layers)


def _keep_copy(tensors: dict[str, Array], known: Mapping[str, Array], name: str, array: Array) -> None:
    # A copy: what the callback does to its array afterwards must not reach what was taken. An equal one from
    # before saves holding it twice.
    before = known.get(name)
    tensors[name] = before if before is not None and _same_bits(before, array) else np.array(array)


def _goes_on(memory: Memory, attribute: str, mode: Mode) -> bool:
    return mode == "all" or attribute in memory.of_run or (mode == "best" and attribute in BEST)


def _as_given(callback: Any, attribute: str, recorded: str | None) -> list[str]:
    """Put back a text that was as the script gave it; say so where the script gives other data than before."""
    if recorded is None:
        given = origin_of(callback).texts
        if attribute in given:
            put_attribute(callback, attribute, given[attribute])
        return []
    if large_hash(attributes_of(callback).get(attribute)) == recorded:
        return []
    return [
        f"{type(callback).__name__}.{attribute} holds other data than recorded; it was left as the script gives it."
    ]


def _put_seed(callback: Any, attribute: str, state: Array) -> None:
    """Let a callback's seed generator go on from a state: the one that it has, which others may hold too."""
    held = attributes_of(callback).get(attribute)
    if not isinstance(held, keras.random.SeedGenerator):
        held = keras.random.SeedGenerator(0)
        put_attribute(callback, attribute, held)
    held.state.assign(state)


def _fits(callback: Any, weights: Any) -> bool:
    model = getattr(callback, "model", None)
    if model is None or not isinstance(weights, (list, tuple)):
        return True
    return [np.shape(w) for w in weights] == [tuple(v.shape) for v in model.weights]


def _read_copy(tensors: Mapping[str, Array], name: str) -> Array:
    return np.array(tensors[name])


def _read_shared(tensors: Mapping[str, Array], name: str) -> Array:
    # PyTorch warns of arrays that cannot be written to, when they become weights.
    array = tensors[name]
    return array if array.flags.writeable else np.array(array)


def _same_bits(one: Array, other: Array) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return np.array_equal(one.ravel().view(np.uint8), other.ravel().view(np.uint8))
