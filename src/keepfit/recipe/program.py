"""The user's own code in a model, its losses, metrics and callbacks: what warns when it changes."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from types import FunctionType, MethodType
from typing import Any

import keras

from keepfit import _keras
from keepfit.recipe.config import settings
from keepfit.recipe.identity import callable_identity, class_identity, own_function, unwrapped
from keepfit.recipe.origin import class_name, is_own_class
from keepfit.recipe.values import json_text, text_hash

# Attributes of these types hold no code, or are looked at elsewhere.
_WITHOUT_CODE = (
    *(type(None), bool, int, float, str, bytes, tuple, list, dict, set, frozenset, type),
    *(keras.Layer, keras.Variable, keras.KerasTensor, keras.optimizers.Optimizer, keras.Initializer, keras.DTypePolicy),
)
_WITH_FUNCTIONS = (keras.Loss, keras.Metric, keras.optimizers.schedules.LearningRateSchedule)
_MOST_LAYERS_TOLD = 100  # beyond, a hash stands for a layer's settings: a record of every fit holds them
_DEEPEST = 3


def code_identities(model: Any, *, callbacks: Any = (), **parts: Any) -> dict[str, Any]:
    """Return the user's own code and settings in everything that takes part in a fit.

    Args:
        model: The model: its class, its layers' classes, their functions and settings.
        callbacks: The user's callbacks: class, settings, functions; output places are left out.
        parts: Name -> loss, metrics, optimizer, learning rate, ...: an object, function, string, or a
            structure of them.

    Returns:
        JSON: ``classes`` (own classes of the model by name), ``functions`` (in layers, by layer and
        attribute), ``layers`` (settings by layer), ``callbacks`` (by class and occurrence), and each
        part that has own code. What is empty is left out.
    """
    told: dict[str, Any] = _model(model)
    for name, part in parts.items():
        if found := code_identity(part):
            told[name] = found
    if callbacks and (found := _callbacks(callbacks)):
        told["callbacks"] = found
    return told


def code_identity(part: Any) -> dict[str, Any]:
    """Return the user's own code and settings in an object, function, or structure of them; empty without any."""
    found = dict(_structure(part, ""))
    return found[""] if list(found) == [""] else found


def _model(model: Any) -> dict[str, Any]:
    classes: dict[str, Any] = {}
    functions: dict[str, Any] = {}
    layers: dict[str, Any] = {}
    counts: dict[str, int] = {}
    for layer in _keras.all_layers(model):
        name = class_name(type(layer))
        path = _counted(name, counts)
        if is_own_class(type(layer)) and name not in classes:
            classes[name] = class_identity(type(layer))
        for attribute, identity in _own_parts(layer, _DEEPEST):
            functions[f"{path}.{attribute}"] = identity
        if not isinstance(layer, keras.Model):
            layers[path] = settings(layer)
    if len(layers) > _MOST_LAYERS_TOLD:
        layers = {path: text_hash(json_text(each))[:16] for path, each in layers.items()}
    found = {"classes": classes, "functions": functions, "layers": layers}
    return {name: each for name, each in found.items() if each}


def _callbacks(callbacks: Any) -> dict[str, Any]:
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    each_one = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
    counts: dict[str, int] = {}
    return {_counted(class_name(type(each)), counts): _object(each, _DEEPEST) for each in each_one}


def _counted(name: str, counts: dict[str, int]) -> str:
    """Return a name made unique by its occurrence: ``keras.Dense``, ``keras.Dense_1``."""
    count = counts.get(name, 0)
    counts[name] = count + 1
    return f"{name}_{count}" if count else name


def _structure(part: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield path and identity of each part with own code in a structure."""
    if part is None or isinstance(part, str):
        return
    if isinstance(part, Mapping):
        items = [(str(key), item) for key, item in part.items()]
    elif isinstance(part, (list, tuple)):
        items = [(str(index), item) for index, item in enumerate(part)]
    else:
        if own_function(part) or isinstance(part, type):
            yield path, callable_identity(part)
        elif (_kinds[type(part)] or isinstance(part, keras.optimizers.Optimizer)) and (
            found := _object(part, _DEEPEST, told=False)
        ):
            yield path, found
        return
    for key, item in items:
        yield from _structure(item, f"{path}.{key}" if path else key)


def _object(value: Any, deeper: int, *, told: bool = True) -> dict[str, Any]:
    """Return class, settings and functions of an object.

    Args:
        value: A loss, metric, schedule, callback, ...
        deeper: How many objects inside one another to look into.
        told: Whether a library's object tells its settings too; where its config is compared elsewhere it need not.
    """
    own = is_own_class(type(value))
    identity: dict[str, Any] = {"class": class_identity(type(value))} if own else {}
    if (own or told) and (found := settings(value)):
        identity["settings"] = found
    if functions := dict(_own_parts(value, deeper)):
        identity["functions"] = functions
    return identity


def _own_parts(value: Any, deeper: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and identity of each attribute that is the user's own function or object."""
    attributes = getattr(value, "__dict__", {})
    interesting = [name for name, held in attributes.items() if _kinds[type(held)]]
    compiled = _keras.COMPILED_ATTRIBUTES if interesting and isinstance(value, keras.Model) else ()
    for name in interesting:
        held = attributes[name]
        if name in compiled:  # a part of its own
            continue
        if _kinds[type(held)] == "function":
            # Keras wraps a layer's own build(), which its class tells.
            if own_function(held) and unwrapped(held) is not unwrapped(getattr(type(value), name, None)):
                yield name, callable_identity(held)
        elif deeper and (found := _object(held, deeper - 1, told=False)):
            yield name, found


class _Kinds(dict[type, str]):
    """Class -> what kind of code its objects can hold: "function", "object", or "" for none."""

    def __missing__(self, cls: type) -> str:
        if len(self) > 4096:  # a notebook makes classes without end
            self.clear()
        self[cls] = kind = _new_kind(cls)
        return kind


_kinds = _Kinds()


def _new_kind(cls: type) -> str:
    if issubclass(cls, _WITHOUT_CODE):
        return ""
    if issubclass(cls, (FunctionType, MethodType, functools.partial)):
        return "function"
    if is_own_class(cls) or issubclass(cls, _WITH_FUNCTIONS):
        return "object"
    # A jitted function is an object of a library that can be called.
    return "function" if any("__call__" in vars(base) for base in cls.__mro__) else ""
