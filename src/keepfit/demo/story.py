"""The demo's story: a control, a kill, a resume, and the comparison."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from keepfit.demo.compare import differing_state
from keepfit.journal import Reader

_PATIENCE_S = 110.0


def run_demo(directory: str | Path | None = None) -> int:
    """Run the demo and tell what happens.

    Args:
        directory: Where the two runs and the picture go; ``.demo`` by default.

    Returns:
        The exit status: 0 if the killed run ended with the same bits as the control.
    """
    missing = [name for name in ("sklearn", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        click.echo(f'The demo needs {" and ".join(missing)}: pip install "keepfit[demo]"', err=True)
        return 2
    place = Path(directory or ".demo") / time.strftime("%Y%m%d-%H%M%S")
    place.mkdir(parents=True)
    control, killed = place / "control", place / "killed"

    click.secho("1. The control: three fits on handwritten digits, never stopped.", bold=True)
    _wait(_start(control, place / "control.log"), place / "control.log")
    click.echo(_last_line(place / "control.log"))

    click.secho("\n2. The same script again; killed with SIGKILL in the middle of its second fit.", bold=True)
    process = _start(killed, place / "killed-1.log")
    where = _kill_in_second_fit(process, killed)
    click.echo(f"   killed process {process.pid} {where}")

    click.secho("\n3. The same script once more: it goes on by itself.", bold=True)
    _wait(_start(killed, place / "killed-2.log"), place / "killed-2.log")
    for line in _told(place / "killed-2.log"):
        click.echo(f"   {line}")
    click.echo(_last_line(place / "killed-2.log"))

    click.secho("\n4. And once more, now that it is finished: it trains nothing.", bold=True)
    started = time.perf_counter()
    _wait(_start(killed, place / "killed-3.log"), place / "killed-3.log")
    for line in _told(place / "killed-3.log"):
        click.echo(f"   {line}")
    click.echo(f"   {time.perf_counter() - started:.1f} s, most of it for importing Keras")

    differing, compared = differing_state(control, killed)
    click.secho("\n5. Compared with the control, bit for bit:", bold=True)
    click.echo(f"   {compared} parts: weights, optimizer, metrics, random generators, callbacks, position, histories")
    for name in differing[:10]:
        click.echo(f"   differs: {name}")
    click.secho(f"   identical: {'no' if differing else 'yes'}\n", fg="red" if differing else "green", bold=True)

    click.echo(_table(killed))
    picture = place / "history.png"
    _plot(killed, picture)
    click.echo(f"\nThe picture of the killed run: {picture}\nLook into it: keepfit show {killed}")
    return 1 if differing else 0


def _start(directory: Path, log: Path) -> subprocess.Popen[bytes]:
    environment = {"KERAS_BACKEND": "jax", **os.environ, "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "keepfit.demo.training", str(directory)],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
        )


def _wait(process: subprocess.Popen[bytes], log: Path) -> None:
    try:
        status = process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    if status != 0:
        click.echo(log.read_text(errors="replace"), err=True)
        raise SystemExit(f"The training script ended with status {status}; its output is above.")


def _kill_in_second_fit(process: subprocess.Popen[bytes], directory: Path) -> str:
    """Kill the script when its second fit has a checkpoint inside and has gone on since."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
        if not (directory / "run.sqlite").exists():
            continue
        epoch = _epochs_in_second_fit(directory)
        if epoch is not None and epoch >= 8:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return f"in fit 2, after about {epoch} of its epochs"
    process.kill()
    raise SystemExit("The second fit was over before it could be killed; please run the demo again.")


def _epochs_in_second_fit(directory: Path) -> int | None:
    try:
        with Reader.open(directory) as reader:
            inside = [c for c in reader.checkpoints() if c.fit == 2 and c.kind == "inside"]
            epochs = [e for e in reader.epochs() if e.fit == 2]
    except Exception:  # noqa: BLE001 - the writer may be making the file at this moment
        return None
    return len(epochs) if inside else None


def _told(log: Path) -> list[str]:
    lines = log.read_text(errors="replace").splitlines()
    return [line for line in lines if "resumed" in line or "was done before" in line]


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "   " + lines[-1] if lines else ""


def _table(directory: Path) -> str:
    from keepfit.history import History

    return History.read(directory).table()


def _plot(directory: Path, picture: Path) -> None:
    from keepfit.history import History

    History.read(directory).plot(picture)
