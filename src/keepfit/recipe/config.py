"""Configs of losses, metrics, optimizers, schedules and callbacks as plain data.

A config holds what its object was made with. Names that Keras gave by itself
(``adam_3``) are left out, for they count the objects of a process.
"""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keepfit import _keras
from keepfit.recipe.identity import is_function
from keepfit.recipe.origin import class_name, function_name, is_own_class
from keepfit.recipe.values import MOST_ITEMS, NOT_PLAIN, array_value, key_text, plain

# Constructor arguments that say nothing about training, or that Keras fills in.
_NOT_SETTINGS = frozenset({"self", "args", "kwargs", "name", "trainable", "dtype", "autocast", "seed"})
_ABSENT: Any = object()
# What the recipe ignores: output and its places; and what only sets values that a checkpoint holds.
_OUTPUT = re.compile(r"verbose|path|file|dir(ectory)?$|_initializer$|^root$|^headers$|^separator$|^append$|print_fn")


def plain_config(value: Any) -> Any:
    """Return the config of a loss, metric, optimizer, schedule, function or structure of them as JSON.

    Objects give ``{"class": name, **config}``, functions ``{"function": name}``;
    code is not in it, see `code_identities`. Strings stay strings.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return plain(value)
    if isinstance(value, (Mapping, list, tuple)) and len(value) <= MOST_ITEMS:
        return _structure(value)
    told = plain(value)
    if told is not NOT_PLAIN:
        return told
    if isinstance(value, (Mapping, list, tuple)):
        return _structure(value)
    if is_function(value):
        return {"function": function_name(value)}
    if isinstance(value, type):
        return {"class": class_name(value)}
    if _is_optimizer(value):
        return optimizer_config(value)
    return _tensor(value) if _is_tensor(value) else _object(value)


def _structure(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return [plain_config(item) for item in value]
    return _serialized(value) if _is_serialized(value) else _mapping(value)


def optimizer_config(optimizer: Any) -> dict[str, Any]:
    """Return an optimizer's class and config without name and learning rate; optimizers inside it likewise."""
    told: dict[str, Any] = {}
    for key, item in _config_of(optimizer, _keras.optimizer_config).items():
        if key not in ("name", "learning_rate"):
            inner = getattr(optimizer, key, None)
            told[key] = optimizer_config(inner) if _is_optimizer(inner) else plain_config(item)
    told["class"] = class_name(type(optimizer))
    return told


def learning_rate_config(optimizer: Any) -> Any:
    """Return the learning rate: a float, or the config of a schedule or function.

    A rate is held in float32: 1e-3 gives 0.0010000000474974513. Several
    optimizers in one give a dict: place -> rate.
    """
    inner = _keras.inner_optimizers(optimizer)
    if inner:
        rates = [learning_rate_config(each) for each in inner]
        return rates[0] if len(rates) == 1 else {str(place): rate for place, rate in enumerate(rates)}
    rate = _keras.learning_rate_source(optimizer)
    if isinstance(rate, (int, float)) or _is_tensor(rate):
        return float(_array(rate))
    return plain_config(rate)


def settings(value: Any) -> dict[str, Any]:
    """Return the attributes of an object that are named like its constructor's arguments, where they are plain.

    That is how callbacks, layers and the user's own losses keep what they were
    made with; other attributes may change while they work. Defaults, places of
    output and verbosity are left out.
    """
    attributes = vars(value) if hasattr(value, "__dict__") else {}
    cls: Any = type(value)
    found = {}
    for name, default in _constructor_arguments(cls):
        held = attributes.get(name, _ABSENT)
        if held is _ABSENT:
            held = attributes.get(f"_{name}")
        if held is None or held is default:
            continue
        told = _setting(held)
        if name == "min_delta" and isinstance(told, (int, float)):
            told = abs(told)  # Keras flips the sign at the end of the first epoch
        if told is not NOT_PLAIN and told != default:
            found[name] = told
    return found


def _setting(value: Any) -> Any:
    told = plain(value)
    if told is not NOT_PLAIN:
        return told
    if is_function(value):
        return {"function": function_name(value)}
    # Layers have settings of their own; what lacks a config keeps state at most.
    if hasattr(value, "get_config") and not isinstance(value, (type, keras.Layer)):
        return plain_config(value)
    return NOT_PLAIN


