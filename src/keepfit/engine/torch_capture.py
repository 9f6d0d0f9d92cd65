"""A step of PyTorch code, written down once as the list of its operations and run again from that.

Keras's Python around each operation costs more than the operation itself where
tensors are small. Here one step runs as it always does while every operation
that it calls is noted, those of the backward pass included, with the tensors
that went in and came out. The list is then turned into a function of straight
Python code. It calls the same kernels with the same arguments in the same
order, and writes into the same variables.

That is only right where Python decided nothing by what a tensor holds. Each
such reading (``if``, ``float()``, ``.numpy()``, a shape that depends on values)
makes the step one that cannot be captured, and so does whatever leaves a trace
that the list does not have. At last the function and the step itself are run
on another batch from another state, and must agree in every bit.
"""

from __future__ import annotations

import io
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils.weak import WeakIdKeyDictionary

from keepfit import _keras, nested
from keepfit.engine.torch_reach import is_library_file
from keepfit.engine.torch_recording import (
    Branch,
    NotCapturedError,
    Operation,
    Recording,
    Slot,
    StepRaisedError,
    slots_in,
    with_tensors_as,
)

_MOST_OPERATIONS = 20_000
# They write somewhere, or give something else each time.
_DEEDS = frozenset(
    {print, input, open, time.time, time.time_ns, time.perf_counter, time.perf_counter_ns, time.monotonic, time.sleep}
)
_READINGS = frozenset(
    {"numpy", "tolist", "__array__", "data_ptr", "untyped_storage", "storage", "__dlpack__", "__reduce_ex__"}
)


def record(step: Callable[[Any], Any], batch: Any, *, variables: list[Any]) -> Recording:
    """Run a step once and write it down; the caller puts back what it changed.

    Args:
        step: ``train_step``, ``test_step`` or ``predict_step`` of a model.
        batch: A batch of tensors.
        variables: The tensors that the model's variables hold, which the step may write into.

    Raises:
        NotCapturedError: Says what in the step stands against it.
        StepRaisedError: That it raised by itself.
    """
    leaves = [leaf for leaf in nested.flatten(batch) if leaf is not None]
    if not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
        raise NotCapturedError("the batches are not dense arrays")
    recorder = _Recorder(leaves, variables)
    before = random.getstate(), np.random.get_state(legacy=False)["state"]
    try:
        with _keras.drawing_from(recorder.generator, recorder.branch), _Deeds(recorder), recorder, _Readings(recorder):
            result = step(batch)
        structure = nested.map_structure(recorder.result, result)
    except Exception as error:
        # Keras wraps what is raised in a layer.
        if recorder.refusal is not None:
            raise NotCapturedError(recorder.refusal) from error
        raise StepRaisedError(f"it raised {type(error).__name__}: {error}") from error
    if recorder.refusal is not None:
        raise NotCapturedError(recorder.refusal)
    if repr((random.getstate(), np.random.get_state(legacy=False)["state"])) != repr(before):
        raise NotCapturedError("it draws from a random generator of Python or NumPy")
    return recorder.recording(structure)


