"""The one place that joins store and journal."""

from __future__ import annotations

from keepfit.recorder.disk import DiskRecorder
from keepfit.recorder.failures import failure
from keepfit.recorder.memory import MemoryRecorder
from keepfit.recorder.protocol import Recorder

__all__ = ["DiskRecorder", "MemoryRecorder", "Recorder", "failure"]
