"""The live line of a fit."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import threading
import types
from typing import Any

import pytest
from rich.errors import LiveError
from rich.live import Live

from keepfit.callbacks.bar import Bar, Clock, Line, NotebookBar, TerminalBar, _duration, drawn

FACTS: dict[str, Any] = {"fit": 2, "name": "head", "epochs": 5, "first_epoch": 5, "steps": 10}


class Time:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Shown(Bar):
    """A bar that keeps its lines."""

    def __init__(self, **facts: Any) -> None:
        super().__init__(**facts)
        self.lines: list[Line] = []
        self.stopped = 0

    def _show(self, line: Line) -> None:
        self.lines.append(line)

    def _stop(self) -> None:
        self.stopped += 1


def begun(**facts: Any) -> tuple[Shown, Time]:
    """Return a bar that has begun, and its clock."""
    bar, clock = Shown(**{**FACTS, **facts}), Time()
    bar.begin()
    bar.clock = Clock(clock)
    return bar, clock


def update(bar: Shown, step: int, logs: Any = None) -> Line:
    """Update a bar at once; return the line."""
    bar._next_drawing_s = 0.0
    bar.update(step, logs)
    return bar.lines[-1]


def test_bar_shows_place_metrics_pace_and_remaining_time():
    """A line says where the fit is, how it does, and how long it takes."""
    bar, clock = begun()
    bar.epoch_begin(5)
    clock.now_s = 60.0
    update(bar, 2)
    clock.now_s = 60.5
    line = update(bar, 7, lambda: {"loss": 0.123456})
    assert line == Line("fit 2 (head)", 7 / 50, "epoch 6/10  step 7/10", "4.3 s left", "100 ms/step", ("loss 0.1235",))


def test_bar_does_not_count_the_compilation_nor_steps_done_before():
    """A resumed fit's pace is that of this process, without the first dispatch."""
    bar, clock = begun()
    bar.epoch_begin(9)
    clock.now_s = 100.0
    assert update(bar, 4).pace == ""
    clock.now_s = 101.0
    line = update(bar, 6)
    assert (line.pace, line.left) == ("500 ms/step", "2.0 s left")


def test_bar_counts_validation_for_the_rest_but_not_for_the_pace():
    """What lies between epochs takes time, and no step is slower for it."""
    bar, clock = begun()
    bar.epoch_begin(5)
    update(bar, 1)
    clock.now_s = 0.9
    update(bar, 10)
    bar.validation()
    clock.now_s = 10.9
    bar.epoch_end(5, {"loss": 1.0}, 10.9)
    bar.epoch_begin(6)
    clock.now_s = 11.0
    line = update(bar, 1)
    assert (line.pace, line.left) == ("100 ms/step", "43 s left")


def test_bar_says_that_it_validates():
    """The line tells why no step is made."""
    bar, _ = begun()
    bar.epoch_begin(5)
    bar._next_drawing_s = 0.0
    bar.validation()
    assert bar.lines[-1].pace == "validating"
    assert update(bar, 1).pace == ""


def test_bar_keeps_validation_metrics_while_the_next_epoch_runs():
    """The last val_loss is there until there is a new one."""
    bar, _ = begun()
    bar.epoch_begin(5)
    bar.epoch_end(5, {"loss": 1.0, "val_loss": 2.0}, 1.0)
    bar.epoch_begin(6)
    assert update(bar, 1, {"loss": 0.5}).metrics == ("loss 0.5", "val_loss 2")


def test_bar_draws_seldom():
    """A thousand updates do not compute a thousand logs."""
    bar, _ = begun()
    bar.epoch_begin(5)
    asked = []
    update(bar, 1, lambda: asked.append(1) or {})
    bar._next_drawing_s = float("inf")
    for step in range(1000):
        bar.update(step, lambda: asked.append(1) or {})
    assert len(asked) == 1


def test_bar_learns_the_length_of_an_epoch():
    """After one epoch of a generator the share that is done is known."""
    bar, _ = begun(steps=None)
    bar.epoch_begin(5)
    line = update(bar, 3)
    assert (line.share, line.place) == (None, "epoch 6/10  step 3")
    bar.update(20, None)
    bar.epoch_end(5, {}, 1.0)
    bar.epoch_begin(6)
    assert update(bar, 5).share == 25 / 100


