"""Steps on TensorFlow: many in one call of a function, or one by one."""

from __future__ import annotations

import functools
import os
import platform
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keepfit import _keras, nested, randomness
from keepfit.engine import graph
from keepfit.engine.base import Block, Engine, Outcome, Plan
from keepfit.engine.host import host_number, stacked_rows
from keepfit.engine.program import ProgramKey, program_key, programs_of
from keepfit.engine.tensors import (
    Spec,
    bytes_of,
    concatenated,
    host_output,
    is_dense,
    leaves_of,
    own_tensor,
    row_bytes,
    tensor,
)
from keepfit.errors import EngineError
from keepfit.logs import flat, loss_in
from keepfit.state import Variables, unbuilt_optimizers, variables_of

# A block is large enough that a dispatch costs little and small enough that it fits a cache.
_BLOCK_BYTES = 4 << 20
_BLOCK_STEPS = 256
# Holding a value makes the next step write a new buffer: 0.5 s for 230 MB, against 1.6 s for the step.
_HELD_BYTES = 16 << 20
# Where programs are kept: that they were traced under a summary writer.
_WRITER = "writer"


class TensorFlowOutcome(Outcome):
    """Logs of a dispatch on TensorFlow, and which step first had a loss that was not finite."""

    def __init__(self, logs: Any, bad: Any, count: int) -> None:
        self._logs = logs if isinstance(logs, dict) else {"loss": logs}
        self._bad = bad
        self.count = count

    def wait(self) -> None:
        """Return when the device has finished."""
        self.first_nonfinite()

    def logs(self) -> dict[str, Any]:
        """Return the last step's logs."""
        return {name: host_number(value) for name, value in flat(self._logs).items()}

    def first_nonfinite(self) -> int | None:
        """Return the first step whose loss was NaN or infinite."""
        if isinstance(self._bad, list):
            return next((index for index, finite in enumerate(self._bad) if not bool(finite)), None)
        index = int(self._bad)
        return None if index < 0 else index


