"""A writer killed with SIGKILL at any moment loses no acknowledged checkpoint (promise P2), without Keras."""

from __future__ import annotations

import random
import subprocess
import sys
import threading

import numpy as np
import pytest

from keepfit.cli.verify import verify_folder
from keepfit.clock import Position
from keepfit.journal import EpochRecord, FitRecord
from keepfit.recorder import DiskRecorder

KILLS = 10


def tensors(number: int) -> dict[str, np.ndarray]:
    """Return the state after a fit."""
    rng = np.random.default_rng(number)
    return {"model/large": rng.normal(size=10_000), "model/small": rng.normal(size=3), "frozen": np.ones(20_000)}


def say(word: str, number: int) -> None:
    """Tell the parent process."""
    sys.stdout.write(f"{word} {number}\n")
    sys.stdout.flush()


def live(directory: str) -> None:
    """Go on where the folder is, fit after fit, and print the number of each that is acknowledged."""
    recorder = DiskRecorder.open(directory, keep=2, share="each")
    newest = recorder.newest()
    number = 0
    if newest is not None:
        found, state = recorder.load(newest)
        number = state["number"]
        assert all(np.array_equal(found[name], value) for name, value in tensors(number).items())
        assert list(recorder.fits) == list(range(1, number + 1))
        assert len(recorder.epochs) == number
    say("at", number)
    while True:
        number += 1
        recorder.put_fit(FitRecord(number=number, first_epoch=number - 1))
        recorder.put_epoch(EpochRecord(fit=number, epoch=number - 1, label=number, logs={"loss": 1 / number}))
        recorder.put_fit(FitRecord(number=number, first_epoch=number - 1, status="finished", epochs_done=1))
        recorder.checkpoint(
            kind="end",
            fit=number,
            position=Position(fit=number, epoch=number),
            tensors=tensors(number),
            state={"number": number},
            wait=number % 3 != 0,
        )
        if number % 3:
            say("acknowledged", number)


@pytest.mark.slow
def test_killed_writer_loses_no_acknowledged_checkpoint(tmp_path):
    """Killed again and again at random moments, the run always opens whole, at or beyond what was acknowledged."""
    chance = random.Random(20)
    acknowledged = 0
    for _ in range(KILLS):
        child = subprocess.Popen(
            [sys.executable, __file__, str(tmp_path / "run")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with child:
            word, number = (child.stdout.readline().split() or ["nothing", child.stderr.read()])[:2]
            assert word == "at", number
            assert int(number) >= acknowledged
            killer = threading.Timer(chance.uniform(0, 0.2), child.kill)
            killer.start()
            for line in child.stdout:
                acknowledged = int(line.split()[1])
            killer.join()
            assert child.wait() == -9, child.stderr.read()
    assert acknowledged > KILLS
    assert verify_folder(tmp_path / "run").damages == ()
    recorder = DiskRecorder.open(tmp_path / "run")
    assert recorder.newest().fit >= acknowledged
    recorder.close()


if __name__ == "__main__":
    live(sys.argv[1])
