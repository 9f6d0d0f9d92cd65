"""Finished epochs, held in columns: about a hundred bytes each."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from math import isnan, nan
from typing import Any, overload

from keepfit.journal import EpochRecord

_COUNTS = ("fit", "epoch", "label", "steps", "step", "samples")
_REALS = ("learning_rate", "seconds", "ended")


class EpochLog(Sequence[EpochRecord]):
    """The epochs of the current branch, oldest first, as a read-only list.

    A thousand fits of one epoch would hold half a megabyte as records; here
    the numbers lie in arrays, and records are made when they are asked for.
    """

    def __init__(self) -> None:
        self._counts = {name: array("q") for name in _COUNTS}
        self._reals = {name: array("d") for name in _REALS}
        self._keys: list[tuple[str, ...]] = []  # the names of the logs, shared by equal rows
        self._key_of: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._starts = array("q")  # where the logs of each row begin in `_logs`
        self._logs = array("d")
        self._others: dict[int, tuple[Any, ...]] = {}  # row -> logs that are not all numbers

    def put(self, record: EpochRecord) -> None:
        """Append an epoch; one with an equal or later index is replaced."""
        self.cut(epoch=record.epoch)
        for name, counts in self._counts.items():
            counts.append(getattr(record, name))
        for name, reals in self._reals.items():
            value = getattr(record, name)
            reals.append(nan if value is None else value)
        names = tuple(record.logs)
        self._starts.append(len(self._logs))
        try:
            self._logs.extend(array("d", record.logs.values()))
        except TypeError:  # a metric of the user whose result is not one number
            self._others[len(self)] = tuple(record.logs.values())
        self._keys.append(self._key_of.setdefault(names, names))

    def cut(self, *, epoch: int | None = None, fit: int | None = None) -> int:
        """Forget epochs from index ``epoch`` on, and those of fits after ``fit``.

        Returns:
            How many were forgotten.
        """
        before = len(self)
        end = before
        if epoch is not None and end and self._counts["epoch"][-1] >= epoch:
            end = bisect_left(self._counts["epoch"], epoch)
        if fit is not None:
            end = min(end, bisect_right(self._counts["fit"], fit))
        if end < before:
            del self._logs[self._starts[end] :]
            columns: list[Any] = [*self._counts.values(), *self._reals.values(), self._starts, self._keys]
            for column in columns:
                del column[end:]
            self._others = {row: logs for row, logs in self._others.items() if row < end}
        return before - end

    def last_logs(self, fit: int) -> dict[str, float]:
        """Return the logs of the last finished epoch of a fit, empty if it has none."""
        index = bisect_right(self._counts["fit"], fit) - 1
        if index < 0 or self._counts["fit"][index] != fit:
            return {}
        return self._logs_of(index)

    def of(self, fit: int) -> list[EpochRecord]:
        """Return the epochs of one fit, oldest first."""
        column = self._counts["fit"]
        return self[bisect_left(column, fit) : bisect_right(column, fit)]

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, index: int) -> EpochRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[EpochRecord]: ...
    def __getitem__(self, index: int | slice) -> EpochRecord | list[EpochRecord]:
        if isinstance(index, slice):
            return [self._record(position) for position in range(len(self))[index]]
        return self._record(range(len(self))[index])

    def __iter__(self) -> Iterator[EpochRecord]:
        return iter(self[:])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return self[:] == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"EpochLog({self[:]!r})"

    def _record(self, index: int) -> EpochRecord:
        counts = {name: column[index] for name, column in self._counts.items()}
        rate = self._reals["learning_rate"][index]
        return EpochRecord(
            **counts,
            logs=self._logs_of(index),
            learning_rate=None if isnan(rate) else rate,
            seconds=self._reals["seconds"][index],
            ended=self._reals["ended"][index],
        )

    def _logs_of(self, index: int) -> dict[str, Any]:
        names, start = self._keys[index], self._starts[index]
        found = self._others.get(index)
        return dict(zip(names, self._logs[start : start + len(names)] if found is None else found, strict=True))
