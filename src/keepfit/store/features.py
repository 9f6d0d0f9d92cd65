"""Features of a frozen prefix on disk: large arrays, each written once and read in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from keepfit.store.disk import Bytes, Disk
from keepfit.store.tensors import content, dtype_named, header, name_of, plain

if TYPE_CHECKING:
    from pathlib import Path

Array = NDArray[Any]
_KEY = "feature"
_SUFFIX = ".safetensors"
_ASIDE = ".part"
_PIECE_BYTES = 16 << 20


class FeatureFiles:
    """A folder of arrays with a row per sample, a safetensors file each.

    Every file is in a register before it is made, so that what a kill leaves
    behind is known as ours, and only such files are ever removed. Bytes are
    checked against their hash once in a process; what does not match is as if
    it were not there.

    Args:
        root: The folder; made at the first write.
        register: What is known of files: name -> facts; None stands for a file whose writing has begun.
        note: Makes the register, as it now is, durable.
        disk: What touches the files.
    """

    def __init__(
        self,
        root: Path,
        *,
        register: Mapping[str, Any],
        note: Callable[[dict[str, Any]], None],
        disk: Disk | None = None,
    ) -> None:
        self.root = root
        self._disk = disk or Disk()
        self._register = dict(register)
        self._note = note
        self._checked: set[str] = set()

    def find(self, key: str, count: int) -> list[Array] | str | None:
        """Return the arrays that were kept under a key, mapped and read-only.

        Args:
            key: What they were kept under.
            count: How many there are.

        Returns:
            The arrays; None where they were not kept; what is wrong with them, in words, where they are damaged.
        """
        names = _names(key, count)
        if not all(self._register.get(name) for name in names):
            return None
        for name in names:
            wrong = self._damage(name)
            if wrong is not None:
                return f"{self.root.name}/{name}: {wrong}"
        return [self._mapped(name) for name in names]

    def write(self, key: str, batches: Iterable[list[Array]], rows: int) -> list[Array]:
        """Keep arrays under a key, durably, and return them mapped.

        Args:
            key: What they are found under; what is there under it is replaced.
            batches: The arrays in pieces of rows, in order.
            rows: How many rows they have together.

        Raises:
            OSError: They could not be written; what was begun is removed.
        """
        pieces = iter(batches)
        first = [plain(piece) for piece in next(pieces)]
        names = _names(key, len(first))
        self._keep({**self._register, **dict.fromkeys(names)})
        self._disk.mkdir(self.root)
        try:
            facts = self._written(names, first, pieces, rows)
            for name in names:
                self._disk.rename(self._aside(name), self.root / name)
            self._disk.sync_directory(self.root)
        except BaseException:
            self.remove(names)
            raise
        self._checked.update(names)
        self._keep({**self._register, **facts})
        return [self._mapped(name) for name in names]

    def keep_only(self, keys: Iterable[str]) -> None:
        """Remove the files of all other keys, and of those whose writing was cut short."""
        wanted = tuple(f"{key}-" for key in keys)
        gone = [name for name, facts in self._register.items() if facts is None or not name.startswith(wanted)]
        if gone:
            self.remove(gone)

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, whole or begun, and forget them."""
        names = list(names)
        for name in names:
            self._checked.discard(name)
            self._disk.unlink(self.root / name)
            self._disk.unlink(self._aside(name))
        if self.root.exists():
            self._disk.sync_directory(self.root)
        self._keep({name: facts for name, facts in self._register.items() if name not in names})

    def _keep(self, register: dict[str, Any]) -> None:
        self._register = register
        self._note(register)

    def _written(
        self, names: list[str], first: list[Array], pieces: Iterator[list[Array]], rows: int
    ) -> dict[str, dict[str, Any]]:
        """Write files aside, piece by piece; returns their facts."""
        shapes = [(rows, *array.shape[1:]) for array in first]
        hashes = [xxhash.xxh3_128() for _ in names]
        with ExitStack() as stack:
            files = [stack.enter_context(self._aside(name).open("wb", buffering=0)) for name in names]

            def append(place: int, chunk: Bytes) -> None:
                hashes[place].update(chunk)
                self._disk.append(files[place].write, [chunk])

            starts = []
            for place, (array, shape) in enumerate(zip(first, shapes, strict=True)):
                begin = header({_KEY: np.broadcast_to(np.zeros((), array.dtype), shape)})
                starts.append(len(begin))
                append(place, begin)
                append(place, content(array))
            for piece in pieces:
                for place, array in enumerate(piece):
                    append(place, content(plain(array)))
            for file, name in zip(files, names, strict=True):
                self._disk.sync(file.fileno(), self._aside(name))
        return {
            name: {
                "size": start + int(np.prod(shape, dtype=np.int64)) * array.dtype.itemsize,
                "hash": state.hexdigest(),
                "dtype": name_of(array.dtype),
                "shape": list(shape),
                "start": start,
            }
            for name, array, shape, start, state in zip(names, first, shapes, starts, hashes, strict=True)
        }

    def _damage(self, name: str) -> str | None:
        """Return what is wrong with a file, None where it is whole."""
        if name in self._checked:
            return None
        wrong = damage_of(self.root / name, self._register[name], disk=self._disk)
        if wrong is None:
            self._checked.add(name)
        return wrong

    def _mapped(self, name: str) -> Array:
        facts = self._register[name]
        shape, kind = tuple(facts["shape"]), dtype_named(facts["dtype"])
        return np.memmap(self.root / name, dtype=kind, mode="r", offset=facts["start"], shape=shape)

    def _aside(self, name: str) -> Path:
        return self.root / (name + _ASIDE)


def damage_of(path: Path, facts: Mapping[str, Any], *, disk: Disk | None = None) -> str | None:
    """Return what is wrong with a file of features by its facts in the register, None where it is whole."""
    size = (disk or Disk()).size(path)
    if size is None:
        return "the file is missing"
    if size != facts["size"]:
        return f"it has {size} bytes instead of {facts['size']}"
    state = xxhash.xxh3_128()
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                state.update(piece)
    except OSError as error:
        return f"the file cannot be read ({error.strerror})"
    return None if state.hexdigest() == facts["hash"] else "its bytes do not match their hash"


def _names(key: str, count: int) -> list[str]:
    return [f"{key}-{index}{_SUFFIX}" for index in range(count)]
