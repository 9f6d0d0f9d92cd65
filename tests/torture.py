"""Kill training scripts with SIGKILL at random moments, start them again, compare the end with a control's.

``python -m tests.torture --kills 200 [--backend torch] [--plan stepwise]``; a sample runs in the test suite.
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
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BACKENDS = ("jax", "tensorflow", "torch")
PLANS = ("fused", "stepwise")
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


class Forked:
    """A training script in a forked process: new in all but its imports, which take most of a new one's time.

    The process that forks has imported Keras and its backend and has never used them.
    """

    def __init__(self, directory: Path, model: str, seconds: float) -> None:
        from keepfit import live
        from tests.continuity import child

        self.returncode: int | None = None
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                os.dup2(writing, 1)
                os.dup2(writing, 2)
                os.close(reading)
                sys.stdout = os.fdopen(1, "w", buffering=1)
                child.main(str(directory), model, seconds)
                for run in list(live._RUNS):  # what a process does at its end
                    run.close()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(writing)
        self.stdout = os.fdopen(reading)

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for the end; return what was printed."""
        del timeout
        output = self.stdout.read()
        self.stdout.close()
        _, status = os.waitpid(self.pid, 0)
        self.returncode = os.waitstatus_to_exitcode(status)
        return output, None


FORK = False


def start(directory: Path, model: str, seconds: float, *, forget: str = "") -> Any:
    """Start the training script; returns when it has begun to train.

    Args:
        directory: Folder of its run.
        model: Name of its model.
        seconds: How long it waits after each epoch.
        forget: Beginning of the names of tensors that a resume leaves out: the negative control.
    """
    process: Any = (
        Forked(directory, model, seconds)
        if FORK
        else subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.continuity.child", str(directory), model, str(seconds)],
            cwd=ROOT,
            env={"KERAS_BACKEND": "jax", **os.environ, "TORTURE_FORGET": forget},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    )
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
    inside: bool = False,
) -> None:
    """Kill one training ``kills`` times, let it end, and compare it with a control.

    Args:
        place: Folder for the runs.
        model: Name of the model.
        kills: How many.
        chance: Draws the moments.
        toll: Gets what was done and found.
        forget: See `start`.
        inside: Whether each kill waits for a checkpoint inside a fit, so that there is something to go on from.
    """
    control, killed = place / f"{model}-control", place / f"{model}-killed"
    run_to_end(control, model)
    for _ in range(kills):
        noted = Path(f"{killed}-files/doing")
        noted.unlink(missing_ok=True)
        process = start(killed, model, 0.15, forget=forget)
        if chance.random() < 0.6:
            # Compiling takes longer than the moments that are drawn, above all where a machine is busy.
            wait_for(noted.exists, 20.0, pause_s=0.01)
        if inside:
            wait_for(lambda: has_checkpoint_inside(killed), 60.0, pause_s=0.01)
        else:
            time.sleep(chance.uniform(0.0, 1.3))
        if chance.random() < 0.3:
            wait_for(lambda: files_aside(killed), 1.0, pause_s=0.0002)  # a checkpoint is being written
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        if process.returncode == -signal.SIGKILL:
            toll.count(moment_of(killed))
        else:
            break  # it came to its end before the kill did
    run_to_end(killed, model, forget=forget)
    from keepfit.demo.compare import differing_state

    toll.differing += [f"{model}: {name}" for name in differing_state(control, killed)[0]]
    mine, theirs = (Path(f"{folder}-files/log.csv").read_bytes() for folder in (control, killed))
    if mine != theirs:
        toll.differing.append(f"{model}: the CSVLogger's file")
    for folder in (control, killed):
        shutil.rmtree(folder)
        shutil.rmtree(f"{folder}-files")


def moment_of(directory: Path) -> str:
    """Return what the killed process was doing, as far as its folder and the file that its callback writes tell."""
    from keepfit.journal import Reader

    if files_aside(directory):
        return "writing a checkpoint"
    doing = Path(f"{directory}-files/doing")
    if doing.exists() and doing.read_text() == "validation":
        return "validation"
    try:
        with Reader.open(directory) as reader:
            return "training" if reader.epochs() else "compiling or first epoch"
    except OSError:
        return "starting"


def has_checkpoint_inside(directory: Path) -> bool:
    """Return whether the fit that is under way can be gone on with from amid it."""
    from keepfit.journal import Reader

    try:
        with Reader.open(directory) as reader:
            under_way = {record.number for record in reader.fits() if record.status == "open"}
            return any(each.kind == "inside" and each.fit in under_way for each in reader.checkpoints())
    except OSError:
        return False


def files_aside(directory: Path) -> list[Path]:
    """Return the files that a checkpoint is being written to at this moment."""
    return [path for path in (directory / "objects").glob("*") if path.suffix != ".safetensors"]


def wait_for(happened: Callable[[], object], patience_s: float, *, pause_s: float) -> None:
    """Return when something has happened, or after a while."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline and not happened():
        time.sleep(pause_s)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the torture; returns 1 where any bit differed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--backend", choices=BACKENDS, default=os.environ.get("KERAS_BACKEND", "jax"))
    parser.add_argument("--plan", choices=PLANS, help="by default the engine chooses")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--new-interpreters", action="store_true", help="start Python anew each time instead of forking"
    )
    given = parser.parse_args(arguments)
    # Keras chooses its backend when it is imported, and the processes that are killed inherit it.
    os.environ["KERAS_BACKEND"] = given.backend
    os.environ["TORTURE_PLAN"] = given.plan or ""
    from tests.models import MODELS

    if not given.new_interpreters:
        global FORK
        FORK = True
        warnings.filterwarnings("ignore")
    chance = random.Random(given.seed)
    toll = Toll()
    each = 8
    with tempfile.TemporaryDirectory() as place:
        names = [*MODELS, "dropout_batch_norm@phases"]
        turn = 0
        while toll.kills < given.kills:
            name = names[turn % len(names)]
            turn += 1
            kill_series(Path(place), name, kills=each, chance=chance, toll=toll)
            print(f"{name}: {toll.kills} kills so far, {len(toll.differing)} differences", flush=True)
    print(f"\n{given.backend}, {given.plan or 'the plan that it chooses'}: {toll.kills} kills: {toll.moments}")
    print(f"differences from the controls: {toll.differing or 'none'}")
    return 1 if toll.differing else 0


if __name__ == "__main__":
    sys.exit(main())
