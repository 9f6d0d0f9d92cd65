"""The one place that joins store and journal."""

from __future__ import annotations

from keepfit.recorder.disk import DiskRecorder
from keepfit.recorder.memory import MemoryRecorder
from keepfit.recorder.protocol import Recorder
from keepfit.recorder.verify import Finding, findings

__all__ = ["DiskRecorder", "Finding", "MemoryRecorder", "Recorder", "findings"]