def test_bar_ends_with_the_last_epochs_metrics_and_the_time_it_took():
    """When a fit is over its line says how it ended; where it stopped early, how far it came."""
    bar, clock = begun()
    bar.epoch_begin(6)
    bar.epoch_end(6, {"loss": 0.5}, 1.0)
    clock.now_s = 75.4
    bar.end({"loss": 0.5, "val_loss": 0.25})
    line = bar.lines[-1]
    assert (line.place, line.left, line.share) == ("epoch 7/10", "1:15 min", 0.4)
    assert line.metrics == ("loss 0.5", "val_loss 0.25")


def test_bar_may_be_aborted_at_any_time():
    """An error before the beginning, in the middle or after the end leaves nothing open."""
    bar = Shown(**FACTS)
    bar.abort()
    assert (bar.lines, bar.stopped) == ([], 0)
    bar.begin()
    bar.epoch_begin(6)
    bar.update(3, None)
    bar.abort()
    assert bar.lines[-1].place == "epoch 7/10  step 3/10"
    bar.abort()
    bar.end({})
    bar.update(1, None)
    bar.epoch_begin(5)
    bar.epoch_end(5, {}, 1.0)
    assert bar.stopped == 1


LINE = Line(
    "fit 2 (head)", 0.5, "epoch 7/10  step 5/10", "3.1 s left", "12.3 ms/step", ("loss 0.1234", "val_loss 0.2345")
)


@pytest.mark.parametrize("width", [20, 40, 59, 60, 80, 100, 130, 200])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_drawn_fits_the_terminal(width, ascii_only):
    """A line that were longer than the terminal would be broken, and leave its halves behind."""
    text = drawn(LINE, width=width, ascii_only=ascii_only)
    assert text.cell_len < width
    assert text.plain.startswith("fit 2 (head)")
    assert not ascii_only or text.plain.isascii()


def test_drawn_shows_all_where_there_is_room():
    """In a wide terminal nothing is left out."""
    plain = drawn(LINE, width=130, ascii_only=True).plain
    assert plain == (
        "fit 2 (head)  ############------------  epoch 7/10  step 5/10  3.1 s left  12.3 ms/step  "
        "loss 0.1234  val_loss 0.2345"
    )


@pytest.mark.parametrize("final", [False, True])
def test_drawn_leaves_whole_metrics_out_and_the_losses_last(final):
    """A number is there as a whole or not at all; other metrics give way before loss and val_loss."""
    metrics = tuple(f"{name} 0.1234" for name in ("loss", "mae", "a_metric_with_a_long_name", "val_loss", "val_mae"))
    line = Line("fit 1", 0.5, "epoch 7/10  step 5/10", "3.1 s left", "12.3 ms/step", metrics, final)
    shown_before: set[str] = set()
    for width in range(24, 200):
        plain = drawn(line, width=width, ascii_only=False).plain
        shown = {name.split(" ")[0] for name in metrics if f" {name}" in plain}
        assert plain.count("0.1234") == len(shown) == plain.count(" 0.")
        assert shown_before <= shown
        assert shown <= {"loss", "val_loss"} or {"loss", "val_loss"} <= shown
        assert (plain[-1] == "…") == (0 < len(shown) < 5 and bool(shown - {"loss"}) and "…" in plain)
        shown_before = shown
    assert shown_before == {"loss", "mae", "a_metric_with_a_long_name", "val_loss", "val_mae"}


def test_drawn_keeps_the_losses_and_a_bar_at_80_columns():
    """The usual terminal shows how far a fit is and how it does; a line that stays gives its bar for the metrics."""
    metrics = ("loss 9.521", "mae 2.457", "val_loss 6.776", "val_mae 2.089")
    line = Line("fit 1", 1.0, "epoch 1/3  step 102/105", "1.3 s left", "6.17 ms/step", metrics)
    assert drawn(line, width=80, ascii_only=True).plain == (
        "fit 1  ########  epoch 1/3  102/105  1.3 s left  loss 9.521  val_loss 6.776"
    )
    line = Line("fit 1", 1.0, "epoch 3/3", "1.3 s", "6.17 ms/step", metrics, final=True)
    assert drawn(line, width=80, ascii_only=True).plain == (
        "fit 1  epoch 3/3  1.3 s  loss 9.521  mae 2.457  val_loss 6.776  val_mae 2.089"
    )