class _Recorder(TorchDispatchMode):  # type: ignore[misc] # PyTorch has few annotations
    """Notes every operation that reaches PyTorch's dispatcher."""

    def __init__(self, leaves: list[Any], variables: list[Any]) -> None:
        super().__init__()
        self.refusal: str | None = None
        self._operations: list[Operation] = []
        self._total = 0
        self._slots = WeakIdKeyDictionary()
        self._count = 0
        self._roots: dict[int, int] = {}
        self._writes: set[int] = set()
        self._batch = [self._new(leaf) for leaf in leaves]
        self._variables: dict[int, Any] = {}
        for variable in variables:
            if variable not in self._slots:
                self._variables[self._new(variable)] = variable
        self._outside: dict[int, Any] = {}
        # Those of them that are numbers which the code wrote out, anew in every step.
        self._written_out: set[int] = set()
        # Generators that draw for seeded layers: the list seeds each before it draws.
        self._generators: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        schema = func._schema
        if torch.Tag.data_dependent_output in func.tags:
            self.refuse(f"it reads a tensor into Python ({func.name()})")
        if torch.Tag.inplace_view in func.tags:
            self.refuse(f"it changes the shape of a tensor in place ({func.name()})")
        if torch.Tag.dynamic_output_shape in func.tags and not _is_indexed_by_numbers(schema.name, args):
            self.refuse(f"it makes a tensor whose shape depends on values ({func.name()})")
        if any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values())):
            self.refuse("it draws from a random generator of its own")
        if func is torch.ops.aten.lift_fresh.default and args[0] not in self._slots:
            return self._number(func, args[0])
        operation = self._note(func, args, kwargs)
        self._note_writes(self._shared(schema, args, kwargs, written=True))
        operation.call = _quickest(func, args, kwargs)
        operation.pure = not schema.is_mutable and torch.Tag.nondeterministic_seeded not in func.tags
        operation.foldable = operation.pure and "empty" not in schema.name
        result = func(*args, **kwargs)
        self._note_result(operation, result)
        if any(given.alias_info is not None for given in schema.returns):
            self._share([*self._shared(schema, args, kwargs, written=False), *operation.made()])
        return result

    def _number(self, function: Any, tensor: Any) -> Any:
        """Note a number that the code writes out: a new tensor in each step, which the step may write into."""
        with _disable_current_modes():
            kept = tensor.clone()
        operation = self._note(torch.ops.aten.clone.default, (kept,), {})
        self._written_out.add(operation.args[0].index)
        operation.call, operation.pure, operation.foldable = torch.clone, True, True
        # PyTorch may give back the very tensor.
        result = function(tensor)
        operation.outs.append(self._new(result))
        return result

    def whole(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function that reads a tensor by itself, and note it as one operation."""
        args, kwargs = _without_variables((args, kwargs))
        operation = self._note(function, args, kwargs)
        if function.__name__.endswith("_"):
            self._note_writes(slot.index for slot in slots_in(operation.args))
        with _disable_current_modes():
            result = function(*args, **kwargs)
        self._note_result(operation, result)
        return result

    def generator(self, seed: Any) -> Any:
        """Return a generator for one drawing of a seeded layer, seeded as Keras does."""
        first, second = _keras.draw_seed(seed)
        total = first + second
        generator = torch.Generator(device=total.device)
        self._generators.append(generator)
        operation = self._note(_seed, (generator, total), {})
        with _disable_current_modes():
            _seed(generator, total)
        operation.outs = [None]
        return generator

    def draws(self, generator: Any) -> bool:
        """Return whether a generator is one that the list seeds."""
        return any(generator is each for each in self._generators)

    def branch(self, condition: Any, if_true: Callable[[], Any], if_false: Callable[[], Any]) -> Any:
        """Write down both cases of a condition; Python goes on with the one that holds now."""
        condition = _without_variables(condition)
        if not isinstance(condition, torch.Tensor):
            return if_true() if condition else if_false()
        slot = self._slot(condition)
        with _disable_current_modes():
            holds = bool(condition)
        cases: dict[bool, tuple[list[Operation], Any]] = {}
        before = self._operations
        for case in (not holds, holds):
            self._operations = []
            found = _without_variables(if_true() if case else if_false())
            cases[case] = (self._operations, found)
        self._operations = before
        return self._one_of(slot, cases, holds)

    def _one_of(self, slot: Slot, cases: dict[bool, tuple[list[Operation], Any]], holds: bool) -> Any:
        leaves = {case: nested.flatten(found) for case, (_, found) in cases.items()}
        slots: dict[bool, list[int]] = {True: [], False: []}
        outs: list[int | None] = []
        given = []
        for one, other in zip(leaves[True], leaves[False], strict=True):
            now = one if holds else other
            if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
                if one.requires_grad or other.requires_grad:
                    self.refuse("it differentiates through keras.ops.cond")
                slots[True].append(self._slot(one).index)
                slots[False].append(self._slot(other).index)
                with _disable_current_modes():
                    now = now.detach()
                out = self._new(now)
                outs.append(out)
                self._share([slots[True][-1], slots[False][-1], out])
            elif type(one) is not type(other) or (one is not other and one != other):
                self.refuse("it branches by what a tensor holds")
            given.append(now)
        branches = tuple(Branch(cases[case][0], slots[case]) for case in (True, False))
        self._operations.append(Operation(None, (slot,), {}, outs=outs, single=False, branches=branches))
        return nested.pack_sequence_as(cases[holds][1], given)

    def result(self, value: Any) -> Any:
        """Return what stands for a part of the step's result."""
        value = _without_variables(value)
        return self._slot(value) if isinstance(value, torch.Tensor) else value

    def recording(self, result: Any) -> Recording:
        """Return what was written down."""
        written = {self.root(index) for index in self._writes}
        others = {self.root(index) for index in (*self._batch, *self._variables, *self._outside)}
        return Recording(
            operations=self._operations,
            batch=self._batch,
            values={**self._variables, **self._outside},
            constants={index for index in self._written_out if self.root(index) not in written},
            written=lambda index: self.root(index) in written,
            own=lambda index: self.root(index) not in others,
            result=result,
        )

    def root(self, index: int) -> int:
        """Return the slot that stands for all tensors which share memory with one."""
        while (above := self._roots.get(index, index)) != index:
            index = above
        return index

    def refuse(self, reason: str) -> None:
        """Give up, for a reason."""
        self.refusal = self.refusal or reason
        raise NotCapturedError(self.refusal)

    def _note(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Operation:
        taken, named = with_tensors_as((args, kwargs), self._slot)
        operation = Operation(function, taken, named, call=function)
        self._operations.append(operation)
        self._total += 1
        if self._total > _MOST_OPERATIONS:
            self.refuse(f"it has more than {_MOST_OPERATIONS:,} operations")
        return operation

    def _note_result(self, operation: Operation, result: Any) -> None:
        """Give slots to the tensors that an operation returned."""
        operation.single = not isinstance(result, (tuple, list))
        for value in [result] if operation.single else result:
            if isinstance(value, torch.Tensor):
                operation.outs.append(self._slots[value] if value in self._slots else self._new(value))
            elif value is None:
                operation.outs.append(None)
            else:
                self.refuse(f"it reads a tensor into Python ({operation.function})")

    def _share(self, indices: Sequence[int]) -> None:
        for index in indices[1:]:
            self._roots[self.root(index)] = self.root(indices[0])

    def _note_writes(self, indices: Iterable[int]) -> None:
        self._writes.update(indices)
        outside = {self.root(index) for index in self._outside}
        if any(self.root(index) in outside for index in self._writes):
            self.refuse("it writes into a tensor that is no variable of the model")

    def _new(self, tensor: Any) -> int:
        self._slots[tensor] = index = self._count
        self._count += 1
        return index

    def _slot(self, tensor: Any) -> Slot:
        """Return a tensor's slot; one that no operation made is held by the step's code, or a number written out."""
        found = self._slots.get(tensor)
        if found is None:
            memory = _memory(tensor)
            sharing = [self._slots[other] for other in list(self._slots) if _memory(other) == memory]
            lasting = {self.root(index) for index in (*self._variables, *self._outside)}
            if any(self.root(index) not in lasting for index in sharing):
                self.refuse("it shares a tensor's memory by a way that is not seen")
            found = self._new(tensor)
            self._outside[found] = tensor
            self._share([*sharing[:1], found])
        return Slot(found)

    def _shared(self, schema: Any, args: Any, kwargs: Any, *, written: bool) -> Iterator[int]:
        """Yield the slots of what an operation may return parts of, or with ``written`` of what it writes into."""
        for position, argument in enumerate(schema.arguments):
            if argument.alias_info is None or (written and not argument.alias_info.is_write):
                continue
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            for tensor in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(tensor, torch.Tensor):
                    yield self._slots[tensor]


class _Readings(TorchFunctionMode):  # type: ignore[misc]
    """Sees what never reaches the dispatcher: tensors read as memory, and functions that read one by themselves."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _READINGS:
            self._recorder.refuse(f"it reads a tensor into Python ({name})")
        if self._recorder.draws(kwargs.get("generator")):
            return self._recorder.whole(func, args, kwargs)
        by_itself = isinstance(kwargs.get("alpha"), (torch.Tensor, keras.Variable)) or _checks_range(func, args, kwargs)
        if by_itself and not (torch.is_grad_enabled() and _needs_gradient((args, kwargs))):
            return self._recorder.whole(func, args, kwargs)
        return func(*args, **kwargs)


class _Deeds:
    """Sees what the user's code does besides computing: a list of operations would do it once and never again."""

    def __init__(self, recorder: _Recorder) -> None:
        self._recorder = recorder
        self._before: Any = None

    def __enter__(self) -> None:
        self._before = sys.getprofile()
        sys.setprofile(self._look)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)

    def _look(self, frame: Any, event: str, called: Any) -> None:
        deed, code = None, frame.f_code
        if event == "c_call" and (called in _DEEDS or isinstance(called.__self__, io.IOBase)):
            deed = called.__name__
        elif event == "call" and frame.f_globals.get("__name__") == "logging" and frame.f_back is not None:
            deed, code = "logging", frame.f_back.f_code
        if deed is not None and not is_library_file(code.co_filename):
            self._recorder.refusal = self._recorder.refusal or f"it does more than compute ({deed})"


class _Seen(Exception):
    """What a call came to at the dispatcher."""


class _Probe(TorchDispatchMode):  # type: ignore[misc]
    """Tells which operation a call comes to, and lets it not happen."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise _Seen(func)


def _quickest(func: Any, args: Any, kwargs: Any) -> Any:
    """Return the quickest way to call an operation: PyTorch's own function, where that comes to the same."""
    space, _, name = func._schema.name.partition("::")
    if space != "aten":
        return func
    for holder in (torch, torch.Tensor, torch._C._nn):
        found = getattr(holder, name, None)
        if type(found).__name__ not in ("builtin_function_or_method", "method_descriptor"):
            continue
        try:
            with _Probe():
                found(*args, **kwargs)  # type: ignore[misc]
        except _Seen as seen:
            if seen.args[0] is func:
                return found
        except (TypeError, RuntimeError, ValueError):
            continue
    return func


def _checks_range(func: Any, args: Any, kwargs: Any) -> bool:
    """Return whether a call reads its indices only to see that they are in range."""
    if func is not torch.nn.functional.one_hot:
        return False
    classes = args[1] if len(args) > 1 else kwargs.get("num_classes", -1)
    return isinstance(classes, int) and classes > 0


def _is_indexed_by_numbers(name: str, args: Any) -> bool:
    if name not in ("aten::index", "aten::_unsafe_index"):
        return False
    return not any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])


def _needs_gradient(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_needs_gradient, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_needs_gradient, value))
    return bool(getattr(_without_variables(value), "requires_grad", False))


def _memory(tensor: Any) -> Any:
    with _disable_current_modes():
        return tensor.device, torch.Tensor.untyped_storage(tensor)._cdata


def _seed(generator: Any, total: Any) -> None:
    generator.manual_seed(int(total) & 0xFFFFFFFF)


def _without_variables(value: Any) -> Any:
    if isinstance(value, keras.Variable):
        return value.value
    if isinstance(value, dict):
        return {name: _without_variables(item) for name, item in value.items()}
    return type(value)(map(_without_variables, value)) if type(value) in (list, tuple) else value
