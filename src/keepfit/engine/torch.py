"""Steps on PyTorch: captured once and replayed, or run one by one as they are written."""

from __future__ import annotations

import collections
import functools
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import torch

from keepfit import _keras, nested
from keepfit.engine.base import Block, Engine, Outcome, Plan
from keepfit.engine.program import ProgramKey, program_key
from keepfit.engine.torch_library import Library
from keepfit.errors import warn
from keepfit.logs import flat, loss_in
from keepfit.state import Variables, unbuilt_optimizers, variables_of

# A block is small enough that a dispatch stays prompt whatever the data.
_BLOCK_BYTES = 4 << 20
_BLOCK_STEPS = 128
# A larger state is not copied before each dispatch: where one fails, the run goes back to its last checkpoint.
_KEPT_BYTES = 1 << 30
# Dtypes whose arrays are tensors as they are.
_SHARED = frozenset("?bhilqBefd")
# Kernels choose their path, and with it the last bit, by where memory begins; PyTorch's own begins on such a border.
_ALIGNMENT = 64


class TorchOutcome(Outcome):
    """Logs of a dispatch on PyTorch, and the loss of each of its steps."""

    def __init__(self, logs: Any, losses: list[Any], count: int) -> None:
        self._logs = logs if isinstance(logs, dict) else {"loss": logs}
        self._losses = losses
        self.count = count

    def wait(self) -> None:
        """Block until the device has finished."""
        if any(isinstance(loss, torch.Tensor) and loss.is_cuda for loss in self._losses[-1:]):
            torch.cuda.synchronize()

    def logs(self) -> dict[str, Any]:
        """Return the last step's logs."""
        return {name: host_number(value) for name, value in flat(self._logs).items()}

    def first_nonfinite(self) -> int | None:
        """Return the first step whose loss was NaN or infinite."""
        if self._losses and all(isinstance(loss, torch.Tensor) and loss.ndim == 0 for loss in self._losses):
            finite = torch.isfinite(torch.stack(self._losses)).tolist()
        else:
            finite = [bool(np.all(np.isfinite(host_number(loss)))) for loss in self._losses]
        return next((index for index, good in enumerate(finite) if not good), None)