def test_notebook_bar_replaces_one_output(monkeypatch):
    """A cell has one line that is replaced; a cell that is run again has a line of its own; names are escaped."""
    shown: list[list[dict[str, str]]] = []

    def display(bundle, *, raw, display_id):
        shown.append([bundle])
        return types.SimpleNamespace(update=lambda bundle, raw: shown[-1].append(bundle))

    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    for _ in range(2):
        bar = NotebookBar(**{**FACTS, "name": "<head>"})
        bar.begin()
        bar.epoch_begin(5)
        bar.epoch_end(5, {"loss": 0.5}, 1.0)
        bar.end({"loss": 0.5})
    assert [len(outputs) > 1 for outputs in shown] == [True, True]
    last = shown[-1][-1]
    assert "fit 2 (&lt;head&gt;)" in last["text/html"]
    assert 'value="0.2000"' in last["text/html"]
    assert last["text/plain"].endswith("loss 0.5")


SCRIPT = """
import sys, threading
from keepfit.callbacks import bar, make_progress
bar._BETWEEN_DRAWINGS_S = 0.0
out, err = sys.stdout, sys.stderr
progress = make_progress("auto", fit=2, name="[head]", epochs=2, first_epoch=0, steps=3)
progress.begin("fit 2 resumed at epoch 1, step 1")
for epoch in range(2):
    progress.epoch_begin(epoch)
    for step in range(3):
        progress.update(step + 1, {"loss": 0.5})
        if step == 1:
            print("printed", end=" ")
            print("by a callback")
            print("an error", file=sys.stderr)
            progress.say("[said]")
    progress.epoch_end(epoch, {"loss": 0.25}, 1.0)
END
print("threads", threading.active_count(), sys.stdout is out, sys.stderr is err)
"""


def on_a_terminal(script: str, *arguments: str, errors: Any = None, **environment: str) -> str:
    """Return what a script leaves on a terminal 100 columns wide, escape sequences applied."""
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "KERAS_BACKEND": "jax", **environment}
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=child,
        stderr=errors or child,
        env=environment,
        close_fds=True,
    )
    os.close(child)
    written = b""
    while True:
        try:
            piece = os.read(parent, 65536)
        except OSError:  # the other end was closed
            break
        if not piece:
            break
        written += piece
    os.close(parent)
    assert process.wait() == 0, written.decode()
    return written.decode()


def seen(written: str) -> list[str]:
    """Return the lines that a person sees: what was erased and drawn again is not there."""
    lines, column = [""], 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", written):
        if token == "\r":
            column = 0
        elif token == "\n":
            lines.append("")
            column = 0
        elif token.endswith("K") and token.startswith("\x1b"):
            lines[-1] = ""
        elif token.endswith("A") and token.startswith("\x1b"):
            raise AssertionError("the bar is one line, nothing moves up")
        elif not token.startswith("\x1b"):
            lines[-1] = lines[-1][:column] + token + lines[-1][column + len(token) :]
            column += len(token)
    return [line.rstrip() for line in lines]


def test_terminal_bar_leaves_one_line_and_what_was_printed():
    """Prints of callbacks stand above the bar, in order, the finished bar below them, and no thread is left."""
    written = on_a_terminal(SCRIPT.replace("END", "progress.end({'loss': 0.25})"))
    lines = seen(written)
    printed = ["printed by a callback", "an error", "[said]"]
    assert lines[:-3] == ["fit 2 resumed at epoch 1, step 1", *printed, *printed]
    assert re.fullmatch(r"fit 2 \(\[head\]\)  ━{24}  epoch 2/2  0\.\d\d s  .*loss 0.25", lines[-3])
    assert lines[-2:] == ["threads 1 True True", ""]
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1


FITS = """
import sys, threading, warnings
warnings.simplefilter("ignore")
import keepfit, keras
from keepfit.callbacks import bar
import numpy as np
bar._BETWEEN_DRAWINGS_S = 0.0
x = np.zeros((8, 2), "float32")
class Fail(keras.callbacks.Callback):
    armed = True
    def on_train_batch_end(self, batch, logs=None):
        if self._epoch == 1 and batch == 2 and self.armed:
            Fail.armed = False
            raise ZeroDivisionError
    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch
model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
out, err, threads = sys.stdout, sys.stderr, threading.active_count()
def fit():
    return model.fit(x, x[:, :1], batch_size=2, epochs=3, callbacks=[Fail()])
for _ in range(2):
    keepfit.attach(model, sys.argv[1])
    try:
        fit()
    except ZeroDivisionError:
        print("failed", sys.stdout is out, sys.stderr is err)
        print("an error", file=sys.stderr)
        fit()
    model.run.close()
print("threads", threading.active_count() - threads)
"""


