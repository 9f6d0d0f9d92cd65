"""Items of a PyDataset made ahead, in order, by threads or processes."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any


class Prefetch:
    """Makes the coming items while the current one is used.

    Args:
        dataset: Gives items by index.
        workers: Threads or processes that make items, 1 or more.
        processes: Whether they are processes, which get a copy of the data set.
        size: Most items made ahead, 1 or more.
    """

    def __init__(self, dataset: Any, *, workers: int, processes: bool, size: int) -> None:
        self._size = max(1, size)
        self._waiting: deque[Future[Any]] = deque()
        self._indices: Iterator[int] = iter(())
        self._executor: Executor
        if processes:
            # The start method is the process's own, as for Keras's workers: fork, where it is the default,
            # needs no `if __name__ == "__main__"` in the user's script.
            self._executor = ProcessPoolExecutor(
                workers, mp_context=multiprocessing.get_context(), initializer=_set_dataset, initargs=(dataset,)
            )
            self._make: Any = _item
        else:
            self._executor = ThreadPoolExecutor(workers, thread_name_prefix="keepfit-data")
            self._make = dataset.__getitem__

    def start(self, indices: Iterator[int]) -> None:
        """Make the items at ``indices`` from now on; what was made ahead before is dropped."""
        self._drop()
        self._indices = indices
        self._fill()

    @property
    def has_next(self) -> bool:
        """Whether there is another item."""
        return bool(self._waiting)

    def next_item(self) -> Any:
        """Return the next item; raises what making it raised."""
        item = self._waiting.popleft().result()
        self._fill()
        return item

    def close(self) -> None:
        """Stop the workers; items being made are waited for and dropped."""
        self._drop()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _fill(self) -> None:
        while len(self._waiting) < self._size:
            index = next(self._indices, None)
            if index is None:
                return
            self._waiting.append(self._executor.submit(self._make, index))

    def _drop(self) -> None:
        for future in self._waiting:
            future.cancel()
        self._waiting.clear()


_DATASET: Any = None  # in a worker process: its copy of the data set


def _set_dataset(dataset: Any) -> None:
    global _DATASET
    _DATASET = dataset


def _item(index: int) -> Any:
    return _DATASET[index]
