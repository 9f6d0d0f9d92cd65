"""A step of PyTorch code, written down: what `torch_capture` writes and `torch_program` reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

# What gives back the memory it took, and matters to gradients only.
DETOURS = (torch.ops.aten.detach.default, torch.ops.aten.lift_fresh.default, torch.ops.aten.alias.default)


class NotCapturedError(Exception):
    """A step cannot be captured; says why."""


class StepRaisedError(NotCapturedError):
    """A step raised by itself while it was captured: it may do so as it is written, too."""


@dataclass(frozen=True)
class Slot:
    """Stands for a tensor of the list."""

    index: int


@dataclass
class Operation:
    """One line of the list.

    Args:
        function: What is called; None where one of two ``branches`` is run, by what ``args`` holds.
        args: Its arguments, with slots in the place of tensors.
        kwargs: Those given by name.
        call: The quickest way to call it.
        outs: Slots of the tensors that come out; None for what is no tensor.
        single: Whether it returns one tensor rather than several.
        pure: Whether it may be left out where nobody uses what comes out.
        foldable: Whether it gives the same whenever it is given the same.
        branches: The lists for true and for false.
    """

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    call: Any = None
    outs: list[int | None] = field(default_factory=list)
    single: bool = True
    pure: bool = False
    foldable: bool = False
    branches: tuple[Branch, ...] = ()

    def taken(self) -> Iterator[int]:
        """Yield the slots that it reads, those inside its branches too."""
        for slot in slots_in((self.args, self.kwargs)):
            yield slot.index
        for branch in self.branches:
            yield from branch.results
            for operation in branch.operations:
                yield from operation.taken()

    def made(self) -> list[int]:
        """Return the slots of the tensors that come out."""
        return [out for out in self.outs if out is not None]


@dataclass
class Branch:
    """What is run in one of two cases, and the slots that then come out."""

    operations: list[Operation]
    results: list[int]


@dataclass
class Recording:
    """A step written down.

    Args:
        operations: The list.
        batch: Slots of the batch's leaves.
        values: Slot -> the tensor itself, for the variables and what else is there in every step.
        constants: Slots whose tensors are the same in every step.
        own: Slots of tensors that share no memory with variables, batch or constants.
        result: What the step returned, with slots in the place of tensors.
    """

    operations: list[Operation]
    batch: list[int]
    values: dict[int, Any]
    constants: set[int]
    written: Callable[[int], bool]
    own: Callable[[int], bool]
    result: Any


def with_tensors_as(value: Any, by: Callable[[Any], Any], *, kind: Any = torch.Tensor) -> Any:
    """Return nested arguments with every tensor (or other ``kind``) replaced."""
    if isinstance(value, kind):
        return by(value)
    if isinstance(value, dict):
        return {name: with_tensors_as(item, by, kind=kind) for name, item in value.items()}
    if isinstance(value, list):
        return [with_tensors_as(item, by, kind=kind) for item in value]
    return tuple(with_tensors_as(item, by, kind=kind) for item in value) if type(value) is tuple else value


def slots_in(value: Any) -> Iterator[Slot]:
    """Yield the slots in nested arguments."""
    if isinstance(value, Slot):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from slots_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from slots_in(item)
