"""The captured steps of a model: made where they are right, used while they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import torch

from keepfit import _keras, nested, randomness
from keepfit.engine import torch_graph
from keepfit.engine.program import ProgramKey
from keepfit.engine.torch_capture import record
from keepfit.engine.torch_graph import GraphProgram
from keepfit.engine.torch_program import Program
from keepfit.engine.torch_recording import NotCapturedError, StepRaisedError
from keepfit.engine.torch_watch import Watch, has_hooks
from keepfit.logs import loss_in
from keepfit.state import Variables, unbuilt_optimizers, variables_of

# Batches of another shape than those of `prepare` are captured when they have come so often.
_SEEN_BEFORE = 8
# A model whose attributes change again and again is not captured again and again.
_MOST_CHANGES = 8
_MOST_PROGRAMS = 32
_MOST_SHAPES = 1024


@dataclass
class _Entry:
    """What is known of one step for batches of one shape."""

    watch: Watch | None
    tensors: list[Any]
    program: Program | GraphProgram | None
    reason: str = ""

    def holds(self, tensors: list[Any]) -> bool:
        """Return whether all is as it was when the step was captured, or found not to be capturable."""
        if not _are(self.tensors, tensors) or not (self.program is None or self.program.is_in_place()):
            return False
        return self.watch is None or self.watch.change() is None


class Library:
    """Programs by step and shape of the batch.

    Args:
        model: The model whose steps they are.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._key: ProgramKey | None = None
        self._entries: dict[Any, _Entry] = {}
        self._seen: dict[Any, int] = {}
        self._changes: dict[str, int] = {}
        self._tried: set[Any] = set()

    def program(
        self,
        name: str,
        step: Callable[[Any], Any],
        batch: Any,
        variables: Variables,
        key: ProgramKey | None,
        *,
        steps: int = _SEEN_BEFORE,
    ) -> Program | GraphProgram | None:
        """Return the step's program for batches like this one, None where it runs as it is written.

        Args:
            name: ``"train"``, ``"test"`` or ``"predict"``.
            step: The step.
            batch: A batch of tensors.
            variables: The model's variables.
            key: What the program depends on beside attributes.
            steps: How many steps it is asked for; a few of a shape seen seldom do not pay.

        Raises:
            Exception: What the step raises on the batch, captured or not.
        """
        self._turn_to(key)
        place = name, _form(batch)
        entry = self._entries.get(place)
        tensors = [_keras.value(v) for v in variables.all()]
        if entry is not None:
            if entry.holds(tensors):
                return entry.program
            del self._entries[place]
            self._changes[name] = self._changes.get(name, 0) + 1
            steps = _SEEN_BEFORE
        if self._changes.get(name, 0) > _MOST_CHANGES or len(self._entries) >= _MOST_PROGRAMS:
            return None
        seen = self._seen.get(place, 0) + steps
        if seen < _SEEN_BEFORE:
            if len(self._seen) >= _MOST_SHAPES:
                self._seen.clear()
            self._seen[place] = seen
            return None
        entry = self._entries[place] = self._captured(step, batch, tensors)
        return entry.program

    def try_out(
        self, name: str, step: Callable[[Any], Any], batch: Any, variables: Variables, key: ProgramKey | None
    ) -> None:
        """Run a step that nobody captures once for batches like this one, and leave no trace.

        Raises:
            Exception: What the step raises on the batch.
        """
        self._turn_to(key)
        place = name, _form(batch)
        if place in self._tried:
            return
        try:
            watch = Watch(self._model)
        except NotCapturedError:  # what it changes could not be put back
            return
        self._run_once(step, batch, watch, [_keras.value(v) for v in variables.all()])
        if len(self._tried) >= _MOST_SHAPES:
            self._tried.clear()
        self._tried.add(place)

    def build_optimizers(self, step: Callable[[Any], Any], batch: Any) -> None:
        """Build the optimizers that a step of the model's own would build when it first runs; leave no other trace.

        A capture would make their slots, and could not put that back. A step that
        cannot be captured builds them itself.
        """
        while waiting := unbuilt_optimizers(self._model):
            # With the slots of those that were built since, which the step goes through before it comes to the next.
            tensors = [_keras.value(v) for v in variables_of(self._model).all()]
            with _builds_told(waiting):
                try:
                    watch = Watch(self._model)
                except NotCapturedError:
                    return
                state = _State(tensors)
                told: _Builds | None = None
                try:
                    step(batch)
                except _Builds as found:
                    told = found
                except Exception:  # noqa: BLE001 - who trains with it will be told
                    return
                finally:
                    watch.put_back()
                    state.put_back()
            if told is None:
                return
            told.optimizer.build(told.variables)

    def reason(self, name: str, batch: Any) -> str:
        """Return why there is no program for a step, or how the program is launched where there are two ways."""
        entry = self._entries.get((name, _form(batch)))
        return "its attributes change all the time" if entry is None else entry.reason

    def _captured(self, step: Callable[[Any], Any], batch: Any, tensors: list[Any]) -> _Entry:
        """Capture a step and leave no trace: what running it changes is put back."""
        try:
            watch = Watch(self._model)
        except NotCapturedError as error:
            return _Entry(None, tensors, None, str(error))
        state = _State(tensors)
        entry = _Entry(watch, tensors, None)
        has_raised = False
        try:
            self._capture(entry, step, batch, watch)
        except NotCapturedError as error:
            entry.reason = str(error)
            has_raised = isinstance(error, StepRaisedError)
        finally:
            watch.put_back()
            state.put_back()
        if has_raised:
            self._run_once(step, batch, watch, tensors)
        if entry.program is not None and (change := entry.watch.change()) is not None:  # type: ignore[union-attr]
            # Its first step is not like those that follow, and has yet to be run.
            return _Entry(Watch(self._model), tensors, None, f"it settles {change} when it first runs")
        return entry

    def _turn_to(self, key: ProgramKey | None) -> None:
        """Forget what was found out about steps of another key."""
        if key != self._key:
            self._key = key
            self._entries.clear()
            self._seen.clear()
            self._changes.clear()
            self._tried.clear()

    def _run_once(self, step: Callable[[Any], Any], batch: Any, watch: Watch, tensors: list[Any]) -> None:
        """Run a step as it is written, for what it raises; leave no trace."""
        state = _State(tensors)
        try:
            step(batch)
        finally:
            watch.put_back()
            state.put_back()

    def _capture(self, entry: _Entry, step: Callable[[Any], Any], batch: Any, watch: Watch) -> None:
        if has_hooks(self._model):
            raise NotCapturedError("a module in it has hooks")
        recording = record(step, batch, variables=entry.tensors)
        if watch.change() is not None:
            # A step may settle things when it runs for the first time, and they count once they are settled.
            entry.watch = Watch(self._model)
            recording = record(step, batch, variables=entry.tensors)
        self._must_be_settled(entry)
        program = Program(recording, loss_in)
        self._check(program, step, batch, entry.tensors)
        self._must_be_settled(entry)
        entry.program = program
        if torch_graph.is_graphed(entry.tensors):
            entry.program, entry.reason = self._as_graph(program, step, batch, entry.tensors)
            self._must_be_settled(entry)

    def _as_graph(
        self, program: Program, step: Callable[[Any], Any], batch: Any, tensors: list[Any]
    ) -> tuple[Program | GraphProgram, str]:
        """Return the program as one graph where it can be, and how it is launched."""
        leaves = [leaf for leaf in nested.flatten(batch) if leaf is not None]
        try:
            graph = GraphProgram(program, leaves)
            self._check(graph, step, batch, tensors)
        except (NotCapturedError, RuntimeError) as error:
            return program, f"launched one by one: as a CUDA graph {error}"
        return graph, "launched as one CUDA graph"

    def _must_be_settled(self, entry: _Entry) -> None:
        if entry.watch is not None and (change := entry.watch.change()) is not None:
            entry.watch = None  # nor will it ever be
            raise NotCapturedError(f"it changes {change}")

    def _check(
        self, program: Program | GraphProgram, step: Callable[[Any], Any], batch: Any, tensors: list[Any]
    ) -> None:
        """Check that program and step agree in every bit, on another batch and state than the captured ones."""
        other = nested.map_structure(lambda leaf: None if leaf is None else torch.flip(leaf, (0,)), batch)
        leaves = [leaf for leaf in nested.flatten(other) if leaf is not None]
        before = _State(tensors)
        try:
            expected = nested.map_structure(_copy, step(other))
        except Exception as error:
            raise NotCapturedError(f"it raised {type(error).__name__}: {error}") from error
        after = _State(tensors)
        before.put_back()
        found = program(leaves)
        if not (after.is_now() and _alike(expected, found)):
            raise NotCapturedError("its operations alone do not give what it gives")


