"""Tensors as files that are written once."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xxhash

from keepfit.errors import DamagedObject
from keepfit.store.disk import Bytes, Disk
from keepfit.store.tensors import Array, Slice, decoded, digest, encoded, name_of, plain, slices

if TYPE_CHECKING:
    from pathlib import Path

LARGE_BYTES = 64 * 1024
_SINGLE_KEY = "tensor"
_SUFFIX = ".safetensors"
_ASIDE = ".part"
# A process that ran out of something; says nothing about the file.
_NOT_DAMAGE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR}

Manifest = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of the store that does not hold what it should.

    Args:
        file: Name of the file in ``objects``.
        tensors: Names of the tensors that cannot be read from it.
        reason: What is wrong, in words.
    """

    file: str
    tensors: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """The tensors of one checkpoint, ready to be written.

    Args:
        manifest: Tensor name -> [file, key, hash, dtype, shape, nbytes].
        files: File -> its content, for those that are not there yet.
        sizes: File -> its size in bytes, for all that the manifest names.
        size_bytes: Bytes of the tensors, equal ones counted once.
        unsynced: Whether a file that is there may lack a durable name: the
            process that wrote it can have been killed before it synced the folder.
    """

    manifest: dict[str, list[Any]]
    files: dict[str, list[bytes | memoryview]]
    sizes: dict[str, int]
    size_bytes: int
    unsynced: bool


