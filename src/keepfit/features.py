"""What a frozen prefix gives for every sample of some data: computed once, then kept."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import xxhash
from numpy.typing import NDArray

from keepfit import held, nested
from keepfit.engine import Block, Engine
from keepfit.errors import warn
from keepfit.recorder import Recorder, failure
from keepfit.store import FeatureFiles

if TYPE_CHECKING:
    from keepfit.data import IndexedSource
    from keepfit.phases import Prefix

# Features up to here lie in memory, those of a fit's training and validation data together; larger ones on disk.
MEMORY_BYTES = 1 << 30
FOLDER = "features"
_REGISTER = "features"  # key of the register in the journal
_FORMAT = 1
_KEPT_SETS = 4
_HASHED_ROWS = 1 << 12


class Features:
    """The features of one run: a few sets of them, within a budget of memory.

    Args:
        recorder: Remembers which files are the run's own.
        directory: Folder of the run; None keeps files in a temporary folder, which goes with the process.
    """

    def __init__(self, recorder: Recorder, directory: Path | None) -> None:
        self._recorder = recorder
        self._directory = directory
        self._held: OrderedDict[str, list[NDArray[Any]]] = OrderedDict()
        self._filed: list[str] = []
        self._files: FeatureFiles | None = None

    def of(
        self,
        engine: Engine,
        source: IndexedSource,
        key: str,
        *,
        count: int,
        on_disk: bool,
        told: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> Any:
        """Return the features of all samples of a source, in its order: an array, or a list of them.

        Args:
            engine: Gives features in the place of predictions.
            source: The data.
            key: What `key_of` gave for both.
            count: How many tensors cross the cut.
            on_disk: Whether they are kept on disk rather than in memory.
            told: Is told of how many samples, of all, they were computed while that goes on.

        Raises:
            StoreFull, StoreFailed, RunReadOnly: They could not be written.
        """

        def make() -> Iterator[list[NDArray[Any]]]:
            done = 0
            for batch in computed(engine, source):
                done += len(batch[0])
                told(done, source.num_samples)
                yield batch

        arrays = self._on_disk(key, make, source, count) if on_disk else self._in_memory(key, make, source.num_samples)
        return arrays if count > 1 else arrays[0]

    def _in_memory(self, key: str, make: Callable[[], Iterator[list[NDArray[Any]]]], rows: int) -> list[NDArray[Any]]:
        if key not in self._held:
            self._held[key] = _together(make(), rows)
        self._held.move_to_end(key)
        return self._held[key]

    def thin_out(self, keys: list[str]) -> None:
        """Let features go, those last used first of all, until memory and disk are within their bounds.

        Args:
            keys: Those of the fit at hand, which stay.
        """
        for key in list(self._held):
            size = sum(array.nbytes for arrays in self._held.values() for array in arrays)
            if len(self._held) <= _KEPT_SETS and size <= MEMORY_BYTES:
                break
            if key not in keys:
                del self._held[key]

    def _on_disk(
        self, key: str, make: Callable[[], Iterator[list[NDArray[Any]]]], source: IndexedSource, count: int
    ) -> list[NDArray[Any]]:
        try:
            files = self._opened()
            self._filed = [*(k for k in self._filed if k != key), key][-_KEPT_SETS:]
            found = files.find(key, count)
            if isinstance(found, str):
                message = f"Features of the frozen layers are damaged and are computed again: {found}."
                self._recorder.event("damage", message)
                warn(message)
            if not isinstance(found, list):
                files.keep_only(self._filed)
                found = files.write(key, make(), source.num_samples)
            return found
        except OSError as error:
            raise failure(error, self._directory or files.root) from error

    def _opened(self) -> FeatureFiles:
        if self._files is None:
            root = self._directory
            if root is None:
                root = Path(tempfile.mkdtemp(prefix="keepfit-"))
                weakref.finalize(self, shutil.rmtree, root, ignore_errors=True)
            register = dict(self._recorder.meta.get(_REGISTER) or {})
            self._files = FeatureFiles(root / FOLDER, register=register, note=self._note)
            # Of an earlier process: the newest files may be of use, what it was writing is not.
            self._filed = list(dict.fromkeys(name.rsplit("-", 1)[0] for name, facts in register.items() if facts))
        return self._files

    def _note(self, register: dict[str, Any]) -> None:
        if self._directory is not None:
            self._recorder.set_meta(_REGISTER, register)
            self._recorder.flush()


def computed(engine: Engine, source: IndexedSource) -> Iterator[list[NDArray[Any]]]:
    """Yield the features of a source's samples, batch by batch, in the order of the samples.

    All batches have the size that training has, the last one filled up with
    its last sample: a batch of another size may take another path through the
    backend's kernels, and what a sample gives must not depend on how many
    others there are.
    """
    size, total = min(source.batch_size, source.num_samples), source.num_samples
    for start in range(0, total, size):
        rows = np.minimum(np.arange(start, start + size, dtype=np.int64), total - 1)
        x = inputs_of(source.take(rows))
        found = engine.predict(Block(count=1, samples=size, batches=((x,),)))[0]
        real = min(size, total - start)
        yield [np.asarray(leaf)[:real] for leaf in (found if isinstance(found, list) else [found])]


def _together(batches: Iterator[list[NDArray[Any]]], rows: int) -> list[NDArray[Any]]:
    """Return batches as arrays of so many rows, without a second copy of all."""
    arrays: list[NDArray[Any]] = []
    start = 0
    for batch in batches:
        arrays = arrays or [np.empty((rows, *part.shape[1:]), part.dtype) for part in batch]
        for array, part in zip(arrays, batch, strict=True):
            array[start : start + len(part)] = part
        start += len(batch[0])
    return arrays


def inputs_of(batch: Any) -> Any:
    """Return ``x`` of a batch."""
    return keras.utils.unpack_x_y_sample_weight(batch)[0]


def key_of(prefix: Prefix, source: IndexedSource, *, facts: Any) -> str:
    """Return what features depend on as a hash: every weight and setting of the prefix, all inputs, the conditions.

    Args:
        prefix: The prefix.
        source: The data; only its inputs count.
        facts: Backend, versions, device and threads.
    """
    state = xxhash.xxh3_128(weights_hash(prefix).encode())
    about = [_FORMAT, prefix.description(), source.batch_size, facts]
    state.update(json.dumps(about, sort_keys=True, default=str).encode())
    # A column at a time would be one more way to read; rows in a row are views for arrays.
    for start in range(0, source.num_samples, _HASHED_ROWS):
        rows = np.arange(start, min(start + _HASHED_ROWS, source.num_samples), dtype=np.int64)
        for leaf in nested.flatten(inputs_of(source.take(rows))):
            _update(state, leaf)
    return state.hexdigest()


def weights_hash(prefix: Prefix) -> str:
    """Return the hash of every variable of a prefix."""
    state = xxhash.xxh3_128()
    for variable in prefix.variables:
        _update(state, held.value(variable))
    return state.hexdigest()


def _update(state: Any, array: Any) -> None:
    host = np.ascontiguousarray(np.asarray(array))
    state.update(f"{host.dtype.name}{host.shape}".encode())
    state.update(host.reshape(-1).view(np.uint8).data)