class TorchEngine(Engine):
    """The PyTorch engine.

    Args:
        model: A compiled Keras model; built by `build`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._key: ProgramKey | None = None
        self._kind = "stepwise"
        self._captures = True
        self._library = Library(model)
        self._on_device: tuple[Any, Any] = (None, None)
        self._modules: tuple[ProgramKey | None, list[Any]] = (None, [])
        self._foreign: tuple[ProgramKey | None, list[str]] = (None, [])
        self._bytes = 0
        self._lost = False
        self._said_not_compiled = False

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
            self._bytes = sum(_keras.value(v).nbytes for v in self.variables.all())
        return self.variables

    def heed_settings(self) -> None:
        """Do nothing: what a step reads is looked at before each dispatch."""

    def heeds_attributes(self) -> bool:
        """Return True: captured or not, what a step reads is as it is."""
        return True

    def prepare(self, batch: Any, *, plan: str | None = None, verb: str = "train") -> Plan:
        """Choose how steps run; a pure function of the program and the device."""
        self._lost = False
        self._kind, reason = self._choose(batch, plan, verb)
        if self.model.jit_compile and not self._said_not_compiled:
            self._said_not_compiled = True
            warn(
                "The model was compiled with jit_compile=True, for which Keras calls torch.compile. keepfit does not: "
                f"the plan is {self._kind}, since {reason}. Leave jit_compile out to be told nothing."
            )
        return Plan(self._kind, reason, _facts())

    def inexact(self) -> list[str]:
        """Return what of the model no checkpoint holds: buffers of modules, and optimizers, that are not Keras's."""
        key, found = self._foreign
        if key is not self._key or key is None:
            found = self._foreign_tensors()
            self._foreign = (self._key, found)
        return [*found, *self._foreign_optimizers()]

    def _foreign_optimizers(self) -> list[str]:
        # A step may make them when it first runs, so that the next fit has more of them.
        return [
            f"{type(layer).__name__}.{name} is an optimizer of PyTorch's, whose state is not kept: after a kill it "
            "begins anew. Use one of Keras's"
            for layer in _keras.all_layers(self.model)
            for name, value in vars(layer).items()
            if isinstance(value, torch.optim.Optimizer)
        ]

    def _foreign_tensors(self) -> list[str]:
        known = {id(_keras.value(v)) for v in self.variables.all()}
        held = {
            id(tensor): f"{layer.name}.{name}"
            for layer in _keras.all_layers(self.model)
            for name, tensor in (*layer.named_parameters(), *layer.named_buffers())
        }
        foreign = [name for key, name in held.items() if key not in known]
        if not foreign:
            return []
        return [
            f"the model holds {len(foreign)} tensors that Keras does not count, {foreign[0]} among them: they are not "
            "kept. Use Keras's own layers for what has such state"
        ]

    def most_steps(self, batch: Any) -> int:
        """Return the number of batches in a full block; eager code may fail in any step, and each is counted."""
        if self._kind == "eager":
            return 1
        leaves = [leaf for leaf in nested.flatten(batch) if hasattr(leaf, "dtype")]
        size = sum(int(leaf.nbytes) for leaf in leaves)
        return max(1, min(_BLOCK_STEPS, _BLOCK_BYTES // max(size, 1)))

    def train(self, block: Block) -> Outcome:
        """Run training steps."""
        self.unsettled = True
        with self._mode(training=True), self._whole_or_not_at_all(self.variables.all()):
            return self._run("train", block)

    def test(self, block: Block) -> Outcome:
        """Run test steps; they change metrics, and other variables where a layer does so."""
        found = self.variables
        with self._mode(training=False), self._whole_or_not_at_all([*found.non_trainable, *found.metrics]):
            return self._run("test", block)

    def release_data(self) -> None:
        """Let go of the arrays of the last block, and of their copies on the device."""
        self._on_device = (None, None)

    def is_lost(self) -> bool:
        """Return whether a dispatch failed in a state too large to be kept beside, or was cut off uncounted."""
        return self._lost or self.unsettled

    def predict(self, block: Block) -> list[Any]:
        """Return the outputs for every batch."""
        with self._mode(training=False):
            outputs = list(self._outputs("predict", block))
        return [nested.map_structure(keras.ops.convert_to_numpy, result) for result in outputs]

    # Which plan

    def _choose(self, batch: Any, plan: str | None, verb: str) -> tuple[str, str]:
        self._captures = not self.model.run_eagerly and plan != "stepwise"
        if self.model.run_eagerly:
            return "eager", "the model was compiled with run_eagerly=True"
        batch = nested.map_structure(_tensor, batch)
        if plan == "stepwise":
            self._try_out(batch, verb)
            return plan, "pinned with plan="
        with self._mode(training=verb == "train"):
            if verb == "train" and unbuilt_optimizers(self.model):
                self._library.build_optimizers(self._step(verb), batch)
                self.refresh()
            program = self._library.program(verb, self._step(verb), batch, self.variables, self._key)
        if program is None:
            return "stepwise", f"the step cannot be captured: {self._library.reason(verb, batch)}"
        launched = self._library.reason(verb, batch)
        return "fused", f"the step was captured: {program.operations} operations{launched and f', {launched}'}"

    def _try_out(self, batch: Any, verb: str) -> None:
        """Let a step that nobody captures raise what it has to say to a batch, where all it changes can be put back."""
        is_own = verb == "train" and _keras.has_own_train_step(self.model)
        if is_own or self._bytes > _KEPT_BYTES or self.inexact():
            return
        with self._mode(training=verb == "train"):
            self._library.try_out(verb, self._step(verb), batch, self.variables, self._key)

    # One dispatch

    def _step(self, name: str) -> Callable[[Any], Any]:
        step: Callable[[Any], Any] = getattr(self.model, f"{name}_step")
        return step if name == "train" else torch.no_grad()(step)

    def _run(self, name: str, block: Block) -> Outcome:
        losses: list[Any] = []
        (logs,) = collections.deque(self._outputs(name, block, losses), maxlen=1)
        return TorchOutcome(logs, losses, block.count)

    def _outputs(self, name: str, block: Block, losses: list[Any] | None = None) -> Iterator[Any]:
        """Yield what each step returns; with ``losses`` only that of the last one, and all losses there."""
        self.variables.known.forget()
        step = self._step(name)
        structure, batches = self._batches(block)
        program = None
        for number, leaves in enumerate(batches):
            if number == 0 and self._captures:
                batch = nested.pack_sequence_as(structure, leaves)
                program = self._library.program(name, step, batch, self.variables, self._key, steps=block.count)
            wanted = losses is None or number == block.count - 1
            if program is None:
                result = step(nested.pack_sequence_as(structure, leaves))
                result = nested.map_structure(_kept, result if wanted else loss_in(result))
            else:
                run = program if wanted else program.loss
                result = run([leaf for leaf in leaves if leaf is not None])
            if losses is not None:
                losses.append(loss_in(result))
            if wanted:
                yield result

    @contextmanager
    def _mode(self, *, training: bool) -> Iterator[None]:
        """Tell modules that look at ``self.training``; as in Keras it is off outside of training steps."""
        if self.model.training is not training:
            self._tell(training)
        try:
            yield
        finally:
            if training:
                self._tell(False)

    def _tell(self, training: bool) -> None:
        """Do what ``model.train(training)`` does; Keras looks at every attribute that is set, which takes a while."""
        key, modules = self._modules
        if key is not self._key or key is None:
            modules = list(self.model.modules())
            if any(type(module).train is not torch.nn.Module.train for module in modules):
                modules = []
            self._modules = (self._key, modules)
        if not modules:
            self.model.train(training)
        for module in modules:
            vars(module)["training"] = training

    @contextmanager
    def _whole_or_not_at_all(self, variables: list[Any]) -> Iterator[None]:
        """Put variables and PyTorch's generators back as they were where a step raises."""
        kept = self._bytes <= _KEPT_BYTES
        known = self.variables.known
        before, generators = (known.tensors(variables), _generator_states()) if kept else ([], [])
        try:
            yield
        except BaseException:
            self._lost = not kept
            known.put_back(before)
            for put_back, state in generators:
                put_back(state)
            self.unsettled = False
            raise

    # Batches

    def _batches(self, block: Block) -> tuple[Any, Iterator[list[Any]]]:
        """Return the form of a batch, and the leaves of every batch."""
        if block.arrays is None:
            given = (nested.flatten(batch) for batch in block.batches)
            return block.batches[0], ([_aligned(_tensor(leaf)) for leaf in leaves] for leaves in given)
        if block.rows is None:
            tensors = [_tensor(leaf, shared=True) for leaf in nested.flatten(block.arrays)]
            places = (slice(at * block.samples, (at + 1) * block.samples) for at in range(block.count))
            return block.arrays, ([_aligned(_part(leaf, rows)) for leaf in tensors] for rows in places)
        host, tensors = self._on_device
        if host is not block.arrays:
            tensors = [_tensor(leaf, shared=True) for leaf in nested.flatten(block.arrays)]
            self._on_device = (block.arrays, tensors)
        rows = torch.as_tensor(block.rows).to(_device())
        # Each batch is memory of its own, which begins where kernels like it to begin.
        return block.arrays, ([_rows(leaf, index) for leaf in tensors] for index in rows.split(block.samples))


def _tensor(leaf: Any, *, shared: bool = False) -> Any:
    """Return a numeric array as a tensor on the device; anything else as it is.

    Args:
        leaf: A leaf of a batch, or of all data.
        shared: Whether the tensor may be the array's own memory, since nobody writes into either.
    """
    if leaf is None or not hasattr(leaf, "dtype") or (isinstance(leaf, np.ndarray) and leaf.dtype.kind in "OSU"):
        return leaf
    if _is_like_a_tensor(leaf):
        return torch.from_numpy(leaf) if shared else torch.from_numpy(leaf).clone()
    if isinstance(leaf, np.ndarray) and not leaf.flags.writeable:
        with warnings.catch_warnings():
            # PyTorch warns of an array that must not be written: nobody does.
            warnings.simplefilter("ignore", UserWarning)
            return keras.ops.convert_to_tensor(leaf)
    return keras.ops.convert_to_tensor(leaf)


def _is_like_a_tensor(leaf: Any) -> bool:
    """Return whether PyTorch can use an array's memory; Keras's own way is slow, and copies all of it."""
    if not isinstance(leaf, np.ndarray) or leaf.dtype.char not in _SHARED or _device().type != "cpu":
        return False
    return leaf.dtype.isnative and leaf.flags.writeable and leaf.flags.c_contiguous


def _aligned(leaf: Any) -> Any:
    """Return a tensor that begins on the border that PyTorch's own do."""
    misplaced = isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu" and leaf.data_ptr() % _ALIGNMENT
    return leaf.clone() if misplaced else leaf


def _rows(leaf: Any, index: Any) -> Any:
    if isinstance(leaf, torch.Tensor):
        return torch.index_select(leaf, 0, index)
    return None if leaf is None else np.take(leaf, index.numpy(), axis=0)


def _part(leaf: Any, rows: slice) -> Any:
    return None if leaf is None else leaf[rows]


def _kept(value: Any) -> Any:
    """Return a log apart from the variables and the graph it came from; reading it may come later."""
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def host_number(value: Any) -> Any:
    """Return a scalar as a Python float and anything else as a NumPy array."""
    array = keras.ops.convert_to_numpy(value) if isinstance(value, torch.Tensor) else np.asarray(value)
    return float(array) if array.ndim == 0 and array.dtype.kind in "fiub" else array


def _generator_states() -> list[tuple[Callable[[Any], Any], Any]]:
    """Return the states of the generators that a step may draw from, each with what puts it back."""
    device = _device()
    states: list[tuple[Callable[[Any], Any], Any]] = [(torch.set_rng_state, torch.get_rng_state())]
    if device.type == "cuda":
        states.append((lambda state: torch.cuda.set_rng_state(state, device), torch.cuda.get_rng_state(device)))
    return states


def _device() -> Any:
    """Return the device on which Keras makes tensors."""
    return _device_named(_keras.torch_device())


@functools.cache
def _device_named(name: str) -> Any:
    return torch.device(name)


@functools.cache
def _device_facts() -> dict[str, Any]:
    device = _device()
    return {
        "backend": "torch",
        "keras": keras.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": f"cuda: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type,
        "cores": os.cpu_count(),
    }


def _facts() -> dict[str, Any]:
    return {"threads": torch.get_num_threads(), **_device_facts(), "precision": keras.config.floatx()}
