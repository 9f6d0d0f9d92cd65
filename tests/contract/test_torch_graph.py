"""Captured steps as graphs of a GPU: what a graph may hold, and when it is made anew.

No GPU is needed: a stand-in for CUDA's graphs writes down the kernels of a
step with the memory that they read and write, and runs them again on that
memory, whatever Python's tensors are by then. What CUDA itself does is not
shown here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest

if keras.backend.backend() != "torch":
    pytest.skip("about the PyTorch backend", allow_module_level=True)

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from keepfit.engine import Block, make_engine, torch_graph
from keepfit.engine.torch_recording import with_tensors_as
from tests.bits import differing
from tests.contract.test_torch import CASES, SIZE, rows, train

# Branches by a condition, seeded drawing and numbers that a kernel takes from a tensor go by way of Python.
NO_GRAPH = {
    "accumulation",
    "averages",
    "clipped",
    "hinge",
    "mixed",
    "noise",
    "restarts",
    "seeded adam",
    "warm-up",
}
GRAPHS = {name for name in CASES if name not in NO_GRAPH and name != "seeded"}


class Tape(TorchDispatchMode):  # type: ignore[misc]
    """Writes down each operation with the tensors that it took and gave."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # Tensors of their own over the same memory: a kernel knows no others.
        kept = with_tensors_as((args, kwargs or {}, result), lambda tensor: tensor.detach())
        self.calls.append((func, *kept))
        return result

    def replay(self) -> None:
        """Run all of it again, into the same memory."""
        with torch.inference_mode():
            for function, args, kwargs, result in self.calls:
                places: list[Any] = []
                found: list[Any] = []
                with_tensors_as(result, places.append)
                with_tensors_as(function(*args, **kwargs), found.append)
                for place, value in zip(places, found, strict=True):
                    if place.data_ptr() != value.data_ptr():
                        place.copy_(value)


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """Let tapes stand in for CUDA's graphs, and this machine's memory for a GPU's; the tapes that were made."""
    made: list[Tape] = []

    def capture(function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        made.append(Tape())
        with made[-1]:
            result = function()
        return made[-1].replay, result

    monkeypatch.setattr(torch_graph, "capture", capture)
    monkeypatch.setattr(torch_graph, "is_graphed", lambda tensors: True)
    return made


@pytest.mark.parametrize("name", CASES)
def test_a_graph_gives_the_bits_of_the_step_itself(name: str, tapes: list[Tape]) -> None:
    """Whole, and cut; what cannot be a graph is told, and gives them too."""
    expected, bits, logs = train(CASES[name], "stepwise", [120])
    assert expected.kind == "stepwise"
    for cuts in ([120], [1, 52, 67]):
        plan, found, found_logs = train(CASES[name], None, cuts)
        assert differing(found, bits) == []
        assert found_logs == logs
        assert ("as one CUDA graph" in plan.reason) is (name in GRAPHS), plan.reason
        assert ("it would read a tensor into Python" in plan.reason) is (name in NO_GRAPH)
    assert bool(tapes) is (name in GRAPHS)


def test_the_test_can_fail(tapes: list[Tape], monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a graph that leaves a kernel out is found out, and is not used."""

    def worse(tape: Tape) -> None:
        tape.calls = tape.calls[:-1] if len(tape.calls) > 1 else tape.calls
        whole(tape)

    whole = Tape.replay
    monkeypatch.setattr(Tape, "replay", worse)
    plan, found, _ = train(CASES["batch norm"], None, [120])
    assert "do not give what it gives" in plan.reason
    assert "launched one by one" in plan.reason
    assert differing(found, train(CASES["batch norm"], "stepwise", [120])[1]) == []


def move_memory(model: Any, step: int) -> None:
    """Put a weight's values into other memory, as ``.data`` and some libraries do."""
    del step
    parameter = model.layers[0].kernel.value
    parameter.data = parameter.data.clone()


def test_a_variable_whose_memory_moves_gets_another_graph(tapes: list[Tape]) -> None:
    """A graph has the address of the memory; the tensor in Python stays the same."""
    plan, bits, _ = train(CASES["batch norm"], "stepwise", [40, 40, 40])
    graphed, found, _ = train(CASES["batch norm"], None, [40, 40, 40], between=move_memory)
    assert plan.kind == "stepwise"
    assert "one CUDA graph" in graphed.reason
    assert differing(found, bits) == []
    assert len(tapes) == 4


def test_without_a_look_at_the_memory_training_would_be_lost(
    tapes: list[Tape], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control of the test before."""
    monkeypatch.setattr(torch_graph.GraphProgram, "is_in_place", lambda self: True)
    _, bits, _ = train(CASES["batch norm"], "stepwise", [40, 40, 40])
    _, found, _ = train(CASES["batch norm"], None, [40, 40, 40], between=move_memory)
    assert differing(found, bits)
    assert len(tapes) == 1


def test_what_a_graph_returns_stays(tapes: list[Tape]) -> None:
    """The logs of a dispatch are read after the next one has begun, and predictions after all."""
    found = []
    for plan in (None, "stepwise"):
        model, x, y = CASES["batch norm"]()
        engine = make_engine(model)
        engine.build((x[:SIZE], y[:SIZE]))
        engine.prepare((x[:SIZE], y[:SIZE]), plan=plan)
        blocks = [Block(count=20, samples=SIZE, arrays=(x, y), rows=rows(first, 20)) for first in (0, 20)]
        outcomes = [*map(engine.train, blocks), *map(engine.test, blocks)]
        outputs = engine.predict(Block(count=20, samples=SIZE, arrays=(x,), rows=rows(0, 20)))
        found.append(([outcome.logs() for outcome in outcomes], [output.tobytes() for output in outputs]))
    assert found[0] == found[1]
    assert found[0][0][0] != found[0][0][1]
    assert len(tapes) == 3


def test_a_capture_that_cuda_refuses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it raises, the step runs operation by operation."""

    def refuses(function: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch_graph, "capture", refuses)
    monkeypatch.setattr(torch_graph, "is_graphed", lambda tensors: True)
    plan, found, _ = train(CASES["batch norm"], None, [120])
    assert plan.kind == "fused"
    assert "launched one by one: as a CUDA graph" in plan.reason
    assert "stream is capturing" in plan.reason
    assert differing(found, train(CASES["batch norm"], "stepwise", [120])[1]) == []


def test_on_a_cpu_there_are_no_graphs() -> None:
    """Nor is any told of."""
    assert not torch_graph.is_graphed([torch.zeros(3)])
    plan, _, _ = train(CASES["batch norm"], None, [10])
    assert "CUDA" not in plan.reason
