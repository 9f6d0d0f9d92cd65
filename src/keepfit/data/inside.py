"""What a torch ``DataLoader`` holds that changes as it is read: it decides the passes to come.

A sampler that counts its epochs, a data set with a generator of its own: their
attributes and generators lie in no state of the loader. They are known where
they are reached from it; those of worker processes are not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from keepfit.data import attributes, draws
from keepfit.data.memory import ObjectMemory

_NAMES = ("dataset", "sampler", "batch_sampler", "collate_fn")


class _Beginning:
    """The attributes of a loader's parts before its first pass; a process that makes it anew finds them so.

    Attributes:
        values: They, by name.
        read: Names of those that have changed as it was read; the others are the script's.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] | None = None
        self.read: set[str] = set()


_BEGINNINGS = ObjectMemory(_Beginning)


def is_loader(data: Any) -> bool:
    """Return whether a value is a torch ``DataLoader``; does not import PyTorch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(data, torch.utils.data.DataLoader)


def is_of_torchdata(loader: Any) -> bool:
    """Return whether a loader is torchdata's, which has a state."""
    return any(kind.__module__.startswith("torchdata.") for kind in type(loader).__mro__)


def has_parts_with_states(loader: Any) -> bool:
    """Return whether something in a loader saves a state of its own, which torchdata's loader keeps."""
    return any(hasattr(part, "state_dict") for part in (loader.dataset, loader.sampler, loader.batch_sampler))


def draws_apart(loader: Any) -> bool:
    """Return whether samplers other than torchdata's own have drawn or counted: its loader asks them twice to go on."""
    owners = dict(_parts(loader))
    changed = (name.rpartition(".")[0] for kind in take(loader).values() for name in kind if not _is_of_data(name))
    return any(not type(owners.get(owner)).__module__.startswith("torchdata.") for owner in changed)


def begin(loader: Any) -> None:
    """Note how a loader is made, before it is read for the first time."""
    _beginning(loader)


def take(loader: Any) -> dict[str, Any]:
    """Return what has changed in a loader since it was made, and its generators, as plain data; empty if nothing."""
    beginning, now = _beginning(loader), attributes.take(_roots(loader))
    changed = {name: attributes.told(now[name]) for name in sorted(now.keys() & attributes.changed(beginning, now))}
    read = dict.fromkeys(sorted(_BEGINNINGS.of(loader).read), True)
    found = {"generators": draws.take(draws.generators_of(_roots(loader))), "attributes": changed, "read": read}
    return {name: value for name, value in found.items() if value}


def end_pass(loader: Any, began: Mapping[str, Any]) -> None:
    """Note what has changed as a loader was read.

    Args:
        loader: The loader.
        began: What `take` gave when the pass began.
    """
    before, now = began.get("attributes", {}), take(loader).get("attributes", {})
    _BEGINNINGS.of(loader).read.update(attributes.changed(before, now))


@contextmanager
def as_set(loader: Any) -> Iterator[None]:
    """Leave attributes as they are that no reading has changed, whatever `restore` does inside.

    A script may have set them since, as it does with ``sampler.set_epoch(epoch)`` before a fit.
    """
    before = attributes.copies(_roots(loader))
    yield
    read = _BEGINNINGS.of(loader).read
    attributes.put(_roots(loader), {name: value for name, value in before.items() if name not in read})


def within(loader: Any, began: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a loader with a state must hold to go on inside the current pass.

    It asks its sampler anew for what came before, but not the data set for the
    samples, if that gives them by index.

    Args:
        loader: The loader.
        began: What `take` gave when the pass began.
    """
    if isinstance(loader.dataset, sys.modules["torch"].utils.data.IterableDataset):
        return dict(began)
    now = take(loader)
    return {
        kind: {
            **{name: value for name, value in began.get(kind, {}).items() if not _is_of_data(name)},
            **{name: value for name, value in now.get(kind, {}).items() if _is_of_data(name)},
        }
        for kind in {**began, **now}
    }


def _is_of_data(path: str) -> bool:
    return path.partition(".")[0] == "dataset"


def restore(loader: Any, state: Mapping[str, Any]) -> None:
    """Let what a loader holds be as `take` told; what that does not tell of is as when it was made."""
    draws.restore(draws.generators_of(_roots(loader)), state.get("generators", {}))
    _BEGINNINGS.of(loader).read.update(state.get("read", {}))
    told = {name: attributes.read(value) for name, value in state.get("attributes", {}).items()}
    now = attributes.take(_roots(loader))
    made = {name: value for name, value in _beginning(loader).items() if name in now}
    attributes.put(_roots(loader), {**made, **told})


def is_hidden(loader: Any, *, seeks: bool) -> bool:
    """Return whether something that `take` cannot tell of may decide what comes next.

    Args:
        loader: The loader.
        seeks: Whether it goes on inside a pass without reading what came before.
    """
    if loader.num_workers:  # copies of the data set, at work in other processes
        goes_on = loader.persistent_workers or (seeks and bool(draws.generators_of(loader.dataset)))
        return bool(goes_on) and not _is_stock(loader.dataset)
    return any(hasattr(part, "__next__") for _, part in _parts(loader))


def _parts(loader: Any) -> Iterator[tuple[str, Any]]:
    return draws.parts_of(_roots(loader))


def _roots(loader: Any) -> dict[str, Any]:
    return {name: getattr(loader, name, None) for name in _NAMES}


def _beginning(loader: Any) -> dict[str, Any]:
    known = _BEGINNINGS.of(loader)
    if known.values is None:
        known.values = attributes.copies(_roots(loader))
    return known.values


def _is_stock(dataset: Any) -> bool:
    """Return whether a data set is PyTorch's own all through, which draws nothing and keeps no count."""
    torch = sys.modules["torch"]
    parts = [dataset, *(part for _, part in draws.parts_of(dataset))]
    return all(
        type(part).__module__.startswith("torch.utils.data") or isinstance(part, (list, tuple, torch.Tensor))
        for part in parts
    )
