"""Steps on JAX: many in one dispatch, or one by one."""

from __future__ import annotations

import functools
import os
import platform
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax import lax
from jax.extend.core import jaxpr_as_fun

from keepfit import _keras, live
from keepfit.engine.base import Block, Engine, Outcome, Plan
from keepfit.engine.cache import use_compilation_cache
from keepfit.engine.changed import Changed
from keepfit.engine.host import host_number, owned, stacked_rows
from keepfit.engine.program import ProgramKey, program_key, programs_of
from keepfit.errors import EngineError
from keepfit.logs import flat, loss_in
from keepfit.state import Variables, variables_of

# A block is large enough that a dispatch costs little and small enough that
# gathering the next one hides behind it.
_BLOCK_BYTES = 4 << 20
_BLOCK_STEPS = 128
# A state up to this size is written anew by every dispatch, which costs less than to find out who else holds it;
# a larger one is overwritten in place, so that it need not fit the device's memory twice.
_IN_PLACE_BYTES = 1 << 20
_MANY_COPIES = 4


def _in_open_runs() -> set[int]:
    """Return the ids of the variables of open runs: what a run keeps of a fit are the arrays that they held."""
    listed = [vars(run.engine).get("variables") for run in live.open_runs()]
    return {id(variable) for variables in listed if variables is not None for variable in variables.all()}


class JaxOutcome(Outcome):
    """Logs of a dispatch on JAX, and which step first had a loss that was not finite."""

    def __init__(self, logs: Any, bad: Any, count: int) -> None:
        self._logs = logs if isinstance(logs, dict) else {"loss": logs}
        self._bad = bad
        self.count = count

    def wait(self) -> None:
        """Block until the device has finished."""
        jax.block_until_ready((self._logs, self._bad))

    def logs(self) -> dict[str, Any]:
        """Return the last step's logs."""
        return {name: host_number(value) for name, value in flat(self._logs).items()}

    def first_nonfinite(self) -> int | None:
        """Return the first step whose loss was NaN or infinite."""
        if isinstance(self._bad, list):
            return next((i for i, loss in enumerate(self._bad) if not np.all(np.isfinite(np.asarray(loss)))), None)
        index = int(self._bad)
        return None if index < 0 else index


