"""Which layers a selector means: a layer, a list, a pattern over layer paths, a predicate, or ``"all"``."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterator
from typing import Any

import keras

from keepfit import _keras
from keepfit.errors import InvalidArgument


def layer_paths(model: Any) -> dict[str, Any]:
    """Return path -> layer of every layer in a model, ``"backbone/block5/conv"``, in the order of the model."""
    found: dict[str, Any] = {}
    seen: set[int] = {id(model)}

    def walk(layer: Any, path: str) -> None:
        for inner in _keras.layer_parts(layer)[3]:
            if id(inner) in seen:
                continue
            seen.add(id(inner))
            name = f"{path}{inner.name}"
            while name in found:
                name += "_"
            found[name] = inner
            walk(inner, f"{name}/")

    walk(model, "")
    return found


def select(model: Any, selector: Any, *, argument: str) -> list[Any]:
    """Return the layers that a selector means, with those inside them, in the order of the model.

    Args:
        model: The model.
        selector: A layer of the model, a list of selectors, a pattern over layer paths as `fnmatch` reads it,
            a predicate over layers, or ``"all"``.
        argument: What messages call it.

    Raises:
        InvalidArgument: It means no layer; a near miss is suggested.
    """
    paths = layer_paths(model)
    if isinstance(selector, str) and selector == "all":
        return list(paths.values())
    chosen = set()
    for test, shown in _tests(selector, argument):
        hits = {id(layer) for path, layer in paths.items() if test(path, layer)}
        if not hits:
            raise InvalidArgument(
                f"{argument}={shown} means no layer of {model.name!r}.{_near(shown, paths)} Nothing was changed.",
                argument=argument,
                value=selector,
            )
        chosen |= hits
    # What lies inside a chosen layer is chosen.
    inside = {name for path, layer in paths.items() if id(layer) in chosen for name in _below(path, paths)}
    return [layer for path, layer in paths.items() if id(layer) in chosen or path in inside]


def _tests(selector: Any, argument: str) -> Iterator[tuple[Callable[[str, Any], bool], str]]:
    if isinstance(selector, (list, tuple)):
        if not selector:
            raise InvalidArgument(
                f"{argument}=[] means no layer. Nothing was changed. Name one, or leave {argument} out.",
                argument=argument,
            )
        for member in selector:
            yield from _tests(member, argument)
    elif isinstance(selector, str):
        yield lambda path, _layer: fnmatch.fnmatchcase(path, selector), repr(selector)
    elif isinstance(selector, keras.layers.Layer):
        yield lambda _path, layer: layer is selector, f"<{selector.name}>"
    elif callable(selector):
        yield lambda _path, layer: bool(selector(layer)), getattr(selector, "__name__", repr(selector))
    else:
        raise InvalidArgument(
            f"{argument} cannot be a {type(selector).__name__}: expected a layer, a list of them, a pattern over "
            'layer paths, a predicate, or "all". Nothing was changed.',
            argument=argument,
            value=selector,
        )


def _below(path: str, paths: dict[str, Any]) -> Iterator[str]:
    return (other for other in paths if other.startswith(f"{path}/"))


def _near(shown: str, paths: dict[str, Any]) -> str:
    close = difflib.get_close_matches(shown.strip("'\"<>"), paths, n=3, cutoff=0.5)
    if close:
        return f" Did you mean {', '.join(map(repr, close))}?"
    return f" Its layers are {', '.join(list(paths)[:8])}{' and more' if len(paths) > 8 else ''}."


class Trainability:
    """Which layers train, as it was; `restore` brings it back.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        self._layers = [model, *layer_paths(model).values()]
        self._flags = [bool(layer.trainable) for layer in self._layers]
        self._variables = [(v, bool(v.trainable)) for layer in self._layers for v in _keras.layer_parts(layer)[0]]

    def restore(self) -> None:
        """Let every layer train or not, as when this was made."""
        for layer, flag in zip(self._layers, self._flags, strict=True):  # a layer sets those inside it, which follow
            if layer.trainable != flag:
                layer.trainable = flag
        for variable, flag in self._variables:
            if variable.trainable != flag:
                variable.trainable = flag


def train_only(model: Any, selector: Any) -> None:
    """Let the layers that a selector means train, and no others; it stays set, as an assignment by hand.

    Raises:
        InvalidArgument: It means no layer, or leaves nothing to train; nothing was changed.
    """
    chosen = set(map(id, select(model, selector, argument="train")))
    before = Trainability(model)
    for layer in (model, *layer_paths(model).values()):
        _keras.set_trainable(layer, True)
    for layer in reversed(list(layer_paths(model).values())):
        holds_chosen = any(id(inner) in chosen for inner in _inside(layer))
        if id(layer) not in chosen and not holds_chosen:
            _keras.set_trainable(layer, False)
        elif id(layer) not in chosen:
            _freeze_own(layer)
        elif (base := _keras.lora_base(layer)) is not None:
            base.trainable = False
    if model.built and not model.trainable_variables:
        before.restore()
        raise InvalidArgument(
            f"train={selector!r} leaves nothing to train: what it means has no trainable weights. Nothing was changed.",
            argument="train",
            value=selector,
        )


def _inside(layer: Any) -> Iterator[Any]:
    for inner in _keras.layer_parts(layer)[3]:
        yield inner
        yield from _inside(inner)


def _freeze_own(layer: Any) -> None:
    """Freeze the weights that a layer itself has, not those of the layers in it."""
    for variable in _keras.layer_parts(layer)[0]:
        variable.trainable = False