@functools.lru_cache(maxsize=1024)
def _constructor_arguments(cls: type) -> tuple[tuple[str, Any], ...]:
    """Return name and default of each argument that a class's constructor takes, sorted by name."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        if "__init__" in vars(base) and base is not object:
            found = _parameters(base) | found
        if not is_own_class(base):
            break  # what a library's class passes on to its own bases is its own affair
    kept = [(name, found[name]) for name in sorted(found)]
    return tuple(each for each in kept if each[0] not in _NOT_SETTINGS and not _OUTPUT.search(each[0]))


def _parameters(cls: type) -> dict[str, Any]:
    try:
        parameters = inspect.signature(vars(cls)["__init__"]).parameters.values()
    except (TypeError, ValueError):
        return {}
    # A default of no plain kind equals nothing.
    return {each.name: each.default if plain(each.default) is not NOT_PLAIN else _ABSENT for each in parameters}


def _is_optimizer(value: Any) -> bool:
    return isinstance(value, keras.optimizers.Optimizer)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, keras.Variable) or keras.ops.is_tensor(value)


def _object(value: Any) -> Any:
    config = _without_automatic_name(type(value).__name__, _config_of(value))
    function, arguments = _keras.wrapped_function(value)
    config = {**arguments, **config}  # Huber's own config lacks its delta
    if "fn" in config and function is not None:
        config["fn"] = function
    return {**_mapping(config), "class": class_name(type(value))}


def _get_config(value: Any) -> dict[str, Any]:
    return dict(value.get_config())


def _config_of(value: Any, read: Callable[[Any], dict[str, Any]] = _get_config) -> dict[str, Any]:
    """Return an object's ``get_config``; empty where it has none that works."""
    try:
        if not any(_is_lambda(held) for held in vars(value).values()):
            return read(value)
        # Keras warns that a lambda is unsafe to load. It is not loaded here. Filters are
        # touched only for this: each change makes Python show "once" warnings again.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read(value)
    except (NotImplementedError, AttributeError, TypeError, ValueError):
        return {}


def _is_lambda(value: Any) -> bool:
    return getattr(value, "__name__", None) == "<lambda>"


def _mapping(value: Mapping[Any, Any]) -> dict[str, Any]:
    return {key_text(key): plain_config(item) for key, item in value.items()}


def _is_serialized(value: Any) -> bool:
    return isinstance(value, Mapping) and "class_name" in value and "config" in value


def _serialized(value: Mapping[str, Any]) -> Any:
    """Return the config of an object that Keras has serialised, in the form of the object's own."""
    name, config = str(value["class_name"]), value["config"]
    if name in ("function", "__lambda__"):
        return {"function": str(config) if name == "function" else "<lambda>"}
    package = "keras." if str(value.get("module") or "").partition(".")[0] == "keras" else ""
    if not isinstance(config, Mapping):
        return {"config": plain_config(config), "class": f"{package}{name}"}
    kept = _without_automatic_name(name, config)
    if "learning_rate" in kept and "clipnorm" in kept:  # an optimizer; its rate has a place of its own
        kept.pop("learning_rate")
    return {**_mapping(kept), "class": f"{package}{name}"}


def _without_automatic_name(class_name_: str, config: Mapping[str, Any]) -> dict[str, Any]:
    name = config.get("name")
    if isinstance(name, str) and re.fullmatch(rf"{re.escape(_snake_case(class_name_))}(_\d+)?", name):
        return {key: item for key, item in config.items() if key != "name"}
    return dict(config)


@functools.lru_cache(maxsize=1024)
def _snake_case(name: str) -> str:
    """Return a class's name as Keras writes it in automatic names."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _tensor(value: Any) -> Any:
    try:
        return array_value(_array(value))
    except (TypeError, ValueError, RuntimeError):  # an abstract or a deleted one
        return {"object": class_name(type(value))}


def _array(value: Any) -> Any:
    # A Keras variable gives itself to NumPy 2 only with a warning; what it holds does not.
    return keras.ops.convert_to_numpy(_keras.value(value) if isinstance(value, keras.Variable) else value)