class JaxEngine(Engine):
    """The JAX engine.

    Args:
        model: A compiled Keras model; built by `build`.
        resident: Keep arrays on the device and gather batches there; by default where the device is not the CPU.
    """

    def __init__(self, model: Any, *, resident: bool | None = None) -> None:
        use_compilation_cache()
        _keras.donate_copies(_in_open_runs)
        self.model = model
        self._resident = jax.default_backend() != "cpu" if resident is None else resident
        self._on_device: tuple[Any, Any] = (None, None)
        self._key: ProgramKey | None = None
        self._kind = "stepwise"
        self._kept: OrderedDict[ProgramKey, dict[Any, Any]] = OrderedDict()
        self._programs: dict[Any, Any] = {}
        self._in_place = True
        # The arrays that the last dispatch put into each variable: nobody else has them, so they may be donated.
        self._made: dict[int, Any] = {}
        self._shared: dict[int, Any] = {}

    def facts(self) -> dict[str, Any]:
        """Return backend, versions, device, threads and precision."""
        return _facts()

    def build(self, batch: Any, *, optimizer: bool = True) -> Variables:
        """Build the model; a changed model (compiled again, layers frozen) gives new variables and programs."""
        _keras.build(self.model, batch, optimizer=optimizer)
        return self.refresh()

    def refresh(self) -> Variables:
        """Look up the variables anew where the model has changed."""
        key = program_key(self.model)
        if key != self._key:
            self._key = key
            self.variables = variables_of(self.model)
            self._in_place = sum(_keras.value(v).nbytes for v in self.variables.all()) > _IN_PLACE_BYTES
            live = {id(variable) for variable in self.variables.all()}
            self._made = {index: array for index, array in self._made.items() if index in live}
            self._programs = programs_of(key, self._kept)
        return self.variables

    def heed_settings(self) -> None:
        """Compile anew where a callback has given a layer another setting."""
        if self._key is not None and self._key.has_other_settings(program_key(self.model)):
            self.refresh()

    def prepare(self, batch: Any, *, plan: str | None = None, verb: str = "train") -> Plan:
        """Choose between one step a dispatch and many; a pure function of the program and the device."""
        self._kind, reason = self._choose(batch, plan, verb)
        if self._kind != "eager" and _is_dense(batch) and keras.distribution.distribution() is None:
            # A model that cannot take such batches says so now, not amid a fit.
            self._seen(verb, batch)
        return Plan(self._kind, reason, _facts())

    def most_steps(self, batch: Any) -> int:
        """Return the number of batches in a full block; eager code may fail in any step, and each is counted."""
        if self._kind == "eager":
            return 1
        leaves = [leaf for leaf in jax.tree.leaves(batch) if hasattr(leaf, "dtype")]
        size = sum(int(np.prod(leaf.shape)) * int(leaf.dtype.itemsize) for leaf in leaves)
        return max(1, min(_BLOCK_STEPS, _BLOCK_BYTES // max(size, 1)))

    def train(self, block: Block) -> Outcome:
        """Run training steps."""
        return self._run("train", block, self._groups("train"))

    def test(self, block: Block) -> Outcome:
        """Run test steps; they change metrics, and other variables where a layer does so."""
        return self._run("test", block, self._groups("test"))

    def _groups(self, verb: str) -> tuple[list[Any], ...]:
        """Return the variables that a step takes and gives."""
        found = self.variables
        optimizer = (found.optimizer,) if verb == "train" else ()
        return (found.trainable, found.non_trainable, *optimizer, found.metrics)

    def release_data(self) -> None:
        """Let go of the arrays of the last block, and of their copies on the device."""
        self._on_device = (None, None)

    def is_lost(self) -> bool:
        """Return whether donated arrays are gone and nothing came back, or not everything is known to have come."""
        return self.unsettled or any(_is_deleted(_keras.value(variable)) for variable in self.variables.all())

    def predict(self, block: Block) -> list[Any]:
        """Return the outputs for every batch."""
        found = self.variables
        step = self._step("predict")
        outputs = []
        for batch in self._batches(block):
            state = tuple([_keras.value(v) for v in group] for group in (found.trainable, found.non_trainable))
            result, changed = step(state, batch)
            self._give((found.non_trainable,), (_placed_as(state[1], changed.over(state[1])),))
            outputs.append(result)
        return [jax.tree.map(np.array, result) for result in outputs]

    # Which plan

    def _choose(self, batch: Any, plan: str | None, verb: str) -> tuple[str, str]:
        if self.model.run_eagerly:
            return "eager", "the model was compiled with run_eagerly=True"
        if not self.model.jit_compile:
            return "eager", "the model was compiled with jit_compile=False, or a layer does not support it"
        if keras.distribution.distribution() is not None:
            return "stepwise", "a distribution is set"
        if not _is_dense(batch):
            return "stepwise", "the batches are not dense arrays"
        if plan is not None:
            return plan, "pinned with plan="
        if jax.default_backend() == "cpu" and self._has_convolution(verb, batch):
            return "stepwise", "XLA runs convolutions inside a loop several times slower on the CPU"
        return "fused", "nothing in the step is slower inside a loop"

    def _seen(self, verb: str, batch: Any) -> Any:
        """Return a step as a jaxpr for the variables as they are."""
        found = self._programs.get(("traced", verb, _spec(batch)))
        if found is None:
            state = tuple([_keras.value(v) for v in group] for group in self._groups(verb))
            found = self._traced(verb, state, batch)
        return found[0]

    def _has_convolution(self, verb: str, batch: Any) -> bool:
        key = ("convolution", verb, _spec(batch))
        if key not in self._programs:
            self._programs[key] = _contains_convolution(self._seen(verb, batch).jaxpr)
        return bool(self._programs[key])

    # Programs, each compiled once

    def _run(self, name: str, block: Block, groups: tuple[list[Any], ...]) -> Outcome:
        try:
            run = self._run_fused if self._kind == "fused" else self._run_stepwise
            return run(name, block, groups)
        except (ValueError, TypeError, KeyboardInterrupt):
            raise  # raised while tracing, before anything was donated
        except jax.errors.JaxRuntimeError as error:
            if any(_is_deleted(_keras.value(v)) for group in groups for v in group):
                raise EngineError(
                    f"A compiled step failed and took the model's state with it: {error}. "
                    "Call fit again: the run goes on from its last checkpoint."
                ) from error
            raise

    def _run_fused(self, name: str, block: Block, groups: tuple[list[Any], ...]) -> Outcome:
        data = self._stack(block)
        donated, kept = self._take(name, groups)
        key = ("loop", name, _spec(data))
        if key not in self._programs:
            self._programs[key] = self._loop(name, (*donated, *kept), data)
        logs, changed, bad = self._programs[key](donated, kept, data, np.int32(block.count))
        self.unsettled = name == "train"
        self._give(groups, changed.over((*donated, *kept)))
        return JaxOutcome(logs, bad, block.count)

    def _run_stepwise(self, name: str, block: Block, groups: tuple[list[Any], ...]) -> Outcome:
        step = self._step(name)
        losses = []
        logs: Any = {}
        donated, kept = self._take(name, groups)
        state = (*donated, *kept)
        for batch in self._batches(block):
            logs, changed = step(state[: len(donated)], state[len(donated) :], batch)
            state = _placed_as(state, changed.over(state))
            losses.append(loss_in(logs))
        # Only now: of a block that fails within, no step counts, and the variables are as they were or lost.
        self.unsettled = name == "train"
        self._give(groups, state)
        return JaxOutcome(logs, losses, block.count)

    def _loop(self, name: str, state: Any, data: Any) -> Callable[..., Any]:
        """Return a program whose number of steps is an argument, so that cutting training changes no bit."""
        batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), data)
        jaxpr, shapes = self._traced(name, state, batch)
        step = jaxpr_as_fun(jaxpr)
        outputs = jax.tree.structure(shapes)
        # What a step hands through as it is stays out of the loop.
        results = jaxpr.jaxpr.outvars[len(jax.tree.leaves(shapes[0])) :]
        changes = [given is not result for given, result in zip(jaxpr.jaxpr.invars, results, strict=False)]

        def run(donated: Any, kept: Any, data: Any, count: Any) -> Any:
            given = (*donated, *kept)

            def body(index: Any, carry: Any) -> Any:
                _, changed, bad = carry
                batch = jax.tree.map(lambda a: lax.dynamic_index_in_dim(a, index, keepdims=False), data)
                # Without the barrier XLA may fuse the reading of data into the step, which could change bits.
                batch = lax.optimization_barrier(batch)
                logs, state = jax.tree.unflatten(outputs, step(*jax.tree.leaves((changed.over(given), batch))))
                failed = jnp.logical_and(bad < 0, jnp.logical_not(jnp.all(jnp.isfinite(loss_in(logs)))))
                return logs, Changed.of(state, changes), jnp.where(failed, index, bad)

            zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes[0])
            logs, changed, bad = lax.fori_loop(0, count, body, (zeros, Changed.of(given, changes), jnp.int32(-1)))
            # What was donated must come back, changed or not.
            return logs, Changed.between(given, changed.over(given), everything=bool(donated)), bad

        return jax.jit(run, donate_argnums=0)

    def _step(self, name: str) -> Callable[..., Any]:
        key = ("step", name, self._kind)
        if key not in self._programs:
            step = getattr(self.model, f"{name}_step")

            def function(*arguments: Any) -> Any:
                if name == "predict":
                    state, batch = arguments
                    result, non_trainable = step(state, batch)
                    return result, Changed.between(state[1], non_trainable)
                donated, kept, batch = arguments
                logs, state = _cast(step, (*donated, *kept), batch)
                return logs, Changed.between((*donated, *kept), state, everything=bool(donated))

            donate = 0 if name == "train" else ()
            self._programs[key] = function if self._kind == "eager" else jax.jit(function, donate_argnums=donate)
        return self._programs[key]  # type: ignore[no-any-return]

    def _traced(self, name: str, state: Any, batch: Any) -> Any:
        """Return a step as a jaxpr with the shapes of what it gives; the model's Python code runs once for it."""
        key = ("traced", name, _spec(batch))
        if key not in self._programs:
            step = getattr(self.model, f"{name}_step")
            trace = jax.make_jaxpr(lambda state, batch: _cast(step, state, batch), return_shape=True)
            self._programs[key] = trace(state, batch)
        return self._programs[key]

    # Values in and out of the model's variables

    def _take(self, name: str, groups: tuple[list[Any], ...]) -> tuple[Any, Any]:
        """Return what a program may overwrite and what it must not.

        A training step overwrites large weights and optimizer state in place. Arrays
        that somebody else may still read are copied first: those the engine did
        not make (the user's, a restored state's), and those that a snapshot, a
        callback or a second variable holds too.
        """
        if name != "train" or not self._in_place:
            return (), tuple([_keras.value(v) for v in group] for group in groups)
        *first, metrics = groups
        donated = tuple([self._own(v) for v in group] for group in first)
        if self._shared:
            copies = dict(zip(self._shared, _copies(list(self._shared.values())), strict=True))
            donated = tuple(
                [copies.get(id(v), own) for v, own in zip(group, owns, strict=True)]
                for group, owns in zip(first, donated, strict=True)
            )
            self._shared = {}
        return donated, ([_keras.value(v) for v in metrics],)

    def _own(self, variable: Any) -> Any:
        """Return a variable's array if nobody else has it; else note that it must be copied."""
        array = _keras.value(variable)
        if self._made.get(id(variable)) is array and sys.getrefcount(array) <= _UNSHARED:
            return array
        self._shared[id(variable)] = array
        return None

    def _give(self, groups: Sequence[list[Any]], state: Sequence[list[Any]]) -> None:
        for group, values in zip(groups, state, strict=True):
            for variable, array in zip(group, values, strict=True):
                # What a program handed through is still whose it was.
                if _keras.value(variable) is not array:
                    _keras.set_value(variable, array)
                    if self._in_place:
                        self._made[id(variable)] = array

    # Batches

    def _batches(self, block: Block) -> Iterator[Any]:
        if block.arrays is None:
            for batch in block.batches:
                yield _keras.distribute(jax.tree.map(owned, batch))
            return
        # Gathered at once; a batch that does not begin on a border that XLA asks for is copied by it.
        leaves, structure = jax.tree.flatten(self._gathered(block, capacity=block.count))
        for index in range(block.count):
            yield _keras.distribute(jax.tree.unflatten(structure, [leaf[index] for leaf in leaves]))

    def _stack(self, block: Block) -> Any:
        """Return a block's data with axes (step, sample, …), the step axis as long in every block of one kind."""
        if block.arrays is None:
            if block.count == 1:
                return jax.tree.map(lambda leaf: owned(leaf)[None], block.batches[0])
            return jax.tree.map(lambda *leaves: owned(np.stack(leaves)), *block.batches)
        size, rows = block.samples, block.rows
        sample = jax.tree.map(lambda a: jax.ShapeDtypeStruct((size, *a.shape[1:]), a.dtype), block.arrays)
        capacity = self.most_steps(sample)
        if self._resident and rows is not None:
            padded = np.zeros(capacity * size, np.int32)
            padded[: block.count * size] = rows
            return _gather_on_device(self._device_arrays(block.arrays), padded.reshape(capacity, size))
        return self._gathered(block, capacity=capacity)

    def _gathered(self, block: Block, *, capacity: int) -> Any:
        """Return a block's rows as batches on the host, the step axis of length ``capacity``."""
        rows, size = block.rows, block.samples
        return jax.tree.map(lambda a: stacked_rows(a, rows, size=size, capacity=capacity), block.arrays)

    def _device_arrays(self, arrays: Any) -> Any:
        """Return the arrays on the device: sent once for each fit, since a user may change them between two."""
        host, device = self._on_device
        if host is not arrays:
            device = jax.tree.map(jnp.asarray, arrays)
            self._on_device = (arrays, device)
        return device