class Store:
    """A folder of safetensors files named by the hash of their content.

    A large tensor is a file of its own and is written once however many
    checkpoints hold it; the small ones of a checkpoint share one file.

    Args:
        root: The folder; made at the first write.
        disk: What touches the files.
    """

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self.root = root
        self._disk = disk or Disk()
        self._trusted: set[str] = set()  # files that are whole and durable, as far as this process knows

    def write(self, tensors: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Store tensors durably and return their manifest; see `prepare` and `put`."""
        batch = self.prepare(tensors)
        self.put(batch)
        return batch.manifest

    def prepare(self, tensors: Mapping[str, Any]) -> Batch:
        """Hash tensors and decide which files have to be written.

        Raises:
            TypeError: A tensor does not hold numbers.
        """
        arrays = {name: plain(value) for name, value in tensors.items()}
        hashes = {name: digest(array) for name, array in arrays.items()}
        first = {value: name for name, value in reversed(hashes.items())}  # equal tensors are stored once
        files: dict[str, list[bytes | memoryview]] = {}
        places: dict[str, tuple[str, str]] = {}
        small: dict[str, Array] = {}
        for value, name in first.items():
            if arrays[name].nbytes >= LARGE_BYTES:
                places[value] = (value + _SUFFIX, _SINGLE_KEY)
                files[value + _SUFFIX] = encoded({_SINGLE_KEY: arrays[name]})
            else:
                small[name] = arrays[name]
        if small:
            chunks = encoded(small)
            file = _hash(chunks) + _SUFFIX
            files[file] = chunks
            places.update({hashes[name]: (file, name) for name in small})
        manifest: dict[str, list[Any]] = {
            name: [*places[hashes[name]], hashes[name], name_of(array.dtype), list(array.shape), array.nbytes]
            for name, array in arrays.items()
        }
        sizes = {name: sum(len(chunk) for chunk in chunks) for name, chunks in files.items()}
        return Batch(
            manifest,
            {name: chunks for name, chunks in files.items() if not self._holds(name, chunks, sizes[name])},
            sizes,
            size_bytes=sum(arrays[name].nbytes for name in first.values()),
            unsynced=not self._trusted.issuperset(files),
        )

    def put(self, batch: Batch, *, between: Callable[[], None] = lambda: None) -> None:
        """Make the files of a batch durable, names included.

        Args:
            batch: What `prepare` gave.
            between: Called after each file.

        Raises:
            OSError: It could not be written. Files aside may be left; a later call
                replaces them.
        """
        if not batch.unsynced:
            return
        self._disk.mkdir(self.root)
        for name, chunks in batch.files.items():
            self._disk.write(self._aside(name), chunks)
            between()
        # Not one name before its content is safe: a power cut would leave a torn file under a good name.
        for name in batch.files:
            self._disk.rename(self._aside(name), self.root / name)
        self._disk.sync_directory(self.root)
        self._trusted.update(batch.sizes)

    def read(self, manifest: Manifest, names: Iterable[str] | None = None) -> dict[str, Array]:
        """Return tensors, each checked against its hash and free to be changed.

        Args:
            manifest: What `write` returned.
            names: Only these; all by default.

        Raises:
            DamagedObject: A file is missing or does not hold what it should.
        """
        wanted = list(manifest if names is None else names)
        found: dict[str, Array] = {}
        for file, opened, members in self._opened(manifest, wanted):
            if isinstance(opened, str):
                raise self._damaged(Damage(file, tuple(members), opened))
            for name in members:
                result = opened.tensor(manifest[name])
                if isinstance(result, str):
                    raise self._damaged(Damage(file, (name,), result))
                # Two names may share one stored tensor, but not their memory.
                found[name] = result.copy() if len(members) > 1 else result
        return {name: found[name] for name in wanted}

    def verify(self, manifest: Manifest) -> list[Damage]:
        """Read every tensor of a manifest and return what is damaged."""
        damages = []
        for file, opened, members in self._opened(manifest, list(manifest)):
            if isinstance(opened, str):
                damages.append(Damage(file, tuple(members), opened))
                self._trusted.discard(file)
                continue
            results = {name: opened.tensor(manifest[name]) for name in members}
            bad = {name: result for name, result in results.items() if isinstance(result, str)}
            if bad:
                damages.append(Damage(file, tuple(bad), next(iter(bad.values()))))
                self._trusted.discard(file)
        return damages

    def files(self, manifest: Manifest) -> set[str]:
        """Return the names of the files that a manifest needs."""
        return {str(entry[0]) for entry in manifest.values()}

    def delete(self, files: Iterable[str]) -> None:
        """Remove files, and what an interrupted write left beside them; those not there are passed over."""
        for name in files:
            self._trusted.discard(name)
            self._disk.unlink(self.root / name)
            self._disk.unlink(self._aside(name))

    def discard(self, batch: Batch) -> None:
        """Remove what an interrupted `put` left aside, to give its space back."""
        for name in batch.files:
            self._disk.unlink(self._aside(name))

    def sync(self) -> None:
        """Make the removal of files durable."""
        if self.root.exists():
            self._disk.sync_directory(self.root)

    def _aside(self, name: str) -> Path:
        return self.root / (name + _ASIDE)

    def _holds(self, name: str, chunks: Sequence[Bytes], size: int) -> bool:
        """Return whether a file is there and right; one from another process is read once."""
        if self._disk.size(self.root / name) != size:
            self._trusted.discard(name)
            return False
        if name in self._trusted:
            return True
        try:
            return _hash([self._disk.read(self.root / name)]) == _hash(chunks)
        except OSError:
            return False

    def _opened(self, manifest: Manifest, names: Sequence[str]) -> Iterator[tuple[str, _Opened | str, list[str]]]:
        """Yield file, its content or what is wrong with it, and the tensors wanted from it."""
        members: dict[str, list[str]] = {}
        for name in names:
            members.setdefault(str(manifest[name][0]), []).append(name)
        for file, inside in members.items():
            try:
                data = self._disk.read(self.root / file)
                yield file, _Opened(data, slices(data)), inside
            except ValueError as error:
                yield file, str(error), inside
            except FileNotFoundError:
                yield file, "the file is missing", inside
            except OSError as error:
                if error.errno in _NOT_DAMAGE:
                    raise
                yield file, f"the file cannot be read ({error.strerror})", inside

    def _damaged(self, damage: Damage) -> DamagedObject:
        self._trusted.discard(damage.file)
        path = self.root / damage.file
        return DamagedObject(
            f"A stored object is damaged: {damage.reason}.\n"
            f"  file:   {path}\n  tensor: {', '.join(damage.tensors)}\n"
            "Nothing was changed. An earlier checkpoint may be whole: `keepfit verify` lists what is damaged.",
            file=str(path),
            tensors=damage.tensors,
            reason=damage.reason,
        )


@dataclass(frozen=True, slots=True)
class _Opened:
    """A file that was read: its bytes, and where its tensors lie."""

    data: bytearray
    where: dict[str, Slice]

    def tensor(self, entry: Sequence[Any]) -> Array | str:
        """Return the tensor of a manifest entry, or what is wrong with it."""
        _file, key, expected, dtype, shape, _nbytes = entry
        if key not in self.where:
            return f"it holds no tensor {key!r}"
        try:
            array = decoded(self.data, self.where[key], dtype=dtype, shape=tuple(shape))
        except (ValueError, TypeError) as error:
            return str(error)
        return array if digest(array) == expected else "its bytes do not match their hash"


def _hash(chunks: Iterable[Bytes]) -> str:
    state = xxhash.xxh3_128()
    for chunk in chunks:
        state.update(chunk)
    return state.hexdigest()
