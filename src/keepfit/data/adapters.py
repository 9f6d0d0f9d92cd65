"""Which file serves which kind of data."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras

from keepfit import _keras
from keepfit.data.arrays import ArraySource, default_batch_size
from keepfit.data.checks import check_alone, check_count, check_shuffle, unnamed_target, unrecognised
from keepfit.data.columns import is_rows
from keepfit.data.foreign import ForeignSource
from keepfit.data.generator import GeneratorSource
from keepfit.data.partitioned import Partitions, PartitionSource, Side, is_table
from keepfit.data.pydataset import PyDatasetSource
from keepfit.data.samples import SampleSource, gives_samples
from keepfit.data.weights import check_class_weight
from keepfit.errors import InvalidData

if TYPE_CHECKING:
    from keepfit.data.source import Source

# A memory-mapped array up to here is read into memory whole, so that it can lie on a device.
MAPPED_BYTES = 1 << 30


@dataclass(frozen=True)
class Settings:
    """How data is to be read.

    Args:
        y: Targets, or None.
        sample_weight: Weights, or None.
        batch_size: Samples in a batch, or None.
        steps: Batches in an epoch, or None.
        shuffle: True, False or ``"batch"``.
        class_weight: Class number -> weight, or None.
        seed: Seed of the orders.
        mapped_bytes: Largest memory-mapped array that is read into memory.
        training: Whether the place in the data goes on from call to call.
        counted: Whether a resume brings the data back to where it was.
    """

    y: Any
    sample_weight: Any
    batch_size: int | None
    steps: int | None
    shuffle: bool | str
    class_weight: Mapping[int, float] | None
    seed: int
    mapped_bytes: int
    training: bool
    counted: bool


@dataclass(frozen=True)
class Adapter:
    """A kind of data.

    Args:
        kind: What messages call it.
        accepts: Whether a value given as ``x`` is of this kind; imports nothing.
        make: Makes the source of it.
        batched: Whether it makes whole batches, so that nothing may be given beside it.
    """

    kind: str
    accepts: Callable[[Any], bool]
    make: Callable[[Any, Settings], Source]
    batched: bool = True


def training_source(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    steps_per_epoch: int | None = None,
    shuffle: bool | str = True,
    class_weight: Mapping[int, float] | None = None,
    seed: int,
    mapped_bytes: int = MAPPED_BYTES,
    training: bool = True,
) -> Source:
    """Return the data of a fit as a source, with the meaning of ``keras.Model.fit``.

    Args:
        x: Inputs, or a data set that makes whole batches.
        y: Targets of arrays, or None.
        sample_weight: Weights of arrays, or None.
        batch_size: Samples in a batch of arrays; None means 32, or with
            ``steps_per_epoch`` the samples divided among the steps.
        steps_per_epoch: Batches in an epoch, or None for a whole pass.
        shuffle: Whether samples (batches of a PyDataset) come in random order;
            ``"batch"`` shuffles within each batch. Streams ignore it.
        class_weight: Class number -> weight, or None.
        seed: Seed of the orders, 0 or more.
        mapped_bytes: Largest memory-mapped array, in bytes, that is read into memory.
        training: Whether the place in the data goes on from call to call.

    Returns:
        The source; floats are converted to ``floatx``, data of the right dtype is not copied.

    Raises:
        InvalidArgument: An argument cannot be taken, or not beside this kind of data.
        InvalidData: The data cannot be trained on.
    """
    settings = Settings(
        y=y,
        sample_weight=sample_weight,
        batch_size=check_count(batch_size, "batch_size"),
        steps=check_count(steps_per_epoch, "steps_per_epoch"),
        shuffle=check_shuffle(shuffle),
        class_weight=class_weight,
        seed=seed,
        mapped_bytes=mapped_bytes,
        training=training,
        counted=training,
    )
    check_class_weight(class_weight)
    adapter = _adapter_of(x)
    if adapter.batched:
        check_alone(adapter.kind, y=y, sample_weight=sample_weight, batch_size=batch_size)
    return adapter.make(x, settings)


def evaluation_source(
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    batch_size: int | None = None,
    steps: int | None = None,
    counted: bool = False,
    mapped_bytes: int = MAPPED_BYTES,
) -> Source:
    """Return data to evaluate or predict on as a source; never shuffled.

    Args:
        x: Inputs, or a data set that makes whole batches.
        y: Targets of arrays, or None.
        sample_weight: Weights of arrays, or None.
        batch_size: As for `training_source`; ignored where the data makes its
            own batches, since a fit hands on the one of its training data.
        steps: Batches to read, or None for all.
        counted: Whether a resume brings the data back to where it was, as that of a fit's validation.
        mapped_bytes: As for `training_source`.

    Raises:
        InvalidArgument: As `training_source`.
        InvalidData: As `training_source`.
    """
    settings = Settings(
        y=y,
        sample_weight=sample_weight,
        batch_size=check_count(batch_size, "batch_size"),
        steps=check_count(steps, "steps"),
        shuffle=False,
        class_weight=None,
        seed=0,
        mapped_bytes=mapped_bytes,
        training=False,
        counted=counted,
    )
    adapter = _adapter_of(x)
    if adapter.batched:
        check_alone(adapter.kind, y=y, sample_weight=sample_weight)
    return adapter.make(x, settings)


def _adapter_of(x: Any) -> Adapter:
    for adapter in ADAPTERS:
        if adapter.accepts(x):
            return adapter
    raise unrecognised("x", x)


def _is_arrays(x: Any) -> bool:
    return x is None or keras.tree.is_nested(x) or isinstance(x, (bool, int, float, str)) or is_rows(x)


def _arrays(x: Any, settings: Settings) -> Source:
    # Keras takes an Arrow table as an array of its columns, which beside targets, or to predict, is what it says.
    if settings.y is None and (settings.training or settings.counted) and is_table(x):
        raise unnamed_target(x)
    return ArraySource.of(
        x,
        settings.y,
        settings.sample_weight,
        batch_size=settings.batch_size,
        steps=settings.steps,
        shuffle=settings.shuffle,
        class_weight=settings.class_weight,
        seed=settings.seed,
        mapped_bytes=settings.mapped_bytes,
    )


def _partitions(x: Any, settings: Settings) -> Source:
    check_alone("partitions", y=settings.y, sample_weight=settings.sample_weight)
    return PartitionSource(
        x,
        batch_size=settings.batch_size,
        steps=settings.steps,
        seed=settings.seed,
        shuffle=settings.shuffle,
        class_weight=settings.class_weight,
    )


def _samples(x: Any, settings: Settings) -> Source:
    kind = type(x).__name__
    check_alone(kind, y=settings.y, sample_weight=settings.sample_weight)
    _refuse_class_weight(kind, settings)
    size = settings.batch_size or default_batch_size(len(x), settings.steps)
    return SampleSource(x, batch_size=size, seed=settings.seed, shuffle=settings.shuffle)


def _table(x: Any, _: Settings) -> Source:
    raise unnamed_target(x)


def _pydataset(x: Any, settings: Settings) -> Source:
    return PyDatasetSource(
        x,
        seed=settings.seed,
        shuffle=bool(settings.shuffle),
        class_weight=settings.class_weight,
        steps_per_epoch=settings.steps,
        counted=settings.counted,
    )


def _generator(x: Any, settings: Settings) -> Source:
    _refuse_class_weight("generator", settings)
    return GeneratorSource(x)


def _foreign(x: Any, settings: Settings) -> Source:
    if not _keras.is_tf_dataset(x):
        _refuse_class_weight(type(x).__name__, settings)
    return ForeignSource(
        x,
        class_weight=settings.class_weight,
        steps=settings.steps,
        training=settings.training,
        counted=settings.counted,
    )


def _refuse_class_weight(kind: str, settings: Settings) -> None:
    if settings.class_weight is not None:
        raise InvalidData(
            f"class_weight cannot be used with a {kind}. Nothing was changed. "
            "Make the weights part of the batches: (x, y, sample_weight)."
        )


# Tried in this order; a new kind of data is one more line and one more file.
ADAPTERS: list[Adapter] = [
    Adapter("partitions", lambda x: isinstance(x, (Partitions, Side)), _partitions, batched=False),
    Adapter("data set", _keras.is_foreign_data, _foreign),
    Adapter("PyDataset", lambda x: isinstance(x, keras.utils.PyDataset), _pydataset),
    Adapter("generator", lambda x: isinstance(x, types.GeneratorType), _generator),
    Adapter("arrays", _is_arrays, _arrays, batched=False),
    Adapter("table", is_table, _table, batched=False),
    Adapter("samples", gives_samples, _samples, batched=False),
]
