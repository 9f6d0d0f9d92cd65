"""P1: cut training into fits any way you like; every bit stays."""

from __future__ import annotations

from typing import Any

import hypothesis
import keras
import pytest
from hypothesis import strategies

import keepfit
from keepfit import fitting, training
from keepfit.ends import rewound
from keepfit.feed import Cursor
from tests.bits import differing, joined_history, state_bits
from tests.models import MODELS, make

EPOCHS = 6


def callbacks_with_memory() -> list[Any]:
    """Return callbacks whose decisions depend on what they have seen."""
    return [
        keras.callbacks.EarlyStopping("loss", patience=40, restore_best_weights=True),
        keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, min_delta=50.0, cooldown=1),
    ]


# As in Keras, a pass over arrays that ends within `steps_per_epoch` ends the epoch, with a warning.
pytestmark = pytest.mark.filterwarnings("ignore:Your input ran out of data")


def train(
    name: str, cuts: list[int], *, plan: str | None = None, callbacks: Any = callbacks_with_memory, **arguments: Any
) -> tuple[Any, Any]:
    """Return all state and everything logged after training in the given fits."""
    model, x, y = make(name)
    if name == "schedule":  # a rate that follows a schedule cannot be reduced
        callbacks = lambda: callbacks_with_memory()[:1]  # noqa: E731
    with keepfit.Run(model, plan=plan) as run:
        histories = [
            run.fit(
                x,
                y,
                batch_size=arguments.get("batch_size", 10 if name == "stateful_lstm" else 16),
                epochs=epochs,
                verbose=0,
                callbacks=callbacks(),
                validation_data=(x, y),
                validation_batch_size=10,
                steps_per_epoch=arguments.get("steps_per_epoch"),
                shuffle=arguments.get("shuffle", True),
            )
            for epochs in cuts
        ]
        return state_bits(model), joined_history(histories)


def cuts_of(total: int) -> strategies.SearchStrategy[list[int]]:
    """Draw a way to cut ``total`` epochs into fits."""
    borders = strategies.sets(strategies.integers(1, total - 1), max_size=total - 1)
    return borders.map(lambda found: [b - a for a, b in zip([0, *sorted(found)], [*sorted(found), total], strict=True)])


@pytest.mark.parametrize("name", MODELS)
@hypothesis.settings(max_examples=2)
@hypothesis.given(data=strategies.data())
def test_cut_training_equals_whole_training(name: str, data: Any) -> None:
    """Every bit of state and every logged number is the same, however training is cut, on either plan."""
    plan = data.draw(strategies.sampled_from(["fused", "stepwise"] if name != "convolution" else [None]))
    steps = data.draw(strategies.sampled_from([None, None, 3, 2]))
    shuffle = data.draw(strategies.sampled_from([True, True, False]))
    cuts = data.draw(cuts_of(EPOCHS))
    whole = train(name, [EPOCHS], plan=plan, steps_per_epoch=steps, shuffle=shuffle)
    cut = train(name, cuts, plan=plan, steps_per_epoch=steps, shuffle=shuffle)
    assert differing(whole[0], cut[0]) == []
    assert cut[1] == whole[1]


def test_ten_single_epochs_equal_one_fit() -> None:
    """``fit(epochs=1)`` ten times is ``fit(epochs=10)``."""
    assert train("dropout_batch_norm", [1] * 10) == train("dropout_batch_norm", [10])


@pytest.mark.parametrize("lost", ["order", "resume point", "callback memory"])
def test_cut_training_differs_when_something_is_not_carried_on(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: with one part not carried over the cut, the comparison fails."""
    name = "averaged_weights" if lost == "resume point" else "dropout_batch_norm"
    callbacks = list if lost == "resume point" else callbacks_with_memory
    whole = train(name, [EPOCHS], callbacks=callbacks)
    if lost == "order":
        monkeypatch.setattr(training, "cursor_at", lambda *where, **how: Cursor())
    elif lost == "resume point":
        monkeypatch.setattr(fitting, "rewound", lambda ends: {})
        assert rewound is not fitting.rewound
    else:
        monkeypatch.setattr(fitting.CallbackMemory, "after_begin", lambda self, saved, **how: [])
    cut = train(name, [2, 4], callbacks=callbacks)
    assert differing(whole[0], cut[0]) != []