class TensorFlowEngine(Engine):
    """The TensorFlow engine.

    Args:
        model: A compiled Keras model; built by `build`.
        resident: Keep arrays on the device and gather batches there; by default where the device is not the CPU.

    Raises:
        EngineError: The model was made for several devices.
    """

    def __init__(self, model: Any, *, resident: bool | None = None) -> None:
        _check_one_device(model)
        self.model = model
        self._resident = not _is_on_cpu() if resident is None else resident
        self._on_device: list[tuple[Any, Any]] = []
        self._key: ProgramKey | None = None
        self._kind = "stepwise"
        self._spec: Spec | None = None  # of the batches that were prepared for
        self._kept: OrderedDict[ProgramKey, dict[Any, Any]] = OrderedDict()
        self._programs: dict[Any, Any] = {}
        self._is_large = False
        self._lost = False
        self._heeds_writer = False

    def facts(self) -> dict[str, Any]:
        """Return backend, versions, device, threads and precision."""
        return _facts()

    def build(self, batch: Any, *, optimizer: bool = True) -> Variables:
        """Build the model; a changed model (compiled again, layers frozen) gives new variables and programs."""
        if _keras.is_only_stepped(self.model) and not self.model.run_eagerly:
            self._build_by_step(batch)
        else:
            _keras.build(self.model, batch, optimizer=optimizer)
        return self.refresh()

    def _build_by_step(self, batch: Any) -> None:
        """Build a model that cannot be called, as Keras does on TensorFlow: its step makes what it uses when traced."""
        if not _keras.is_built_within(self.model):
            self.refresh()
            self._step("train", Spec(nested.map_structure(_typed, batch)))
        self.model.built = True

    def refresh(self) -> Variables:
        """Look up the variables anew where the model has changed."""
        # A user may write into arrays between two fits.
        self._on_device.clear()
        self._lost = False
        key = program_key(self.model)
        if key != self._key:
            self._key = key
            self.variables = variables_of(self.model)
            self._is_large = bytes_of([variable.value for variable in self.variables.all()]) > _HELD_BYTES
            self._programs = programs_of(key, self._kept)
        self._forget_writers()
        return self.variables

    def heed_settings(self) -> None:
        """Trace anew where a callback has given a layer another setting."""
        if self._key is not None and self._key.has_other_settings(program_key(self.model)):
            self.refresh()
            self._heeds_writer = False

    def prepare(self, batch: Any, *, plan: str | None = None, verb: str = "train") -> Plan:
        """Choose between one step a dispatch and many; trace the step, which says what the model cannot take."""
        self._heeds_writer = False
        self._kind, reason = self._choose(batch, plan)
        if self._kind != "eager":
            self._spec = Spec(nested.map_structure(_typed, batch))
            self._step(verb, self._spec)
        return Plan(self._kind, reason, _facts())

    def inexact(self) -> list[str]:
        """Return what a traced training step draws from or writes to that no checkpoint can hold."""
        if self._kind == "eager" or self._spec is None:
            return []
        key = ("inexact", self._spec)
        if key not in self._programs:
            self._programs[key] = self._inexact(self._step("train", self._spec))
        return list(self._programs[key])

    def _inexact(self, step: _Step) -> list[str]:
        found = []
        if drawn := graph.hidden_generators(step.operations):
            found.append(
                f"the training step draws random numbers whose state TensorFlow does not show ({', '.join(drawn)}): "
                "after a kill they begin anew. keras.random with a SeedGenerator is exact"
            )
        if others := graph.foreign_variables(step.function, self._known_variables()):
            found.append(
                f"the training step uses variables that are not the model's ({', '.join(others)}): they are not kept. "
                "Make them attributes of the model, as keras.Variable or through a metric in its `metrics`"
            )
        return found

    def most_steps(self, batch: Any) -> int:
        """Return the number of batches in a full block; eager code may fail in any step, and each is counted."""
        if self._kind == "eager":
            return 1
        return max(1, min(_BLOCK_STEPS, _BLOCK_BYTES // max(bytes_of(batch), 1)))

    def train(self, block: Block) -> Outcome:
        """Run training steps."""
        # XLA writes variables when all has been computed.
        atomic = self._kind != "eager" and self.model.jit_compile and block.count == 1
        self.unsettled = True
        try:
            with nullcontext() if atomic else self._whole():
                return self._run("train", block)
        except Exception:
            self.unsettled = False
            raise

    def test(self, block: Block) -> Outcome:
        """Run test steps."""
        return self._run("test", block)

    def release_data(self) -> None:
        """Let go of the arrays of the last block, and of their copies on the device."""
        self._on_device.clear()

    def is_lost(self) -> bool:
        """Return whether a dispatch failed on a state too large to be held for that, or was cut off uncounted."""
        return self._lost or self.unsettled

    def predict(self, block: Block) -> list[Any]:
        """Return the outputs for every batch."""
        self.variables.known.forget()
        outputs = []
        for batch in self._batches(block):
            result = self.model.predict_step(batch) if self.model.run_eagerly else self._called("predict", batch)
            outputs.append(nested.map_structure(host_output, result))
        return outputs

    def joined(self, outputs: list[Any]) -> Any:
        """Return the outputs of all batches as one, ragged where their rows differ in length."""
        return keras.tree.map_structure(concatenated, *outputs)

    # Which plan

    def _choose(self, batch: Any, plan: str | None) -> tuple[str, str]:
        if self.model.run_eagerly:
            return "eager", "the model was compiled with run_eagerly=True"
        if not all(is_dense(leaf) for leaf in leaves_of(batch)):
            return "stepwise", "the batches are not dense arrays"
        if plan is not None:
            return plan, "pinned with plan="
        return "fused", "a loop in a function is never slower than a call for each step"

    # Programs, each traced once

    def _heed_writer(self) -> None:
        """Trace anew under a first summary writer: what was traced without one writes its summaries nowhere."""
        self._heeds_writer = True
        if self._kind != "eager" and _WRITER not in self._programs and graph.has_summary_writer():
            self._programs.clear()
            self._programs[_WRITER] = True

    def _forget_writers(self) -> None:
        """Drop programs that write to the writers of the last fit, which their callback has closed."""
        if _WRITER in self._programs:
            steps = [program for program in self._programs.values() if isinstance(program, _Step)]
            if any(graph.writes_summaries(step.operations) for step in steps):
                self._programs.clear()

    def _run(self, name: str, block: Block) -> Outcome:
        if not self._heeds_writer:
            self._heed_writer()
        if self._kind == "fused":
            data = self._stack(block)
            loop, known = self._loop(name, data), self.variables.known
            logs, bad, left = loop.call(*leaves_of(data), _count(block.count), _flag(known.hand_over(loop.begins)))
            known.saw(loop.returned, left)
            return TensorFlowOutcome(logs, bad, block.count)
        self.variables.known.forget()
        logs, finite = {}, []
        for batch in self._batches(block):
            logs, is_finite = self._eager(name, batch) if self._kind == "eager" else self._called(name, batch)
            finite.append(is_finite)
        return TensorFlowOutcome(logs, finite, block.count)

    def _eager(self, name: str, batch: Any) -> Any:
        logs = getattr(self.model, f"{name}_step")(batch)
        return logs, np.all(np.isfinite(np.asarray(loss_in(logs))))

    def _called(self, name: str, batch: Any) -> Any:
        return self._step(name, Spec(batch)).call(*leaves_of(batch))

    def _step(self, name: str, spec: Spec) -> _Step:
        key = (name, spec)
        if key not in self._programs:
            waiting = name == "train" and unbuilt_optimizers(self.model)
            self._programs[key] = _Step(self.model, name, spec)
            if waiting:
                self._list_anew()
        found: _Step = self._programs[key]
        return found

    def _list_anew(self) -> None:
        """List what a step of the model's own has built as it was traced; what was traced so far stays."""
        key = program_key(self.model)
        self._kept[key] = self._programs
        if self._key is not None:
            self._kept.pop(self._key, None)
        self._key = key
        self.variables.known.forget()
        self.variables = variables_of(self.model)

    def _loop(self, name: str, data: Any) -> _Loop:
        """Return a program whose number of steps is an argument, so that cutting training changes no bit."""
        key = ("loop", name, Spec(data))
        if key not in self._programs:
            one = Spec(nested.map_structure(lambda leaf: None if leaf is None else leaf[0], data))
            step = self._step(name, one)
            # Those of a large state are looked at once in a long while, and a program is called often.
            variables = self.variables if name == "train" and not self._is_large else None
            begins = self.metrics_begin() if variables is not None else []
            self._programs[key] = _Loop(
                step, Spec(data), compiled=bool(self.model.jit_compile), variables=variables, begins=begins
            )
        found: _Loop = self._programs[key]
        return found

    # Values in and out of the model's variables

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Put every variable back where a step fails, or say that a large state is half-written."""
        if self._is_large:
            try:
                yield
            except Exception as error:
                self._lost = True
                raise EngineError(
                    f"A step failed and left the model's state half-written: {error}. "
                    "Call fit again: the run goes on from its last checkpoint."
                ) from error
            return
        known = self.variables.known
        before = known.tensors(self.variables.all())
        try:
            yield
        except BaseException:
            known.put_back(before)
            self.unsettled = False
            raise

    def _known_variables(self) -> Iterator[Any]:
        yield from map(_keras.value, self.variables.all())
        yield from randomness.tensorflow_variables()

    # Batches

    def _batches(self, block: Block) -> Iterator[Any]:
        if block.arrays is None:
            for batch in block.batches:
                yield nested.map_structure(own_tensor, batch)
            return
        stack = self._gathered(block, capacity=block.count)
        for index in range(block.count):
            yield nested.map_structure(lambda leaf: None if leaf is None else tensor(leaf[index]), stack)  # noqa: B023

    def _stack(self, block: Block) -> Any:
        """Return a block's data with axes (step, sample, …), the step axis as long in every block of one kind."""
        if block.arrays is None:
            return keras.tree.map_structure(
                lambda *leaves: None if leaves[0] is None else tensor(np.stack(leaves)), *block.batches
            )
        size, rows = block.samples, block.rows
        batch_bytes = row_bytes(block.arrays) * size
        capacity = max(1, min(_BLOCK_STEPS, _BLOCK_BYTES // max(batch_bytes, 1)))
        if self._resident and rows is not None:
            padded = np.zeros(capacity * size, np.int64)
            padded[: block.count * size] = rows
            at = tf.constant(padded.reshape(capacity, size))
            return nested.map_structure(
                lambda leaf: None if leaf is None else tf.gather(leaf, at), self._device_arrays(block.arrays)
            )
        return nested.map_structure(_tensor_or_none, self._gathered(block, capacity=capacity))

    def _gathered(self, block: Block, *, capacity: int) -> Any:
        """Return a block's rows as batches on the host, the step axis of length ``capacity``."""
        rows, size = block.rows, block.samples
        return nested.map_structure(
            lambda leaf: None if leaf is None else stacked_rows(leaf, rows, size=size, capacity=capacity), block.arrays
        )

    def _device_arrays(self, arrays: Any) -> Any:
        """Return the arrays on the device: sent once for each fit, training and validation data."""
        for host, device in self._on_device:
            if host is arrays:
                return device
        device = nested.map_structure(
            lambda leaf: None if leaf is None else tf.convert_to_tensor(np.asarray(leaf)), arrays
        )
        self._on_device = [*self._on_device[-1:], (arrays, device)]
        return device


class _Step:
    """One step of a model, traced for batches of one spec.

    Args:
        model: The model, built.
        name: ``"train"``, ``"test"`` or ``"predict"``.
        spec: Of the batches.
    """

    def __init__(self, model: Any, name: str, spec: Spec) -> None:
        step = getattr(model, f"{name}_step")

        def function(*leaves: Any) -> Any:
            result = step(spec.pack(leaves))
            return result if name == "predict" else (result, _is_finite(loss_in(result)))

        traced = tf.function(function, jit_compile=bool(model.jit_compile), autograph=False)
        self.function = traced.get_concrete_function(*spec.types)
        graph.forget_gradients(self.function)
        self.call = graph.call_of(self.function)

    @functools.cached_property
    def operations(self) -> frozenset[str]:
        """The kinds of operations in the step."""
        return graph.operations(self.function)


class _Loop:
    """A program of stacked batches and a number of steps: the last logs, and the first step that failed.

    Args:
        step: The step that it runs.
        spec: Of the stacked batches.
        compiled: Whether the model asks for XLA.
        variables: Those that the program may write or return beside what the step does with them, which takes less
            time than to do so before and after it; None for none.
        begins: Metrics of these, each with the value that it begins an epoch with.

    Attributes:
        returned: Variables whose values after the last step it returns: none on devices, where a variable's tensor
            may have to be copied for it, and none where XLA compiles the loop.
        begins: Id of a metric -> the value that it is given first, where the program is called so.
    """

    def __init__(
        self,
        step: _Step,
        spec: Spec,
        *,
        compiled: bool,
        variables: Variables | None,
        begins: list[tuple[Any, Any]],
    ) -> None:
        logs_type, _ = step.function.structured_outputs
        types = tf.nest.flatten(logs_type)
        # Of a loop that XLA compiles nothing is left to call from step to step.
        whole = compiled and _is_on_cpu() and not graph.is_slow_in_compiled_loop(step.operations)
        if whole or variables is None or not _is_on_cpu():
            self.returned, begins = [], []
        else:
            self.returned = variables.all()
        self.begins = {id(variable): value for variable, value in begins}
        left = [_keras.value(variable) for variable in self.returned]
        first = [(_keras.value(variable), value.host()) for variable, value in begins]

        def run(*arguments: Any) -> Any:
            *data, count, begin = arguments
            for variable, value in first:
                variable.assign(tf.where(begin, value, variable))

            def body(index: Any, bad: Any, *_: Any) -> Any:
                logs, finite = step.function(*[leaf[index] for leaf in data])
                failed = tf.logical_and(bad < 0, tf.logical_not(finite))
                return index + 1, tf.where(failed, index, bad), *tf.nest.flatten(logs)

            zeros = [tf.zeros([extent or 0 for extent in each.shape], each.dtype) for each in types]
            start = (tf.constant(0), tf.constant(-1), *zeros)
            shapes = (tf.TensorShape([]), tf.TensorShape([]), *[each.shape for each in types])
            _, bad, *logs = tf.while_loop(lambda index, *_: index < count, body, start, shapes)
            return tf.nest.pack_sequence_as(logs_type, logs), bad, [variable.read_value() for variable in left]

        traced = tf.function(run, jit_compile=whole, autograph=False)
        signature = (*spec.types, tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.bool))
        self.call = graph.call_of(traced.get_concrete_function(*signature))


@functools.cache
def _count(number: int) -> Any:
    return tf.constant(number, tf.int32)


@functools.cache
def _flag(value: bool) -> Any:
    return tf.constant(value)


def _is_finite(loss: Any) -> Any:
    value = tf.convert_to_tensor(loss)
    return tf.reduce_all(tf.math.is_finite(value)) if value.dtype.is_floating else tf.constant(True)


def _tensor_or_none(leaf: Any) -> Any:
    return None if leaf is None else tensor(leaf)


def _typed(leaf: Any) -> Any:
    """Return something of the shape and dtype that the leaf has as a tensor."""
    return leaf if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiub" else _tensor_or_none(leaf)


def _check_one_device(model: Any) -> None:
    strategy = getattr(model, "distribute_strategy", None)
    replicas = getattr(strategy, "num_replicas_in_sync", 1)
    if replicas > 1:
        raise EngineError(
            f"The model was made under {type(strategy).__name__} with {replicas} replicas; keepfit trains on one "
            "device. Nothing was changed. Make the model outside of the strategy's scope."
        )


@functools.cache
def _is_on_cpu() -> bool:
    return not (tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("TPU"))


@functools.cache
def _device_facts() -> dict[str, Any]:
    devices = tf.config.list_logical_devices()
    device = next((each for each in devices if each.device_type != "CPU"), devices[0])
    return {
        "backend": "tensorflow",
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "python": platform.python_version(),
        "device": f"{device.device_type.lower()}: {device.name}",
        "threads": os.cpu_count(),
    }


def _facts() -> dict[str, Any]:
    return {**_device_facts(), "precision": keras.config.floatx()}