def test_terminal_bar_of_fits_that_fail_resume_and_are_replayed(tmp_path):
    """Bars stand where they ended, the cursor comes back, errors stay in their file, messages tell what was done."""
    with (tmp_path / "errors").open("wb") as errors:
        written = on_a_terminal(FITS, str(tmp_path / "run"), errors=errors)
    assert (tmp_path / "errors").read_text() == "an error\n"
    lines = seen(written)
    patterns = [
        r"fit 1  ━+  epoch 2/3  step 3/4  .*loss 0",
        "failed True True",
        "fit 1 resumed at epoch 2, step 3",
        r"fit 1  ━+  epoch 3/3  .*loss 0",
        "fit 1 was done before: 3 epochs, loss 0",
        "threads 0",
        "",
    ]
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), lines
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 2


def test_terminal_bar_lives_beside_a_display_of_the_script():
    """A script that shows a live display of its own around fit is not stopped by the bar."""
    around = (
        "from rich.progress import Progress\n"
        "with Progress(auto_refresh=False) as mine:\n"
        "    mine.add_task('mine', total=3)\n"
    )
    body = SCRIPT.replace("END", "progress.end({'loss': 0.25})").replace("\n", "\n    ")
    assert "mine" in on_a_terminal(around + body)


def test_terminal_bar_becomes_plain_lines_where_rich_refuses(monkeypatch, capsys):
    """Older versions of rich show one live display only: the fit then has lines, and its metrics are not lost."""

    def refuse(live):
        raise LiveError("Only one live display may be active at once")

    monkeypatch.setattr(Live, "start", refuse)
    bar = TerminalBar(**FACTS)
    bar.begin()
    bar.epoch_begin(5)
    bar.epoch_end(5, {"loss": 0.5}, 1.0)
    bar.end({"loss": 0.5})
    assert capsys.readouterr().out == "fit 2 (head) | epoch 6/10 | 10 steps, 1.00 s | loss 0.5\n"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.034, "0.03 s"), (9.94, "9.9 s"), (59.4, "59 s"), (59.6, "1:00 min"), (3599, "59:59 min"), (3661, "1:01:01")],
)
def test_durations_have_the_digits_that_matter(seconds, told):
    """Short times have fractions, long ones minutes and hours."""
    assert _duration(seconds) == told


def test_bar_starts_no_thread():
    """The training thread draws; nobody else takes time from it."""
    before = threading.active_count()
    bar, _ = begun()
    bar.epoch_begin(5)
    assert threading.active_count() == before
    bar.end({})


def test_bar_of_frozen_layers_is_shown_where_they_take_long(monkeypatch):
    """A line of its own moves while features are computed, says what is left, and stays; what is quick shows none."""
    clock = Time()
    monkeypatch.setattr("keepfit.callbacks.bar.time.perf_counter", clock)
    bar = Shown(**FACTS)
    for done in (10, 20, 30):
        clock.now_s += 0.6
        bar.features(done, 40)
    assert [(line.place, line.share, line.left) for line in bar.lines] == [
        ("frozen layers, once: sample 30/40", 0.75, "0.40 s left")
    ]
    bar.features_end()
    assert bar.lines[-1].final
    assert bar.stopped == 1
    bar.begin()
    bar.abort()
    quick = Shown(**FACTS)
    quick.features(40, 40)
    quick.features_end()
    quick.features_end()
    assert (quick.lines, quick.stopped) == ([], 0)


def test_bar_of_frozen_layers_ends_where_it_is_interrupted(monkeypatch):
    """What is drawn when Ctrl-C comes is let go, so that the terminal is as before."""
    clock = Time()
    monkeypatch.setattr("keepfit.callbacks.bar.time.perf_counter", clock)
    bar = Shown(**FACTS)
    bar.features(1, 40)
    clock.now_s = 2.0
    bar.features(2, 40)
    bar.features_end()
    assert bar.lines[-1].place.endswith("sample 2/40")
    assert bar.stopped == 1
