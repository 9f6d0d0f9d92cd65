"""Data in partitions, of which a few are in memory at a time: what a user gives to ``fit`` as ``x``."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from keepfit.data.partitioned.budget import Budget
from keepfit.data.partitioned.loading import Layout, OtherContentError, fill, first_rows
from keepfit.data.partitioned.room import Room
from keepfit.data.partitioned.shelf import Shelf, StuckError
from keepfit.data.partitioned.sides import rows_of_side
from keepfit.data.partitioned.timed import timed
from keepfit.errors import InvalidArgument, InvalidData, KeepfitError, PartitionChanged, PartitionFailed, warn
from keepfit.readers.formats import part_of
from keepfit.readers.memory_tables import MemoryTablePart, is_table
from keepfit.readers.part import Part
from keepfit.readers.wire import refusal
from keepfit.readers.workers import Workers
from keepfit.recipe import code_identity

DEFAULT_WINDOW = 4
_FIRST_ROWS = 8  # that tell functions apart
_NO_SAMPLES = "There are no samples in any of the partitions. Nothing was changed."


def partitions(
    parts: Iterable[Any],
    *,
    load: Callable[[Any], Any] | None = None,
    target: str | None = None,
    sizes: Sequence[int] | None = None,
    window: int = DEFAULT_WINDOW,
    memory: int | None = None,
    workers: int = 1,
    processes: bool = False,
    timeout_s: float | None = None,
    on_error: str = "raise",
) -> Partitions:
    """Return data in partitions as one source for ``fit``, ``evaluate`` and ``predict``.

    One epoch visits every sample once, in an order that depends on the run's
    seed, the epoch, the sizes and the window alone; batches run across the
    borders of partitions.

    Args:
        parts: The partitions, in an order that stays: paths (``.npy``, ``.npz``, HDF5, Zarr, Parquet,
            Arrow, CSV), tuples of ``.npy`` paths of ``x``, ``y`` and ``sample_weight``, tables (Arrow tables
            and record batches, Hugging Face data sets), or functions that return what ``fit`` takes.
            A path or a table alone is the only partition.
        load: Returns a partition, ``x``, ``(x, y)`` or ``(x, y, sample_weight)``, for one of ``parts``;
            None reads files by their format.
        target: Name of the array or column that is ``y``, in files and tables, where arrays have names.
        sizes: Samples in each partition; None looks once.
        window: Partitions that are mixed at once, 1 or more; part of the recipe. A window over all
            partitions gives the order of arrays in memory.
        memory: Largest size of the data in memory, in bytes; None sets no limit. Where the window does
            not fit, this is said.
        workers: Partitions that are read in the background at once, each by a thread of its own.
        processes: Whether each is read by a process of its own instead, for a ``load`` that Python's lock would
            hold up: it and the partitions lie in modules, not in the script, and can be pickled. They count
            and look at the first rows as well.
        timeout_s: Longest time to wait for a partition, and for each look at one (its size, its first rows), in
            seconds; None waits.
        on_error: ``"raise"`` where a partition cannot be read, or ``"skip"`` to go on without it: samples of
            other partitions take the places of its own, which is warned of and recorded.

    Returns:
        The data: ``x`` of ``fit``.

    Raises:
        InvalidArgument: An argument has no meaning.

    Example:
        >>> data = partitions([lambda: (np.zeros((3, 2)), np.zeros(3)), lambda: (np.ones((4, 2)), np.ones(4))])
        >>> data.sizes
        (3, 4)
    """
    alone = isinstance(parts, (str, Path)) or is_table(parts)
    if not alone and (isinstance(parts, Mapping) or not isinstance(parts, Iterable)):
        raise InvalidArgument(
            f"partitions cannot take a {type(parts).__name__} as parts: expected a list of paths, tables or functions. "
            "Nothing was changed. Of a dict, give the values that are meant, in an order that stays.",
            argument="parts",
            value=parts,
        )
    given = [parts] if alone else list(parts)
    if not given:
        raise InvalidArgument("partitions() got no partitions. Nothing was changed. Give a list of paths or functions.")
    for name, value in (("window", window), ("workers", workers)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InvalidArgument(
                f"partitions cannot take {name}={value!r}: expected a whole number, 1 or more. Nothing was changed.",
                argument=name,
                value=value,
            )
    if not isinstance(processes, bool):
        raise InvalidArgument(
            f"partitions cannot take processes={processes!r}: expected True or False. Nothing was changed. "
            "Give the number of processes as workers=.",
            argument="processes",
            value=processes,
        )
    if on_error not in ("raise", "skip"):
        raise InvalidArgument(
            f'partitions cannot take on_error={on_error!r}: expected "raise" or "skip". Nothing was changed.',
            argument="on_error",
            value=on_error,
        )
    for name, number in (("memory", memory), ("timeout_s", timeout_s)):
        if number is not None and (not isinstance(number, Real) or isinstance(number, bool) or not number > 0):
            raise InvalidArgument(
                f"partitions cannot take {name}={number!r}: expected a number above 0, or None. Nothing was changed.",
                argument=name,
                value=number,
            )
    if load is not None and not callable(load):
        raise InvalidArgument(
            f"partitions cannot take load={load!r}: expected a function of one of the parts. Nothing was changed.",
            argument="load",
            value=load,
        )
    if target is not None and not isinstance(target, str):
        raise InvalidArgument(
            f"partitions cannot take target={target!r}: expected the name of an array or column. Nothing was changed.",
            argument="target",
            value=target,
        )
    sizes = list(sizes) if isinstance(sizes, Iterable) else sizes
    if sizes is not None and not _are_sizes(sizes, len(given)):
        shown = sizes[:5] if isinstance(sizes, list) else sizes
        raise InvalidArgument(
            f"partitions cannot take sizes={shown!r}: expected {len(given)} numbers, 0 or more, one for "
            "each partition. Nothing was changed.",
            argument="sizes",
            value=sizes,
        )
    made = tuple(part_of(item, number, load=load, target=target) for number, item in enumerate(given))
    if processes:
        _check_sendable(made)
    return Partitions(
        made,
        sizes=None if sizes is None else tuple(int(size) for size in sizes),
        settings=Settings(
            window=window, memory=memory, workers=workers, processes=processes, timeout_s=timeout_s, on_error=on_error
        ),
        load=load,
    )


def _are_sizes(sizes: Any, count: int) -> bool:
    whole = isinstance(sizes, list) and all(isinstance(n, Integral) and not isinstance(n, bool) for n in sizes)
    return whole and len(sizes) == count and all(size >= 0 for size in sizes)


@dataclass(frozen=True)
class Settings:
    """How partitions are held; the arguments of `partitions`."""

    window: int
    memory: int | None
    workers: int
    processes: bool
    timeout_s: float | None
    on_error: str


@dataclass(frozen=True)
class Side:
    """The samples of partitions that are held back for validation, or the others.

    Args:
        partitions: The data.
        fraction: How many samples are held back.
        held_back: Whether it is those.
    """

    partitions: Partitions
    fraction: float
    held_back: bool


class Partitions:
    """Data in partitions; made by `partitions`.

    Args:
        parts: The partitions.
        sizes: Samples in each, or None where they are still to be counted.
        settings: How they are held.
        load: What the user gave to read them.

    Attributes:
        load_code: The user's own code in ``load``, with the plain values it was made with.
        skipped: Partitions that are left out, as ``on_error="skip"`` asks.
        told: What was said of them and is not recorded yet.
    """

    def __init__(
        self, parts: tuple[Part, ...], *, sizes: tuple[int, ...] | None, settings: Settings, load: Any = None
    ) -> None:
        self.parts = parts
        self.settings = settings
        # Before anything is read: what a load notes while it reads is no change of it.
        self.load_code = code_identity(load)
        self._sizes = sizes
        self._facts: dict[int, tuple[Any, dict[str, Any]]] = {}
        self._head: tuple[Layout, list[NDArray[Any]]] | None = None
        self._told_rows = 0  # of the first partition, at the begin of `_head`
        self._shelf: Shelf | None = None
        self._clear_shelf: Callable[[], Any] = lambda: None
        self._workers = Workers(settings.timeout_s) if settings.processes else None
        if self._workers is not None:
            weakref.finalize(self, self._workers.close)
        self.skipped: set[int] = set()
        self.told: list[str] = []
        self._sides: dict[tuple[float, bool], NDArray[np.int64]] = {}

    @property
    def sizes(self) -> tuple[int, ...]:
        """Samples in each partition; counted once where they were not given."""
        if self._sizes is None:
            self._sizes = tuple(
                self._tried(number, partial(self._count, part), 0) for number, part in enumerate(self.parts)
            )
        return self._sizes

    @property
    def is_counted(self) -> bool:
        """Whether the sizes are known."""
        return self._sizes is not None

    def recall(self, sizes: Sequence[int]) -> None:
        """Take sizes that were counted before, of partitions with the same `digest`."""
        self._sizes = tuple(sizes)

    def digest(self) -> str:
        """Return what identifies the partitions before they are counted: their names and what their files are like.

        Functions, whose names say little, are told by the first rows of all too.
        """
        names = [part.name if not part.paths else _short(part) for part in self.parts]
        about: tuple[Any, ...] = (names, [sorted(facts.items()) for facts in self.note()])
        if not self.tells_content:
            about += (self._first_hash(),)
        return xxhash.xxh3_128_hexdigest(repr(about).encode())

    @property
    def count(self) -> int:
        """Samples in all."""
        return sum(self.sizes)

    def split(self, fraction: float) -> tuple[Side, Side]:
        """Return the samples to train on and those that are held back, by a hash of their place."""
        return Side(self, fraction, held_back=False), Side(self, fraction, held_back=True)

    def side_sizes(self, side: Side) -> NDArray[np.int64]:
        """Return how many samples of each partition are on a side."""
        key = (side.fraction, side.held_back)
        if key not in self._sides:
            self._sides[key] = np.array([len(self.side_rows(side, number)) for number in range(len(self.parts))])
        return self._sides[key]

    def side_rows(self, side: Side, number: int) -> NDArray[np.int64]:
        """Return the rows of a partition that are on a side."""
        return rows_of_side(number, self.sizes[number], side.fraction, held_back=side.held_back)

    # What the rows are like

    def head(self, count: int) -> list[NDArray[Any]]:
        """Return the first rows, ``count`` or as many as there are, array by array; they are read once."""
        wanted = min(count, self.count)
        self._told_by()
        assert self._head is not None
        if len(self._head[1][0]) < wanted:
            self._head = self._first_rows(wanted)
        return [array[:wanted] for array in self._head[1]]

    @property
    def layout(self) -> Layout:
        """What all rows have in common."""
        self._told_by()  # one look for both, since to look may be to call a function
        assert self._head is not None
        return self._head[0]

    def _told_by(self) -> list[NDArray[Any]]:
        """Return the first rows that tell functions apart, of the first partition that has any; sizes are not asked."""
        if self._head is None:
            looks = (self._first_of(number, _FIRST_ROWS) for number in range(len(self.parts)))
            self._head = next((found for found in looks if found is not None), None)
            if self._head is None:
                raise InvalidData(_NO_SAMPLES)
            self._told_rows = len(self._head[1][0])
        return [array[: self._told_rows] for array in self._head[1]]

    def _first_of(self, number: int, count: int) -> tuple[Layout, list[NDArray[Any]]] | None:
        if self._sizes is not None and not self._sizes[number]:
            return None
        found: tuple[Layout, list[NDArray[Any]]] | None
        found = self._tried(number, partial(self._first_rows_of, self.parts[number], count), None)
        return found

    def _first_rows(self, count: int) -> tuple[Layout, list[NDArray[Any]]]:
        layout: Layout | None = None
        taken: list[list[NDArray[Any]]] = []
        missing = count
        for number in range(len(self.parts)):
            if self.sizes[number] and missing > 0:
                found = self._first_of(number, missing)
                if found is None:
                    continue
                layout = layout or found[0]
                if difference := layout.difference(found[0]):
                    raise self._failed(number, OtherContentError(difference), sample=None)
                taken.append(found[1])
                missing -= len(found[1][0])
        if layout is None:
            raise InvalidData(_NO_SAMPLES)
        return layout, [np.concatenate(parts) for parts in zip(*taken, strict=True)]

    def _count(self, part: Part) -> int:
        if self._workers is not None:
            return self._workers.count(part)
        return timed(part.count, self.settings.timeout_s)

    def _first_rows_of(self, part: Part, most: int) -> tuple[Layout, list[NDArray[Any]]] | None:
        if self._workers is None:
            return timed(lambda: first_rows(part.first_pieces(most), most), self.settings.timeout_s)
        with contextlib.closing(self._workers.first_pieces(part, most)) as pieces:
            return first_rows(pieces, most)

    # Partitions in memory

    @property
    def shelf(self) -> Shelf:
        """The partitions in memory."""
        if self._shelf is None:
            budget = Budget.of(
                self.layout,
                self.sizes,
                workers=self.settings.workers,
                memory=self.settings.memory,
                is_whole=any(part.is_whole for part in self.parts),
                processes=self.settings.processes,
            )
            places = max(1, min(budget.places(self.settings.window), len(budget.largest)))
            room = Room(self.layout, places=places, rows=max(self.sizes))
            # Weakly: its threads are not to keep partitions that nobody uses any more.
            load = weakref.WeakMethod(self._load)
            self._shelf = Shelf(
                lambda number, place: load()(number, room, place),  # type: ignore[misc]
                room=room,
                places=places,
                workers=self.settings.workers,
                # A process that hangs is ended by the thread that waits for it.
                timeout_s=None if self.settings.processes else self.settings.timeout_s,
            )
            self._clear_shelf = weakref.finalize(self, self._shelf.clear)
        return self._shelf

    def get(self, wanted: dict[int, int]) -> dict[int, int]:
        """Return where partitions begin in the room of the shelf, whose lock is held.

        Args:
            wanted: Number of each partition -> the first sample that is needed of it.

        Raises:
            PartitionFailed: One cannot be read.
            StuckError: There is no place until the shelf was cleared.
        """
        found: dict[int, int] = {}
        for number in wanted:
            try:
                found[number] = self.shelf.get(number, keep=wanted)
            except StuckError:
                raise
            except BaseException as error:
                if self.shelf.is_stuck:
                    self.clear()
                if not isinstance(error, Exception):
                    raise
                raise self._failed(number, error, sample=wanted[number]) from error
        return found

    def clear(self) -> None:
        """Let go of the partitions in memory; they are read again when they are needed."""
        # A thread may still be filling a place: another shelf has other memory.
        self._clear_shelf()
        self._shelf = None

    def skip(self, number: int, message: str) -> None:
        """Leave a partition out from now on; says so, once."""
        if number not in self.skipped:
            self.skipped.add(number)
            self.told.append(message)
            warn(message)

    def close(self) -> None:
        """Let go of the partitions in memory and of processes; they come again when they are needed."""
        self.clear()
        if self._workers is not None:
            self._workers.close()

    def _load(self, number: int, room: Room, place: int) -> None:
        noted = self._facts.get(number)
        if noted is not None and (now := self.parts[number].facts()) != noted[1]:
            raise OtherContentError(_told(noted[1], now))
        part, layout, arrays = self.parts[number], self.layout, room.arrays_of(place, self.sizes[number])
        if self._workers is None:
            fill(arrays, part.pieces_into(arrays), layout)
            return
        with contextlib.closing(self._workers.pieces(part)) as pieces:
            fill(arrays, pieces, layout)

    # What identifies them

    def note(self) -> list[dict[str, Any]]:
        """Note what the files are like now, and return it; they must stay so while a fit lasts."""
        for number in range(len(self.parts)):
            self._note(number)
        return [self._facts[number][1] for number in range(len(self.parts))]

    @property
    def tells_content(self) -> bool:
        """Whether `fingerprint` depends on what is in each partition; of functions it has the first rows of all."""
        return all(part.tells_content for part in self.parts)

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies the data, as plain data."""
        facts = self.note()
        first = {} if self.tells_content else {"first": self._first_hash()}
        return {
            "kind": "partitions",
            "samples": self.count,
            "window": self.settings.window,
            "sizes": list(self.sizes),
            "names": [_short(part) for part in self.parts],
            "files": facts,
            "rows": self.layout.facts(),
            **first,
        }

    def _first_hash(self) -> str:
        state = xxhash.xxh3_128()
        for array in self._told_by():
            state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return state.hexdigest()

    def _note(self, number: int) -> None:
        part = self.parts[number]
        stamp = self._tried(number, lambda: [_stamp(path) for path in part.paths], None)
        if number not in self._facts or self._facts[number][0] != stamp:
            self._facts[number] = (stamp, self._tried(number, partial(timed, part.facts, self.settings.timeout_s), {}))

    def _tried(self, number: int, read: Callable[[], Any], instead: Any) -> Any:
        """Return what a look at a partition gives; where such a one is skipped, what stands for it."""
        try:
            return read()
        except Exception as error:
            failed = self._failed(number, error, sample=None)
            if self.settings.on_error != "skip":
                raise failed from error
            self.skip(number, f"Partition {number} ({self.parts[number].name}) is skipped, as on_error asks: {error}.")
            return instead

    def _failed(self, number: int, error: Exception, *, sample: int | None) -> KeepfitError:
        kind = PartitionChanged if isinstance(error, OtherContentError) else PartitionFailed
        name = self.parts[number].name
        what = f"{type(error).__name__}: {error}" if kind is PartitionFailed else str(error)
        asked = "while the data was looked at" if sample is None else f"when its sample {sample} was needed"
        verb = "is not what it was when the fit began" if kind is PartitionChanged else "could not be read"
        return kind(
            f"Partition {number} ({name}) {verb}, {asked}: {what}. "
            "Nothing of the step was trained: the model is as the last finished step left it. "
            "Repair the partition and call fit again, or run the script again: it goes on from there. "
            'partitions(..., on_error="skip") goes on without such a partition.',
            partition=number,
            name=name,
            sample=sample,
        )


