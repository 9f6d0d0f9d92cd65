"""Kill training scripts with SIGKILL at random moments, start them again, compare the end with a control's.

``python -m tests.torture --kills 200``; a sample runs in the test suite.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keepfit.demo.compare import differing_state
from keepfit.journal import Reader

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 300


@dataclass
class Toll:
    """What a series of kills came to.

    Args:
        kills: Processes killed.
        moments: What they were doing: ``training``, ``validation`` or ``writing``, as the journal and the folder tell.
        differing: Names of what differed from the control at the end, over all series.
    """

    kills: int = 0
    moments: dict[str, int] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)

    def count(self, moment: str) -> None:
        """Note one kill."""
        self.kills += 1
        self.moments[moment] = self.moments.get(moment, 0) + 1


def start(directory: Path, model: str, seconds: float, *, forget: str = "") -> subprocess.Popen[str]:
    """Start the training script; returns when it has begun to train.

    Args:
        directory: Folder of its run.
        model: Name of its model.
        seconds: How long it waits after each epoch.
        forget: Beginning of the names of tensors that a resume leaves out: the negative control.
    """
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.continuity.child", str(directory), model, str(seconds)],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax", "TORTURE_FORGET": forget},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        if line.startswith("training"):
            return process
        lines.append(line)
    raise AssertionError(f"the training script ended before it began:\n{''.join(lines)}")


def run_to_end(directory: Path, model: str, *, forget: str = "") -> None:
    """Run the training script without a kill."""
    process = start(directory, model, 0.0, forget=forget)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, output


def kill_series(
    place: Path,
    model: str,
    *,
    kills: int,
    chance: random.Random,
    toll: Toll,
    forget: str = "",
    at_least_s: float = 0.0,
) -> None:
    """Kill one training ``kills`` times, let it end, and compare it with a control."""
    control, killed = place / f"{model}-control", place / f"{model}-killed"
    run_to_end(control, model)
    for _ in range(kills):
        process = start(killed, model, 0.06, forget=forget)
        time.sleep(chance.uniform(at_least_s, 2.2))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        if process.returncode == -signal.SIGKILL:
            toll.count(moment_of(killed))
    run_to_end(killed, model, forget=forget)
    toll.differing += [f"{model}: {name}" for name in differing_state(control, killed)[0]]
    mine, theirs = (Path(f"{folder}-files/log.csv").read_bytes() for folder in (control, killed))
    if mine != theirs:
        toll.differing.append(f"{model}: the CSVLogger's file")
    for folder in (control, killed):
        shutil.rmtree(folder)
        shutil.rmtree(f"{folder}-files")


def moment_of(directory: Path) -> str:
    """Return what the killed process was doing, as far as its folder tells."""
    if any(directory.rglob("*.tmp*")):
        return "writing"
    try:
        with Reader.open(directory) as reader:
            epochs, checkpoints = reader.epochs(), reader.checkpoints()
    except OSError:
        return "starting"
    if not epochs:
        return "compiling or first epoch"
    return "training" if checkpoints and checkpoints[-1].kind != "end" else "between fits or training"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the torture; returns 1 where any bit differed."""
    from tests.models import MODELS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    chance = random.Random(given.seed)
    toll = Toll()
    each = 8
    with tempfile.TemporaryDirectory() as place:
        names = list(MODELS)
        turn = 0
        while toll.kills < given.kills:
            name = names[turn % len(names)]
            turn += 1
            kill_series(Path(place), name, kills=each, chance=chance, toll=toll)
            print(f"{name}: {toll.kills} kills so far, {len(toll.differing)} differences", flush=True)
    print(f"\n{toll.kills} kills: {toll.moments}")
    print(f"differences from the controls: {toll.differing or 'none'}")
    return 1 if toll.differing else 0


if __name__ == "__main__":
    sys.exit(main())
