"""A captured step as a function of straight Python code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from keepfit.engine.torch_recording import (
    DETOURS,
    NotCapturedError,
    Operation,
    Recording,
    Slot,
    slots_in,
    with_tensors_as,
)

_FOLDED_NUMBERS = 1 << 16
_WRITTEN_OUT = (int, bool, type(None))


class Program:
    """A captured step.

    Args:
        recording: The step, written down.
        loss: Which part of the result is wanted of every step, not only of the last one.
    """

    def __init__(self, recording: Recording, loss: Callable[[Any], Any]) -> None:
        same: dict[int, int] = {}
        operations = _folded(_without_detours(recording.operations, same), recording)
        result = with_tensors_as(recording.result, lambda slot: Slot(same.get(slot.index, slot.index)), kind=Slot)
        self.operations = len(operations)
        self.loss_of = loss
        self.tensors = list(recording.values.values())  # of variables, and what else is there in every step
        self._whole = _Function(operations, recording, result)
        self._loss = _Function(operations, recording, loss(result))

    def __call__(self, leaves: list[Any]) -> Any:
        """Run the step on the tensors of a batch; what it returns shares no memory with a variable."""
        return self._whole(leaves)

    def loss(self, leaves: list[Any]) -> Any:
        """Run the step and return only its loss."""
        return self._loss(leaves)

    def is_in_place(self) -> bool:
        """Return True: operations find a variable's memory wherever it lies."""
        return True


class _Function:
    """The operations that some of a step's results, and all it writes, need."""

    def __init__(self, operations: list[Operation], recording: Recording, result: Any) -> None:
        slots = list(dict.fromkeys(slot.index for slot in slots_in(result)))
        places = {index: place for place, index in enumerate(slots)}
        self._result = with_tensors_as(result, lambda slot: Slot(places[slot.index]), kind=Slot)
        self._run = _compiled(_needed(operations, set(slots)), recording, slots)

    def __call__(self, leaves: list[Any]) -> Any:
        with torch.inference_mode():
            found = self._run(*leaves)
        return with_tensors_as(self._result, lambda slot: found[slot.index], kind=Slot)


def _without_detours(operations: list[Operation], same: dict[int, int]) -> list[Operation]:
    """Leave out what gives back the memory it took; note in ``same`` which slots are one."""

    def now(index: int) -> int:
        return same.get(index, index)

    kept = []
    for operation in operations:
        operation.args, operation.kwargs = with_tensors_as(
            (operation.args, operation.kwargs), lambda slot: Slot(now(slot.index)), kind=Slot
        )
        for branch in operation.branches:
            branch.operations = _without_detours(branch.operations, same)
            branch.results = [now(index) for index in branch.results]
        if operation.function in DETOURS and operation.outs[0] is not None:
            if operation.outs[0] != operation.args[0].index:
                same[operation.outs[0]] = operation.args[0].index
        else:
            operation.outs = [None if out is None else now(out) for out in operation.outs]
            kept.append(operation)
    return kept


def _folded(operations: list[Operation], recording: Recording) -> list[Operation]:
    """Compute once what is the same in every step: what is made of numbers that the code wrote out."""
    values, constants = recording.values, recording.constants
    kept = []
    for operation in operations:
        for branch in operation.branches:
            branch.operations = _folded(branch.operations, recording)
        made = operation.made()
        if operation.foldable and constants.issuperset(operation.taken()) and not any(map(recording.written, made)):
            args, kwargs = with_tensors_as(
                (operation.args, operation.kwargs), lambda slot: values[slot.index], kind=Slot
            )
            with torch.no_grad():
                found = operation.function(*args, **kwargs)
            given = [found] if operation.single else list(found)
            if sum(each.numel() for each in given if each is not None) <= _FOLDED_NUMBERS:
                values.update({out: each for out, each in zip(operation.outs, given, strict=True) if out is not None})
                constants.update(made)
                continue
        kept.append(operation)
    return kept


def _needed(operations: list[Operation], used: set[int]) -> list[Operation]:
    """Leave out what only computes something that nobody uses; adds to ``used`` what the rest takes."""
    kept = []
    for operation in reversed(operations):
        if operation.pure and used.isdisjoint(operation.made()):
            continue
        used.update(operation.taken())
        kept.append(operation)
    return kept[::-1]


