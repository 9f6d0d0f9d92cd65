from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from keepfit.store import Process, process


def test_this_process_lives_and_comes_back_from_json():
    """A process knows itself, also by way of its JSON."""
    me = Process.current()
    assert me.lives() is True
    assert Process.from_json(me.to_json()) == me


def test_zombie_does_not_live():
    """A killed process whose parent has not noticed yet counts as dead."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        other = replace(Process.current(), pid=child.pid, started=process._started(child.pid))
        assert other.lives() is True
        child.kill()
        while process._started(child.pid) is not None:  # until it is a zombie; its parent has not waited for it
            pass
        assert other.lives() is False
    finally:
        child.kill()
        child.wait()


def test_process_is_seen_without_proc(monkeypatch, tmp_path):
    """Where the system has no /proc, ps tells who lives."""
    monkeypatch.setattr(process, "_PROC", tmp_path)
    if process._started_elsewhere(Process.current().pid) in (None, ""):
        pytest.skip("this system has no ps")
    assert Process.current().lives() is True
    assert replace(Process.current(), pid=2**22 - 1).lives() is False