def _copies(arrays: list[Any]) -> list[Any]:
    """Return copies of arrays, in one dispatch where there are many; a program for a few would not pay."""
    if len(arrays) < _MANY_COPIES:
        return [jnp.array(array, dtype=array.dtype, copy=True) for array in arrays]
    return _copy_all(arrays)  # type: ignore[no-any-return]


@jax.jit
def _copy_all(arrays: list[Any]) -> list[Any]:
    return [jnp.copy(array) for array in arrays]


@jax.jit
def _gather_on_device(arrays: Any, rows: Any) -> Any:
    return jax.tree.map(lambda a: a.at[rows].get(mode="promise_in_bounds"), arrays)


def _cast(step: Callable[..., Any], state: Any, batch: Any) -> Any:
    """Run a step; its state comes back in the dtypes it had, so that a loop can carry it."""
    logs, new = step(tuple(state), batch)
    return logs, jax.tree.map(lambda old, value: lax.convert_element_type(value, old.dtype), tuple(state), tuple(new))


def _placed_as(before: Any, state: Any) -> Any:
    """Return a state laid out as the one before, as a distribution asks: XLA may choose another layout, or none."""
    if keras.distribution.distribution() is None:
        return state
    return jax.tree.map(lambda old, new: jax.device_put(new, old.sharding), before, state)


def _spec(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


def _contains_convolution(jaxpr: Any) -> bool:
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            return True
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(inner) and _contains_convolution(getattr(inner, "jaxpr", inner)):
                return True
    return False


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns")


def _is_dense(batch: Any) -> bool:
    return all(hasattr(leaf, "dtype") and hasattr(leaf, "shape") for leaf in jax.tree.leaves(batch))


def _is_deleted(array: Any) -> bool:
    return isinstance(array, jax.Array) and array.is_deleted()


@functools.cache
def _device_facts() -> dict[str, Any]:
    device = jax.devices()[0]
    return {
        "backend": "jax",
        "keras": keras.__version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": f"{device.platform}: {device.device_kind}",
        "threads": os.cpu_count(),
    }


def _facts() -> dict[str, Any]:
    return {**_device_facts(), "precision": keras.config.floatx()}


def _unshared_references() -> int:
    """Return the reference count that `_own` sees of an array only a variable and the engine hold."""

    class Holder:
        _value = object()

    holder = Holder()
    made = {0: holder._value}
    array = _keras.value(holder)
    assert made[0] is array
    # The class attribute stands for the variable's own reference.
    return sys.getrefcount(array)


_UNSHARED = _unshared_references()