def _compiled(operations: list[Operation], recording: Recording, results: list[int]) -> Callable[..., tuple[Any, ...]]:
    writer = _Writer(recording, keep=set(results))
    lines = writer.block(operations)
    returned = "".join(writer.name(index) + (", " if recording.own(index) else ".clone(), ") for index in results)
    body = "\n        ".join([*lines, f"return ({returned})"])
    inner = f"    def run({', '.join(f'b{index}' for index in recording.batch)}):\n        {body}\n    return run"
    source = f"def make({', '.join(writer.bound)}):\n{inner}"
    namespace: dict[str, Any] = {}
    exec(compile(source, "<captured step>", "exec"), namespace)  # noqa: S102 - the source was made here
    return namespace["make"](**writer.bound)  # type: ignore[no-any-return]


class _Writer:
    """Writes operations out as lines of Python; each tensor is let go after its last use.

    Args:
        recording: Where they come from.
        keep: Slots that are needed at the end.
    """

    def __init__(self, recording: Recording, keep: set[int]) -> None:
        self.bound: dict[str, Any] = {}
        self._values = recording.values
        self._keep = keep
        self._names = {index: f"b{index}" for index in recording.batch}
        self._constants: dict[int, str] = {}

    def name(self, index: int) -> str:
        """Return the name of a slot's tensor."""
        if index not in self._names:
            if index not in self._values:
                raise NotCapturedError("it uses a tensor outside of the branch that made it")
            self._names[index] = self._constant(self._values[index])
        return self._names[index]

    def block(self, operations: list[Operation], results: tuple[int, ...] = ()) -> list[str]:
        """Return the lines of a list whose ``results`` are used after it."""
        last: dict[int, int] = {}
        for number, operation in enumerate(operations):
            last.update(dict.fromkeys(operation.made(), number))
        mine = {index for index in last if index not in self._names and index not in self._values}
        mine -= self._keep.union(results)
        for number, operation in enumerate(operations):
            last.update(dict.fromkeys(operation.taken(), number))
        lines = []
        for number, operation in enumerate(operations):
            lines += self._lines(operation)
            done = [self._names.pop(index) for index in mine if last[index] == number and index in self._names]
            if done:
                lines.append(f"del {', '.join(done)}")
        return lines

    def _lines(self, operation: Operation) -> list[str]:
        if operation.branches:
            return self._branch_lines(operation)
        arguments = [self._text(value) for value in operation.args]
        arguments += [f"{name}={self._text(value)}" for name, value in operation.kwargs.items()]
        call = f"{self._constant(operation.call)}({', '.join(arguments)})"
        fresh = {out for out in operation.made() if out not in self._names and out not in self._values}
        if not fresh:
            return [call]
        self._names.update({out: f"t{out}" for out in fresh})
        targets = [f"t{out}" if out in fresh else "_" for out in operation.outs]
        return [f"{targets[0] if operation.single else ', '.join(targets) + ','} = {call}"]

    def _branch_lines(self, operation: Operation) -> list[str]:
        lines = []
        before = dict(self._names)
        for word, branch in zip((f"if {self._text(operation.args[0])}:", "else:"), operation.branches, strict=True):
            inner = self.block(branch.operations, tuple(branch.results))
            inner += [
                f"t{out} = {self.name(result)}" for out, result in zip(operation.made(), branch.results, strict=True)
            ]
            lines += [word, *(f"    {line}" for line in inner or ["pass"])]
            constants = {index: name for index, name in self._names.items() if name in self.bound}
            self._names = {**before, **constants}
        self._names.update({out: f"t{out}" for out in operation.made()})
        return lines

    def _text(self, value: Any) -> str:
        if isinstance(value, Slot):
            return self.name(value.index)
        if type(value) in _WRITTEN_OUT:
            return repr(value)
        if next(slots_in(value), None) is None:
            return self._constant(value)
        inner = "".join(f"{self._text(item)}, " for item in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"

    def _constant(self, value: Any) -> str:
        """Return the name under which the function has a value at hand."""
        name = self._constants.get(id(value))
        if name is None:
            name = self._constants[id(value)] = f"c{len(self.bound)}"
            self.bound[name] = value
        return name
