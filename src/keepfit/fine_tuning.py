"""Fine-tuning in two fits: the head on a frozen backbone, then everything at rates by layer."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, NamedTuple

import keras

from keepfit.errors import InvalidArgument
from keepfit.phases import layer_paths, own_weights, select
from keepfit.request import check_arguments
from keepfit.schedules import OneCycle

if TYPE_CHECKING:
    from keepfit.run import Run

# As in fastai: the head's rate rises almost to the end, the second fit begins at a fifth of its peak.
_HEAD_RISE, _WHOLE_RISE, _WHOLE_START = 0.99, 0.3, 0.2


class FineTuning(NamedTuple):
    """The histories of both fits.

    Args:
        head: Of the fit of the head; None where that was done before an interruption, or ``frozen_epochs=0``.
        whole: Of the fit of everything.
    """

    head: Any
    whole: Any


def fine_tune(
    run: Run,
    x: Any,
    y: Any = None,
    *,
    epochs: int,
    frozen_epochs: int = 1,
    backbone: Any = None,
    learning_rate: float = 2e-3,
    lowest: float = 0.01,
    name: str = "fine_tune",
    **arguments: Any,
) -> FineTuning:
    """Do both fits; see `keepfit.Run.fine_tune`.

    References:
        fastai's ``Learner.fine_tune``, whose shares and defaults these are. There, batch normalisation trains in a
        frozen backbone; here, as in Keras, it does not.
    """
    for refused in ("train", "initial_epoch"):
        if arguments.get(refused) is not None:
            raise _refused(refused, arguments[refused], f"no {refused}=, which the two fits have of their own")
    _check(epochs=epochs, frozen_epochs=frozen_epochs, learning_rate=learning_rate, lowest=lowest, name=name)
    head = _head(run.model, backbone)
    half = learning_rate / 2
    fits: list[dict[str, Any]] = [
        {
            "name": f"{name}: head",
            "epochs": frozen_epochs,
            "train": head,
            "learning_rate": (OneCycle(learning_rate, rise=_HEAD_RISE), {}),
        },
        {
            "name": f"{name}: whole",
            "epochs": epochs,
            "train": "all",
            "learning_rate": (
                OneCycle(half, start=_WHOLE_START * half, rise=_WHOLE_RISE),
                slice(float(lowest), 1.0),
            ),
        },
    ]
    for fit in fits:  # what is wrong with the second one is said before the first one trains
        check_arguments({"x": x, "y": y, **arguments, **fit})
    first = None
    if frozen_epochs and not _is_within_second(run, fits):
        first = run.fit(x, y, **arguments, **fits[0])
    return FineTuning(first, run.fit(x, y, **arguments, **fits[1]))


def _check(*, epochs: Any, frozen_epochs: Any, learning_rate: Any, lowest: Any, name: Any) -> None:
    for given, value, least in (("epochs", epochs, 1), ("frozen_epochs", frozen_epochs, 0)):
        if not _is_whole(value) or value < least:
            raise _refused(given, value, f"a whole number, {least} or more")
    if not _is_number(learning_rate) or learning_rate <= 0:
        raise _refused("learning_rate", learning_rate, "a number above 0, the peak of the head's rate")
    if not _is_number(lowest) or not 0 < lowest <= 1:
        raise _refused("lowest", lowest, "a number above 0 and up to 1, a share of the rate")
    if not isinstance(name, str) or not name.strip():
        raise _refused("name", name, "a text that is not empty")


def _head(model: Any, backbone: Any) -> list[Any]:
    """Return the layers outside of the backbone that have weights of their own."""
    if not model.built:
        raise InvalidArgument(
            "fine_tune needs a model that is built, to tell its head from its backbone. Nothing was changed. "
            "Build it with model.build(shape), or by calling it on a batch.",
            argument="backbone",
        )
    paths = layer_paths(model)
    weighted = [layer for layer in paths.values() if own_weights(layer)]
    inner = [layer for layer in paths.values() if isinstance(layer, keras.Model)]
    if backbone is not None:
        chosen = select(model, backbone, argument="backbone")
    else:
        chosen = select(model, inner, argument="backbone") if inner else weighted[:-1]
    ids = set(map(id, chosen))
    head = [layer for layer in weighted if id(layer) not in ids]
    if not head or len(head) == len(weighted):
        what = "no layer with weights outside of it" if not head else "no layer with weights in it"
        raise InvalidArgument(
            f"fine_tune finds a backbone with {what} in {model.name!r}. Nothing was changed. "
            "Name the layers to freeze at first with backbone=.",
            argument="backbone",
            value=backbone,
        )
    return head


def _is_within_second(run: Run, fits: list[dict[str, Any]]) -> bool:
    """Return whether the second fit was interrupted in this process, after the first one had ended."""
    left, last = run.place.open, run.recorder.fits.get(run.place.fits)
    names = [fit["name"] for fit in fits]
    return left is not None and last is not None and [last.name, left.record.name] == names


def _is_whole(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and operator.index(value) == value
    except TypeError:
        return False


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, (bool, str)) and math.isfinite(value)
    except TypeError:
        return False


def _refused(name: str, value: Any, expected: str) -> InvalidArgument:
    return InvalidArgument(
        f"fine_tune cannot take {name}={value!r}: expected {expected}. Nothing was changed.", argument=name, value=value
    )
