"""Which sample comes when: permutations that are pure functions of seed, epoch and size.

All arithmetic is on 64-bit integers and written out here, so that an order is
the same for ever, whatever NumPy's generators become.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_UINT64 = NDArray[np.uint64]

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
# Lowest limbs of seeds for other ends than the order of a pass: "keep" and "old".
_KEYS = 0x6B656570
_OLD = 0x6F6C64

# Up to here an order is sorted random keys: every permutation is equally likely,
# which a Feistel network over so few values would not give.
_SORTED_UP_TO = 1024
# Two rounds for each half make it pseudorandom, the rest is margin (Luby and
# Rackoff need four for adversaries that choose their queries).
_ROUNDS = 8
# Indices worked on at a time: their intermediate values stay in the processor's cache.
_CHUNK = 1 << 14
# Up to here the rounds of a network are looked up in tables of the square root's length: half a megabyte.
_TABLES_UP_TO = 1 << 26


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Return the order in which one epoch visits the samples.

    The result depends on the arguments alone, so a resumed epoch sees the
    order that an uninterrupted one would have seen.

    Args:
        seed: Seed of the run, 0 or more, of any size.
        epoch: Number of passes over the data before this one, 0 or more.
        count: Size of the source, in samples; 1 or more.

    Returns:
        Indices of shape ``(count,)``: every value in ``[0, count)`` once.

    Raises:
        ValueError: ``count`` is less than 1, or ``seed`` or ``epoch`` is negative.

    References:
        J. Black and P. Rogaway, "Ciphers with arbitrary finite domains", CT-RSA
        2002: the generalised Feistel network over ``a * b`` values and cycle
        walking. G. Steele, D. Lea and C. Flood, "Fast splittable pseudorandom
        number generators", OOPSLA 2014: the mixing function.

    Example:
        >>> sorted(epoch_order(seed=7, epoch=0, count=4).tolist())
        [0, 1, 2, 3]
    """
    return Permutation(seed, epoch, count).stretch(0, count)


