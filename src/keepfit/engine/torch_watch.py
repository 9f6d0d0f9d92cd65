"""Whether what a captured step has read of Python is still so; and what an attempt to capture changed, put back."""

from __future__ import annotations

import types
from operator import is_
from typing import Any

import keras
import torch

from keepfit.engine.torch_content import SCALARS, Content, UnclearError, are_equal, has_content, is_plain
from keepfit.engine.torch_reach import Place, places
from keepfit.engine.torch_recording import NotCapturedError

_SETTINGS = (*SCALARS, types.FunctionType, types.BuiltinFunctionType, types.MethodType, type, torch.Tensor)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
# What the engine itself sets, and what says only how far Keras has come.
_PASSING = frozenset({"training", "_called", "history", "stop_training", "run", "fit", "call_signature_parameters"})
# Lists in which Keras keeps what belongs to a layer; a name is given, so that no counter of names is touched.
_KEPT_BY_KERAS = frozenset(name for name in vars(keras.layers.Layer(name="keepfit")) if name.startswith("_"))


class Watch:
    """What a step may read of Python, as it is now.

    Numbers and strings are compared by value, with their type; so are
    containers, arrays and random generators by what they hold; everything else
    by identity, and by its own attributes where it has any of the user's.

    Args:
        model: A compiled, built model.

    Raises:
        NotCapturedError: Something in it cannot be compared: it is too large, or only tells by being used up.
    """

    def __init__(self, model: Any) -> None:
        self._entries: list[tuple[Place, int, tuple[str, ...], tuple[Any, ...]]] = []
        self._contents: list[tuple[Place, str, Content]] = []
        try:
            for place in places(model, passing=_PASSING):
                self._note(place)
        except OverflowError as error:
            raise NotCapturedError(str(error)) from error
        for module in model.modules():
            if not isinstance(module, (keras.layers.Layer, torch.nn.ParameterDict, torch.nn.ParameterList)):
                place = Place.of_attributes(module, passing=_PASSING)
                self._contents += [(place, name, Content(place.get(name))) for name in _HOOKS]

    def _note(self, place: Place) -> None:
        plain: dict[str, Any] = {}
        for name in place.names:
            value = place.get(name)
            if not has_content(value):
                # What a library keeps for itself comes and goes.
                if not (place.of_a_library and name.startswith("_")) or isinstance(value, _SETTINGS):
                    plain[name] = value
            elif not (name in _KEPT_BY_KERAS or (place.of_a_library and name.startswith("_"))):
                try:
                    self._contents.append((place, name, Content(value)))
                except UnclearError as error:
                    if not place.of_a_library:
                        where = f"{place.label}.{name}"
                        raise NotCapturedError(f"{where} {error}, and a change in it would not be seen") from None
                    plain[name] = value
        size = -1 if place.attributes is None else len(place.attributes)
        self._entries.append((place, size, tuple(plain), tuple(plain.values())))

    def change(self) -> str | None:
        """Return the name of something that is another now, or None."""
        for index, (place, size, names, values) in enumerate(self._entries):
            if size >= 0 and len(place.attributes) != size:  # type: ignore[arg-type]
                return f"{place.label} has other attributes"
            if all(map(is_, map(place.get, names), values)):
                continue
            now = tuple(map(place.get, names))
            for name, old, new in zip(names, values, now, strict=True):
                if old is not new and not are_equal(old, new):
                    return f"{place.label}.{name}"
            self._entries[index] = (place, size, names, now)
        return next(
            (f"{place.label}.{name}" for place, name, told in self._contents if told.is_other(place.get(name))), None
        )

    def put_back(self) -> None:
        """Let everything be as it was; what a library has found out about itself may stay."""
        for place, _, names, values in self._entries:
            for name, value in zip(names, values, strict=True):
                if place.get(name) is not value and (is_plain(value) or not place.of_a_library):
                    place.put(name, value)
            if place.attributes is not None and not place.of_a_library:
                for name in place.attributes.keys() - {*place.names, *_PASSING}:
                    del place.attributes[name]
        for place, name, content in self._contents:
            if not place.of_a_library:
                content.put_back()
                if place.get(name) is not content.value:
                    place.put(name, content.value)


def has_hooks(model: Any) -> bool:
    """Return whether a PyTorch module in a model calls hooks; layers of Keras do not call theirs."""
    modules = (module for module in model.modules() if not isinstance(module, keras.layers.Layer))
    return any(getattr(module, name, None) for module in modules for name in _HOOKS)