def load_code(data: Any) -> dict[str, Any]:
    """Return the user's own code in the ``load`` of partitions, or of a side of them; empty for any other data."""
    if isinstance(data, Side):
        data = data.partitions
    return data.load_code if isinstance(data, Partitions) else {}


def _check_sendable(parts: Sequence[Part]) -> None:
    """Check that processes can get what reads partitions.

    Raises:
        InvalidArgument: One of any kind cannot be pickled, or needs a function or class of the script.
    """
    # Files and functions at once, since a load is in all of them; a table may be large, and is let go of again.
    tables = [part for part in parts if isinstance(part, MemoryTablePart)]
    others = [part for part in parts if not isinstance(part, MemoryTablePart)]
    if all(refusal(each) is None for each in (others, *(table.without_rows() for table in tables))):
        return
    for number, part in enumerate(parts):
        if (error := refusal(part.without_rows())) is not None:
            raise InvalidArgument(
                f"partitions(..., processes=True) cannot send partition {number} ({part.name}) to another process: "
                f"{error}. Nothing was changed. Move functions and classes that it needs (load, the transform of a "
                "data set) into a module (a .py file that the script imports), at its top, or give processes=False "
                "to read with threads.",
                argument="processes",
                value=True,
            ) from error


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _short(part: Part) -> str:
    return ", ".join(path.name for path in part.paths) or part.name


def _told(before: dict[str, Any], now: dict[str, Any]) -> str:
    if before.get("bytes") != now.get("bytes"):
        return f"its files have {now.get('bytes')} bytes, expected {before.get('bytes')}"
    return "its files have other content of the same size"
