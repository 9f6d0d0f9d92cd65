"""A captured step as one CUDA graph.

On a GPU, to launch each small kernel from Python takes longer than the kernel
runs. A CUDA graph launches all of a step's kernels with one call. It has the
addresses of the memory that they read and write in it, so that what it is
given is copied to one place, what it gives is copied away, and it holds as
long as variables stay where they are.

A graph repeats kernels alone, nothing that the processor does in between. So
a step becomes one only where each of its operations takes and gives tensors of
the GPU and reads none into Python; the others, such as those with seeded
dropout or a warm-up, run as they were captured, operation by operation. That a
graph gives the bits of the step, and draws as it does, is checked before it is
used, as for any captured step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from keepfit import nested
from keepfit.engine.torch_program import Program
from keepfit.engine.torch_recording import NotCapturedError, with_tensors_as

Replay = Callable[[], None]


class GraphProgram:
    """A captured step that a GPU runs as one graph; used like the `Program` that it is made of.

    To make one runs the step: the caller puts back what that changed.

    Args:
        program: The captured step.
        leaves: The tensors of a batch.

    Raises:
        NotCapturedError: Says why the step is no graph.
    """

    def __init__(self, program: Program, leaves: list[Any]) -> None:
        self.operations = program.operations
        self._loss_of = program.loss_of
        self._given = [leaf.clone() for leaf in leaves]
        # Held as long as the graph: memory that is gone would be nobody's, or another's.
        self._tensors = program.tensors
        self._addresses = [tensor.data_ptr() for tensor in self._tensors]
        with _Alone():
            program(self._given)
        try:
            self._replay, self._result = capture(lambda: program(self._given))
        except RuntimeError as error:
            raise NotCapturedError(f"CUDA would not take it: {error}") from error

    def __call__(self, leaves: list[Any]) -> Any:
        """Run the step on the tensors of a batch; what it returns shares no memory with a variable."""
        return self._run(leaves, self._result)

    def loss(self, leaves: list[Any]) -> Any:
        """Run the step and return only its loss."""
        return self._run(leaves, self._loss_of(self._result))

    def is_in_place(self) -> bool:
        """Return whether the memory of variables, and of what else is there in every step, lies where it lay."""
        return all(tensor.data_ptr() == at for tensor, at in zip(self._tensors, self._addresses, strict=True))

    def _run(self, leaves: list[Any], result: Any) -> Any:
        for place, leaf in zip(self._given, leaves, strict=True):
            place.copy_(leaf)
        self._replay()
        return nested.map_structure(_copied, result)


def is_graphed(tensors: list[Any]) -> bool:
    """Return whether a graph can have any of the tensors in it: those on a GPU of NVIDIA's."""
    return torch.version.cuda is not None and any(tensor.is_cuda for tensor in tensors)


def capture(function: Callable[[], Any]) -> tuple[Replay, Any]:
    """Note the kernels of a function without running them.

    Args:
        function: Only launches kernels.

    Returns:
        What runs them, and the tensors in which their result will lie each time.
    """
    graph = torch.cuda.CUDAGraph()
    # The thread that writes checkpoints may use the GPU meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = function()
    return graph.replay, result


class _Alone(TorchDispatchMode):  # type: ignore[misc] # PyTorch has few annotations
    """Lets only those operations run that a graph repeats as they are."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = list(result) if isinstance(result, (tuple, list)) else [result]
        if not all(each is None or isinstance(each, torch.Tensor) for each in given):
            raise NotCapturedError(f"it would read a tensor into Python ({func.name()})")
        tensors: list[Any] = []
        with_tensors_as((args, kwargs, result), tensors.append)
        if not all(is_graphed([tensor]) for tensor in tensors):
            raise NotCapturedError(f"it would use a tensor that is not on the GPU ({func.name()})")
        return result


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value
