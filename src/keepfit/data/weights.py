"""Weights of samples: as given, one for all outputs, or from the weights of classes."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keepfit.data.columns import host_array
from keepfit.errors import InvalidArgument, InvalidData

if TYPE_CHECKING:
    from numpy.typing import NDArray


def class_weighted(y: Any, class_weight: Mapping[int, float]) -> NDArray[Any]:
    """Return the weight of each sample's class, as Keras derives it.

    Args:
        y: Targets: class numbers of shape ``(n,)`` or ``(n, 1)``, or one-hot of shape ``(n, classes)``.
        class_weight: Class number -> weight; a class that is not in it weighs 1.

    Returns:
        Weights of shape ``(n,)``, dtype ``floatx``.

    Raises:
        InvalidData: The targets have more than one class per sample.
    """
    classes = host_array(y)
    if classes.ndim > 1:
        classes = np.squeeze(classes, axis=-1) if classes.shape[-1] == 1 else np.argmax(classes, axis=-1)
    classes = np.round(classes).astype(np.int32)
    if classes.ndim != 1:
        raise InvalidData(
            f"class_weight needs one class per sample, but y has shape {np.shape(y)}. Nothing was changed. "
            "Give sample_weight with one weight per element instead."
        )
    values, places = np.unique(classes, return_inverse=True)
    weights = np.array([class_weight.get(int(value), 1.0) for value in values], dtype=keras.backend.floatx())
    return np.asarray(weights[places.reshape(classes.shape)])


def check_class_weight(class_weight: Any) -> None:
    """Check that class weights are a dict from class numbers to numbers.

    Raises:
        InvalidArgument: They are not.
    """
    if class_weight is None:
        return
    if not isinstance(class_weight, Mapping):
        raise InvalidArgument(
            f"class_weight must be a dict from class numbers to weights, got {type(class_weight).__name__}. "
            "Nothing was changed. For example: class_weight={0: 1.0, 1: 5.0}."
        )
    for key, weight in class_weight.items():
        if not isinstance(key, numbers.Real) or float(key) % 1 or not isinstance(weight, numbers.Real):
            raise InvalidArgument(
                f"class_weight must be a dict from class numbers to weights, got {key!r}: {weight!r}. "
                "Nothing was changed. For example: class_weight={0: 1.0, 1: 5.0}."
            )


def sample_weights(y: Any, sample_weight: Any, class_weight: Mapping[int, float] | None) -> Any:
    """Return the sample weights that go with targets ``y``, or None.

    One array given for several outputs is used for each of them.

    Raises:
        InvalidData: The two kinds of weights contradict, or do not fit ``y``.
    """
    if sample_weight is not None:
        if class_weight is not None:
            raise InvalidData(
                "class_weight and sample_weight were given at the same time. Nothing was changed. "
                "Give one of them, or multiply the class weights into sample_weight."
            )
        return _per_output(y, sample_weight) if keras.tree.is_nested(y) else sample_weight
    if class_weight is None:
        return None
    if y is None or keras.tree.is_nested(y):
        raise InvalidData(
            f"class_weight needs targets of a single output, got y={_kind(y)}. Nothing was changed. "
            "Give sample_weight with one array per output instead."
        )
    return class_weighted(y, class_weight)


def _per_output(y: Any, sample_weight: Any) -> Any:
    if isinstance(sample_weight, (list, tuple, dict)):
        try:
            keras.tree.assert_same_structure(y, sample_weight)
        except (ValueError, TypeError):
            raise InvalidData(
                "sample_weight must have one array per output in y, in the same structure. Nothing was changed.\n"
                f"  y:             {_kind(y)}\n"
                f"  sample_weight: {_kind(sample_weight)}"
            ) from None
        return sample_weight
    shape = tuple(getattr(sample_weight, "shape", ()))
    if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
        return keras.tree.map_structure(lambda _: sample_weight, y)
    raise InvalidData(
        "For a model with several outputs, a single sample_weight array must have one number per sample, "
        f"shape (samples,); its shape is {shape}. Nothing was changed. Give one array per output instead."
    )


def _kind(structure: Any) -> str:
    if structure is None:
        return "None"
    if isinstance(structure, dict):
        return f"dict of {', '.join(map(repr, structure))}"
    if isinstance(structure, (list, tuple)):
        return f"{type(structure).__name__} of {len(structure)}"
    return type(structure).__name__
