"""Marks in a stream: places from which it can be read on, in this process or another.

A mark is plain data. Grain's iterators and torchdata's loaders give their state
and take it back. A torch ``DataLoader`` has none: its mark is the beginning of
a pass, which is decided by the generators it draws from and by what its
sampler and its data set hold.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from keepfit import randomness
from keepfit.data import inside

# Batches between two marks: what a resume reads again, at most, beside what the loop held ready.
EVERY = 16

Mark = dict[str, Any]


def can_seek(data: Any, iterator: Iterator[Any]) -> bool:
    """Return whether a mark may lie inside a pass."""
    if draws_order(data) and inside.is_of_torchdata(data) and inside.draws_apart(data):
        return False
    return _has_state(iterator) or _is_stateful_loader(data)


def draws_order(data: Any) -> bool:
    """Return whether a pass is decided by generators when it begins, as that of a torch ``DataLoader``."""
    return inside.is_loader(data)


def note(data: Any) -> None:
    """Note how a data set is made, before it is read."""
    if draws_order(data):
        inside.begin(data)


def held(data: Any) -> Mark:
    """Return what a data set holds that changes as it is read; empty where it is known to hold nothing."""
    return inside.take(data) if draws_order(data) else {}


def held_within(data: Any, began: Mark) -> Mark:
    """Return what `hold` needs before `seek` goes inside a pass that began with what `held` gave then."""
    return {"held": inside.within(data, began)} if draws_order(data) else {}


def hold(data: Any, state: Mark) -> None:
    """Put back what `held` gave."""
    if draws_order(data):
        inside.restore(data, state)


def end_pass(data: Any, began: Mark) -> None:
    """Note what reading has changed in a data set since `held` gave ``began``."""
    if draws_order(data):
        inside.end_pass(data, began)


def as_set(data: Any) -> AbstractContextManager[None]:
    """Leave what a script has set in a data set as it is, whatever `hold` does inside."""
    return inside.as_set(data) if draws_order(data) else nullcontext()


def is_hidden(data: Any) -> bool:
    """Return whether something decides what comes next that no mark can tell."""
    return draws_order(data) and inside.is_hidden(data, seeks=_is_stateful_loader(data))


def position_of(data: Any, iterator: Iterator[Any]) -> Any:
    """Return where an iterator stands, as plain data."""
    state = data.state_dict() if _is_stateful_loader(data) else iterator.get_state()  # type: ignore[attr-defined]
    return _plain(state)


def seek(data: Any, iterator: Iterator[Any], position: Any) -> None:
    """Let an iterator that has not begun stand at a position."""
    state = given(position)
    if _is_stateful_loader(data):
        data.load_state_dict(state)
    else:
        iterator.set_state(state)  # type: ignore[attr-defined]


def generators_of(data: Any) -> Mark:
    """Return the state of every generator that may decide a pass which begins now."""
    found: Mark = {"globals": randomness.take(untouched=True)}
    own = _own_states(data)
    return {**found, "own": own} if own else found


def at_rest(data: Any) -> Mark:
    """Return what decides the next pass of a data set between two passes, besides the global generators."""
    holds = {"held": held(data)} if draws_order(data) else {}
    rest = own_generators_of(data)
    # What torchdata's loader says of itself between two passes leaves what its order is drawn from elsewhere.
    plain = draws_order(data) and inside.is_of_torchdata(data) and not inside.has_parts_with_states(data)
    if rest is not None or plain:
        return {**holds, "rest": rest or {"globals": {}}}
    return {**holds, "position": _plain(data.state_dict())} if _is_stateful_loader(data) else holds


def own_generators_of(data: Any) -> Mark | None:
    """Return the state of the generators that a data set holds itself, None where it holds none."""
    own = _own_states(data)
    return {"globals": {}, "own": own} if own else None


def set_generators(data: Any, states: Mapping[str, Any]) -> None:
    """Put back what `generators_of` gave."""
    randomness.restore(states["globals"])
    torch = sys.modules["torch"]
    for name, generator in _own_generators(data):
        if name in states.get("own", {}):
            generator.set_state(torch.frombuffer(bytearray(given(states["own"][name])), dtype=torch.uint8))


def _own_states(data: Any) -> dict[str, Any]:
    return {name: _plain(generator.get_state().numpy().tobytes()) for name, generator in _own_generators(data)}


def _own_generators(data: Any) -> Iterator[tuple[str, Any]]:
    if not draws_order(data):
        return
    for name, holder in (("loader", data), ("sampler", getattr(data, "sampler", None))):
        generator = getattr(holder, "generator", None)
        if generator is not None:
            yield name, generator


def _has_state(iterator: Any) -> bool:
    return hasattr(iterator, "get_state") and hasattr(iterator, "set_state")


def _is_stateful_loader(data: Any) -> bool:
    return hasattr(data, "state_dict") and hasattr(data, "load_state_dict")


def _plain(value: Any) -> Any:
    """Return a state as JSON: dicts with their kinds of keys, bytes and arrays as text."""
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": base64.b64encode(bytes(value)).decode("ascii")}
    if isinstance(value, Mapping):
        return {"dict": [[_plain(key), _plain(item)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"tuple" if isinstance(value, tuple) else "list": [_plain(item) for item in value]}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return value.item()
    if hasattr(value, "dtype") and hasattr(value, "tobytes"):
        return {"array": [str(value.dtype), list(value.shape), base64.b64encode(value.tobytes()).decode("ascii")]}
    if hasattr(value, "numpy"):
        return {"tensor": _plain(value.numpy())}
    raise TypeError(f"a {type(value).__name__} in the state of a data set cannot be recorded")


def given(value: Any) -> Any:
    """Return the state of which a mark is the plain form."""
    if not isinstance(value, Mapping):
        return value
    ((kind, inner),) = value.items()
    if kind == "bytes":
        return base64.b64decode(inner)
    if kind == "dict":
        return {given(key): given(item) for key, item in inner}
    if kind in ("list", "tuple"):
        return (tuple if kind == "tuple" else list)(given(item) for item in inner)
    if kind == "tensor":
        return sys.modules["torch"].from_numpy(given(inner))
    import numpy as np

    dtype, shape, text = inner
    return np.frombuffer(base64.b64decode(text), dtype=dtype).reshape(shape).copy()