class _Builds(BaseException):
    """A step is about to build an optimizer; no step of the user's may take it for an error."""

    def __init__(self, optimizer: Any, variables: list[Any]) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.variables = variables


@contextmanager
def _builds_told(optimizers: list[Any]) -> Iterator[None]:
    """Let a step end where it is about to build one of these."""

    def telling(optimizer: Any) -> Callable[[Any], None]:
        def build(variables: Any) -> None:
            raise _Builds(optimizer, list(variables))

        return build

    for each in optimizers:
        vars(each)["build"] = telling(each)
    try:
        yield
    finally:
        for each in optimizers:
            del vars(each)["build"]


class _State:
    """What the tensors and the random generators held at some time."""

    def __init__(self, tensors: list[Any]) -> None:
        self._tensors = tensors
        self._values = [tensor.detach().clone() for tensor in tensors]
        self._gradients = [tensor.grad for tensor in tensors]
        self._generators = randomness.take()

    def put_back(self) -> None:
        """Let all of them hold it again."""
        with torch.no_grad():
            for tensor, value in zip(self._tensors, self._values, strict=True):
                tensor.copy_(value)
        for tensor, gradient in zip(self._tensors, self._gradients, strict=True):
            if tensor.is_leaf:
                tensor.grad = gradient
        randomness.restore(self._generators)

    def is_now(self) -> bool:
        """Return whether they hold the same bits now."""
        same = all(_same(now, then) for now, then in zip(self._tensors, self._values, strict=True))
        return same and randomness.take() == self._generators


def _form(batch: Any) -> Any:
    """Return what batches of one form and shape have in common, hashable."""
    if isinstance(batch, torch.Tensor):
        return tuple(batch.shape), batch.dtype
    if isinstance(batch, dict):
        return dict, tuple((name, _form(item)) for name, item in batch.items())
    if isinstance(batch, (list, tuple)):
        return type(batch), tuple(map(_form, batch))
    return type(batch)


def _are(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _copy(value: Any) -> Any:
    if isinstance(value, keras.Variable):
        value = _keras.value(value)
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _alike(one: Any, other: Any) -> bool:
    pairs = zip(nested.flatten(one), nested.flatten(other), strict=True)
    return all(_same(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def _same(one: Any, other: Any) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(torch.equal(one.detach().reshape(-1).view(torch.uint8), other.detach().reshape(-1).view(torch.uint8)))
