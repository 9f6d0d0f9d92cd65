"""Whether a model can take what it is to be trained and validated on, found before anything is recorded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras

from keepfit import _keras
from keepfit.data import IndexedSource, check_lengths, named_leaves
from keepfit.errors import InvalidData

if TYPE_CHECKING:
    from keepfit.engine import Plan
    from keepfit.frozen import Ground


def look(model: Any, ground: Ground, batch: Any, *, plan: str | None) -> Plan:
    """Prepare the engines, which run the model's own code once for new shapes where steps are compiled.

    Args:
        model: The model.
        ground: What the fit runs on. Of its validation data only arrays are looked at: who makes batches may draw
            numbers for it.
        batch: The first batch of training.
        plan: ``"fused"``, ``"stepwise"`` or None.

    Raises:
        InvalidData: The model cannot take the data, and what is wrong with it is known; else what Keras says.
            Data in batches has none in the first one.
    """
    if isinstance(ground.validation, IndexedSource):
        held = ground.validation.peek()
        with explained(model, held, "the validation data"):
            ground.validation_engine.prepare(held, plan=plan, verb="test")
    if not isinstance(ground.source, IndexedSource):
        _refuse_empty(batch, "the first batch")
    with explained(model, batch, "the first batch"):
        return ground.engine.prepare(batch, plan=plan)


def _refuse_empty(batch: Any, name: str) -> None:
    """Refuse a batch without samples on every backend: Keras trains on one on TensorFlow, and fails on the others."""
    leaves = _with_samples(batch, name)
    if 0 in {leaf.shape[0] for _, leaf in leaves}:
        check_lengths(leaves)


def _with_samples(batch: Any, name: str) -> list[tuple[str, Any]]:
    """Return the names and leaves of a batch, none where one of them has no axis of samples."""
    leaves = named_leaves(**{name: batch})
    return leaves if all(getattr(leaf, "shape", ()) for _, leaf in leaves) else []


@contextmanager
def explained(model: Any, batch: Any, name: str) -> Iterator[None]:
    """Say what is wrong with a batch where the model's step fails on it; else let Keras's error through."""
    try:
        yield
    except Exception as error:
        try:
            if leaves := _with_samples(batch, name):
                check_lengths(leaves)
        except InvalidData as told:
            raise told from error
        if isinstance(batch, tuple) and len(batch) not in (1, 2, 3):
            raise InvalidData(
                f"{name} is a tuple of {len(batch)}, which the model's step does not take. Nothing was changed. "
                "Give (x,), (x, y) or (x, y, sample_weight).",
                name=name,
            ) from error
        targets = keras.utils.unpack_x_y_sample_weight(batch)[1]
        if targets is None and _keras.compile_arguments(model)["loss"] is not None:
            raise InvalidData(
                f"{name} has no targets (y), but the model was compiled with a loss, which compares with them. "
                "Nothing was changed. Give y, or compile without a loss where layers or train_step give it.",
                name=name,
            ) from error
        error.add_note(f"This is what the model says to {name}. Nothing was trained or recorded.")
        raise
