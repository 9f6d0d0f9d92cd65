from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from keepfit.errors import RunLocked
from keepfit.store import Process, RunLock, holder_of
from keepfit.store.lock import SILENT_S

ME = Process.current()


def leave(path, process: Process, *, silent_s: float = 0.0) -> None:
    """Leave a lock as a process would."""
    path.write_text(json.dumps({"process": process.to_json(), "token": "theirs", "taken": time.time()}))
    os.utime(path, (time.time() - silent_s,) * 2)


def finished_process() -> Process:
    """Return a process of this machine that has ended."""
    code = "from keepfit.store import Process; import json; print(json.dumps(Process.current().to_json()))"
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return Process.from_json(json.loads(text))


def test_lock_names_the_process_that_holds_it(tmp_path):
    """A second writer is told who writes: process and host."""
    lock = RunLock.take(tmp_path / "lock")
    with pytest.raises(RunLocked, match=str(os.getpid())) as caught:
        RunLock.take(tmp_path / "lock")
    assert (caught.value.pid, caught.value.host, caught.value.this_process) == (ME.pid, ME.host, True)
    lock.release()
    RunLock.take(tmp_path / "lock").release()


def test_lock_held_by_another_live_process_is_respected(tmp_path):
    """While another process lives its lock holds; once it has been killed it is taken over."""
    code = (
        "import sys; from pathlib import Path; from keepfit.store import RunLock; "
        "RunLock.take(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    path = tmp_path / "lock"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(RunLocked, match=f"process {child.pid} on {ME.host}") as caught:
            RunLock.take(path)
        assert not caught.value.this_process
        child.kill()
    RunLock.take(path).release()


@pytest.mark.parametrize(
    "process",
    [
        pytest.param(finished_process, id="dead"),
        pytest.param(lambda: replace(ME, started="1"), id="number reused"),
        pytest.param(lambda: replace(ME, boot="another"), id="earlier boot"),
    ],
)
def test_lock_of_a_dead_process_is_taken_over(tmp_path, process):
    """A process that ended, one whose number another has now, and one of an earlier boot hold nothing."""
    leave(tmp_path / "lock", process())
    lock = RunLock.take(tmp_path / "lock")
    lock.hold()
    assert holder_of(tmp_path / "lock").process == ME


@pytest.mark.parametrize("other", [{"host": "elsewhere"}, {"space": "pid:[1]"}])
def test_lock_of_a_process_that_cannot_be_seen_holds_while_it_beats(tmp_path, other):
    """On another machine or in another container the sign of life decides."""
    leave(tmp_path / "lock", replace(ME, **other), silent_s=SILENT_S - 10)
    with pytest.raises(RunLocked, match="last sign of life"):
        RunLock.take(tmp_path / "lock")
    leave(tmp_path / "lock", replace(ME, **other), silent_s=SILENT_S + 10)
    RunLock.take(tmp_path / "lock")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"process": {}}', "\x00\x00"])
def test_lock_that_a_crash_cut_short_is_taken(tmp_path, text):
    """A file that names nobody holds nothing."""
    (tmp_path / "lock").write_text(text)
    RunLock.take(tmp_path / "lock").hold()


def test_hold_notices_that_another_took_over(tmp_path):
    """A writer that was silent for long learns that it is no longer the one, and leaves the other's lock alone."""
    lock = RunLock.take(tmp_path / "lock")
    leave(tmp_path / "lock", replace(ME, host="elsewhere", pid=7))
    with pytest.raises(RunLocked, match="process 7 on elsewhere"):
        lock.hold()
    lock.release()
    assert holder_of(tmp_path / "lock").process.pid == 7


def test_beat_is_a_sign_of_life(tmp_path, monkeypatch):
    """A beat renews the time of the lock."""
    lock = RunLock.take(tmp_path / "lock")
    os.utime(tmp_path / "lock", (1, 1))
    lock.beat()
    assert holder_of(tmp_path / "lock").beat == 1  # the last beat was a moment ago
    monkeypatch.setattr("keepfit.store.lock.BEAT_S", 0)
    lock.beat()
    assert holder_of(tmp_path / "lock").beat > 1


def test_holder_of_nothing_is_nobody(tmp_path):
    """No file, no holder."""
    assert holder_of(tmp_path / "lock") is None


def contend(path, barrier, results):
    barrier.wait()
    try:
        RunLock.take(path)
        results.put(os.getpid())
    except RunLocked:
        results.put(None)
    barrier.wait()


def test_only_one_of_several_that_take_over_at_once_gets_the_lock(tmp_path):
    """Processes that find a dead lock at the same moment do not both get it."""
    leave(tmp_path / "lock", finished_process())
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    children = [context.Process(target=contend, args=(tmp_path / "lock", barrier, results)) for _ in range(3)]
    for child in children:
        child.start()
    winners = [results.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    assert sum(winner is not None for winner in winners) == 1
