from __future__ import annotations

import numpy as np

from keepfit.clock import Position
from keepfit.recorder import MemoryRecorder


def take(recorder: MemoryRecorder, fit: int, **tensors) -> None:
    kind = "end" if fit else "start"
    recorder.checkpoint(kind=kind, fit=fit, position=Position(fit=fit), tensors=tensors, state={})


def test_memory_recorder_keeps_arrays_as_they_are():
    """Nothing is copied: the same objects come back."""
    recorder, array = MemoryRecorder(), np.ones(3)
    take(recorder, 0, a=array)
    assert recorder.load(recorder.newest())[0]["a"] is array
    assert not recorder.durable


def test_memory_recorder_stays_within_its_budget():
    """States beyond the budget go, oldest first; the first and the newest stay whatever their size."""
    recorder = MemoryRecorder(budget_bytes=3000)
    for fit in range(6):
        take(recorder, fit, a=np.zeros(125))  # 1,000 bytes
    assert [item.fit for item in recorder.checkpoints] == [0, 4, 5]
    take(recorder, 6, a=np.zeros(10_000))
    assert [item.fit for item in recorder.checkpoints] == [0, 6]


def test_memory_recorder_counts_a_shared_array_once():
    """Frozen weights that all states hold cost the budget nothing more."""
    recorder, frozen = MemoryRecorder(budget_bytes=1500), np.zeros(125)
    for fit in range(6):
        take(recorder, fit, a=frozen, b=frozen)
    assert len(recorder.checkpoints) == 6


def test_memory_recorder_is_never_due():
    """Inside a fit it takes nothing by itself."""
    assert not MemoryRecorder().due()