def order_at(seed: int, epoch: int, count: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``epoch_order(seed, epoch, count)[positions]`` without computing the rest.

    Args:
        seed: Seed of the run, 0 or more.
        epoch: Number of passes over the data before this one, 0 or more.
        count: Size of the source, in samples; 1 or more.
        positions: Places in the order, shape ``(m,)``, each in ``[0, count)``.

    Returns:
        Indices of shape ``(m,)``, in time proportional to ``m``.

    Raises:
        ValueError: As `epoch_order`, or a position is out of range.

    Example:
        >>> order_at(7, 0, 10**12, np.array([5, 6])).tolist() == order_at(7, 0, 10**12, np.arange(7)).tolist()[5:]
        True
    """
    places = np.asarray(positions, dtype=np.int64)
    permutation = Permutation(seed, epoch, count)
    if places.size and (int(places.min()) < 0 or int(places.max()) >= count):
        raise ValueError(f"positions must be in [0, {count}), got {places.min()} to {places.max()}.")
    return permutation.at(places)


class Permutation:
    """The order of one epoch, any part of it at any time.

    Args:
        seed: Seed of the run, 0 or more.
        epoch: Number of passes over the data before this one, 0 or more.
        count: Size of the source, in samples; 1 or more.

    Raises:
        ValueError: As `epoch_order`.

    Example:
        >>> Permutation(7, 0, 10**12).stretch(5, 7).tolist() == Permutation(7, 0, 10**12).stretch(0, 7).tolist()[5:]
        True
    """

    def __init__(self, seed: int, epoch: int, count: int) -> None:
        key = _key(seed, epoch, count)
        self.count = count
        self._network: _Network | None = None
        self._tables: list[_UINT64] | None = None
        if count <= _SORTED_UP_TO:
            self._sorted = _sorted_order(key, count)
        else:
            self._network = _Network.of(key, count)

    def at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the samples at some positions, in time proportional to their number.

        Args:
            positions: Places in the order, shape ``(m,)``, each in ``[0, count)``; not checked.
        """
        if self._network is None:
            return self._sorted[positions]
        if len(positions) <= _CHUNK:
            return self._network.walk(positions, self._tables)
        order = np.empty(len(positions), np.int64)
        for start in range(0, len(positions), _CHUNK):
            order[start : start + _CHUNK] = self._network.walk(positions[start : start + _CHUNK], self._tables)
        return order

    def stretch(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the samples at positions ``start`` to ``stop - 1``; quick for one stretch after another."""
        self.prepare()
        return self.at(np.arange(start, stop, dtype=np.int64))

    def prepare(self) -> None:
        """Make `at` several times faster from now on; takes time and memory of the square root of the size."""
        if self._network is not None and self._tables is None and self.count <= _TABLES_UP_TO:
            self._tables = self._network.tables()


class Stretches:
    """An order that is asked for in small stretches, worked out in large ones.

    Args:
        compute: Returns the samples at positions ``start`` to ``stop - 1`` of pass ``number``.
        count: Samples in a pass.
        length: Positions to work out at once.
    """

    def __init__(
        self, compute: Callable[[int, int, int], NDArray[np.int64]], *, count: int, length: int = 1 << 16
    ) -> None:
        self._compute = compute
        self._count = count
        self._length = length
        self._number = -1
        self._start = 0
        self._held = np.empty(0, np.int64)

    def get(self, number: int, start: int, stop: int) -> NDArray[np.int64]:
        """Return the samples at positions ``start`` to ``stop - 1`` of pass ``number``; not to be written to."""
        if number != self._number or start < self._start or stop > self._start + len(self._held):
            until = min(max(stop, start + self._length), self._count)
            self._number, self._start, self._held = number, start, self._compute(number, start, until)
        return self._held[start - self._start : stop - self._start]


def batch_order(
    seed: int, epoch: int, count: int, batch_size: int, *, start: int = 0, stop: int | None = None
) -> NDArray[np.int64]:
    """Return the order of an epoch that is shuffled within each batch only.

    Args:
        seed: Seed of the run, 0 or more.
        epoch: Number of passes over the data before this one, 0 or more.
        count: Size of the source, in samples; 1 or more.
        batch_size: Samples in a batch, 1 or more; the last one may have fewer.
        start: First position that is asked for.
        stop: Where to stop, None for the end; time is proportional to what is asked for.

    Returns:
        Indices of shape ``(stop - start,)``; places ``k * batch_size`` to
        ``(k + 1) * batch_size - 1`` hold just these values, in random order.

    Raises:
        ValueError: As `epoch_order`, or ``batch_size`` is less than 1.

    Example:
        >>> order = batch_order(seed=7, epoch=0, count=5, batch_size=2)
        >>> sorted(order[:2].tolist()), sorted(order[2:4].tolist()), order[4:].tolist()
        ([0, 1], [2, 3], [4])
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be 1 or more, got {batch_size}.")
    stop = count if stop is None else stop
    first = start - start % batch_size
    last = min(count, -(-stop // batch_size) * batch_size)
    keys = _hash(np.arange(first, last, dtype=np.uint64), _key(seed, epoch, count))
    whole = len(keys) - len(keys) % batch_size
    rows = np.argsort(keys[:whole].reshape(-1, batch_size), axis=1, kind="stable")
    starts = np.arange(0, whole, batch_size, dtype=np.int64)
    rest = np.argsort(keys[whole:], kind="stable") + whole
    order = np.concatenate([(rows + starts[:, None]).ravel(), rest]).astype(np.int64, copy=False) + first
    return order[start - first : stop - first]


def place_hashes(partition: int, start: int, stop: int) -> _UINT64:
    """Return a hash of each place ``start`` to ``stop - 1`` in a partition: uniform over 64 bits, the same for ever."""
    return _hash(np.arange(start, stop, dtype=np.uint64), _key(partition, 0, 1))


def sample_keys(seed: int, source: int, start: int, stop: int) -> _UINT64:
    """Return a key for each sample ``start`` to ``stop - 1`` of a source, by which a sample of them is drawn.

    Uniform over 64 bits, no key twice in a source, and the same for ever.

    Args:
        seed: Seed of the run, 0 or more.
        source: Number of the source, 0 or more.
        start: First sample.
        stop: Sample after the last one.
    """
    return _hash(np.arange(start, stop, dtype=np.uint64), _key((int(seed) << 64) + _KEYS, source, 1))


def rehearsal_seed(seed: int) -> int:
    """Return the seed for the order of rehearsed samples, apart from that of the new ones."""
    return (int(seed) << 64) + _OLD


class SampleOrder:
    """The orders of all passes over samples that can be had by index.

    Args:
        seed: Seed of the run, 0 or more.
        count: Samples in a pass, 1 or more.
        batch_size: Samples in a batch, 1 or more.
        shuffle: True (all samples), ``"batch"`` (within each batch) or False.

    Example:
        >>> SampleOrder(7, 5, batch_size=2, shuffle=False).stretch(0, 1, 4).tolist()
        [1, 2, 3]
    """

    def __init__(self, seed: int, count: int, *, batch_size: int, shuffle: bool | str) -> None:
        self._seed = seed
        self._count = count
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._stretches = Stretches(self._compute, count=count)
        self._permutation: tuple[int, Permutation] | None = None

    def stretch(self, number: int, start: int, stop: int) -> NDArray[np.int64]:
        """Return the samples at positions ``start`` to ``stop - 1`` of pass ``number``; not to be written to."""
        if not self._shuffle:
            return np.arange(start, stop, dtype=np.int64)
        return self._stretches.get(number, start, stop)

    def _compute(self, number: int, start: int, stop: int) -> NDArray[np.int64]:
        if self._shuffle == "batch":
            return batch_order(self._seed, number, self._count, self._batch_size, start=start, stop=stop)
        if self._permutation is None or self._permutation[0] != number:
            self._permutation = (number, Permutation(self._seed, number, self._count))
        return self._permutation[1].stretch(start, stop)


def _sorted_order(key: int, count: int) -> NDArray[np.int64]:
    keys = _hash(np.arange(count, dtype=np.uint64), key)
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


@dataclass(frozen=True)
class _Network:
    """A keyed permutation of ``[0, count)``.

    A value is split into ``left`` in ``[0, a)`` and ``right`` in ``[0, b)`` with
    ``value = left * b + right``. Rounds add a hash of one half to the other, in
    turn, modulo its radix. What falls outside ``[0, count)`` goes through again.
    """

    count: int
    a: int
    b: int
    keys: tuple[int, ...]

    @classmethod
    def of(cls, key: int, count: int) -> _Network:
        a = math.isqrt(count - 1) + 1
        keys = tuple(_mix(key + (number + 1) * _GOLDEN) for number in range(_ROUNDS))
        return cls(count=count, a=a, b=-(-count // a), keys=keys)

    def tables(self) -> list[_UINT64]:
        """Return what each round adds, for every value of the half it reads."""
        left, right = np.arange(self.a, dtype=np.uint64), np.arange(self.b, dtype=np.uint64)
        return [
            _below(_hash(left, key), self.b) if number % 2 else _below(_hash(right, key), self.a)
            for number, key in enumerate(self.keys)
        ]

    def walk(self, values: NDArray[np.int64], tables: list[_UINT64] | None) -> NDArray[np.int64]:
        """Return where ``values`` go."""
        result = self._pass(values, tables)
        outside = np.flatnonzero(result >= self.count)
        while outside.size:
            result[outside] = self._pass(result[outside], tables)
            outside = outside[result[outside] >= self.count]
        return result

    def _pass(self, values: NDArray[np.int64], tables: list[_UINT64] | None) -> NDArray[np.int64]:
        left = values // self.b
        right = values - left * self.b
        for number, key in enumerate(self.keys):
            if number % 2:
                right = _added(right, _read(tables, number, left, key, self.b), self.b)
            else:
                left = _added(left, _read(tables, number, right, key, self.a), self.a)
        left *= self.b
        left += right
        return left


def _read(tables: list[_UINT64] | None, number: int, half: NDArray[np.int64], key: int, radix: int) -> _UINT64:
    if tables is not None:
        return tables[number][half]
    return _below(_hash(half.view(np.uint64), key), radix)


def _added(half: NDArray[np.int64], amount: _UINT64, radix: int) -> NDArray[np.int64]:
    total = half.view(np.uint64)
    total = total + amount
    # Below the radix the difference wraps to a huge number: the smaller one is the remainder.
    remainder: NDArray[np.int64] = np.minimum(total, total - np.uint64(radix)).view(np.int64)
    return remainder


def _below(hashes: _UINT64, radix: int) -> _UINT64:
    # The high half times the radix, shifted: uniform to 1 in 2**32 / radix, and no division.
    return ((hashes >> np.uint64(32)) * np.uint64(radix)) >> np.uint64(32)


def _hash(values: _UINT64, key: int) -> _UINT64:
    """Mix each value with the key: splitmix64's output function on ``key + (value + 1) * golden``."""
    mixed = values * np.uint64(_GOLDEN)
    mixed += np.uint64((key + _GOLDEN) & _MASK)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(_FIRST)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(_SECOND)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def _mix(value: int) -> int:
    """Return splitmix64's output function of an integer, modulo 2**64."""
    value &= _MASK
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


def _key(seed: int, epoch: int, count: int) -> int:
    """Fold the arguments into 64 bits; every 64-bit limb of the seed counts."""
    seed, epoch, count = int(seed), int(epoch), int(count)
    if count < 1:
        raise ValueError(f"count must be 1 or more, got {count}.")
    if seed < 0 or epoch < 0:
        raise ValueError(f"seed and epoch must be 0 or more, got {seed} and {epoch}.")
    key = _mix(_GOLDEN)
    while True:
        key = _mix(key ^ (seed & _MASK)) + _GOLDEN
        seed >>= 64
        if not seed:
            break
    return _mix(_mix(_mix(key ^ (epoch & _MASK)) + (epoch >> 64)) ^ count)
