"""What processes read with in `test_readers`: a module that imports no backend."""

import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np


def span(item):
    """Return inputs and targets that say which sample they are."""
    start, stop = item
    numbers = np.arange(start, stop)
    return np.stack([numbers, -numbers], axis=1).astype("float64"), numbers.astype("int32")


def process(item):
    """Return which process reads."""
    return np.full((4, 1), os.getpid(), "int32")


def heavy_modules(item):
    """Return whether Keras and the backends are imported where this is read."""
    return np.array([[name in sys.modules for name in ("keras", "jax", "tensorflow", "torch")]] * 2)


def printing(item):
    """Print between the answers."""
    print("a line")
    return span(item)


class Faulty:
    """Fails at the second of two partitions while a file is there.

    Args:
        flag: The file.
        how: In which way.
    """

    def __init__(self, flag, how):
        self.flag, self.how = flag, how

    def __call__(self, item):
        if item[0] and Path(self.flag).exists():
            getattr(self, self.how)()
        return span(item)

    def killed(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def exits(self):
        os._exit(3)

    def raises(self):
        raise OSError("the disk is away")

    def hangs(self):
        threading.Event().wait()

    def leaves(self):
        raise SystemExit("enough")

    def odd(self):
        raise Odd(threading.Lock())


class FaultyFile(Faulty):
    """Reads ``.npz`` files, and fails at the one of partition 3 while another file is there."""

    def __call__(self, path):
        if "part-3" in str(path) and Path(self.flag).exists():
            getattr(self, self.how)()
        with np.load(path) as file:
            return file["x"], file["y"]


class Odd(Exception):
    """An exception that no pickle takes."""


def unwatched(pids):
    """Take its parent for alive whatever comes, note each look at it, and never return."""
    parent = os.getppid()

    def alive():
        with Path("looks").open("a") as file:
            file.write("looked\n")
        return parent

    os.getppid = alive
    forever(pids)


class Rows:
    """A table of a class that a process that reads can import: a column of numbers, given for slices.

    Args:
        count: Its rows.
    """

    column_names = ("x", "label")

    def __init__(self, count):
        self._count = count

    def __len__(self):
        return self._count

    def __getitem__(self, rows):
        numbers = np.arange(self._count)[rows]
        return {"x": numbers * 1.0, "label": numbers}


class HangsWhenCounted(Rows):
    """A table whose length is never told."""

    def __len__(self):
        threading.Event().wait()


def hangs(item):
    """Never return."""
    threading.Event().wait()


def dies(item):
    """Take the process along, whichever it is."""
    os._exit(4)


def forever(pids):
    """Write down which process this is, and never return."""
    with Path(pids).open("a") as file:
        file.write(f"{os.getpid()}\n")
    threading.Event().wait()
