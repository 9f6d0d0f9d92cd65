"""Variables that come and go between fits: LoRA, quantised weights, another head, more layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit.errors import CannotAttach, InvalidArgument, KeepfitWarning, NotCompiled, RecipeChanged
from keepfit.state import variables_of
from tests.behaviour.processes import Interrupt
from tests.behaviour.test_phases import RATE, slots_of, two_layers
from tests.bits import differing, state_bits
from tests.unchanged import refuse

pytestmark = [
    pytest.mark.filterwarnings("ignore::keepfit.errors.KeepfitWarning"),
    pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize` method"),
]


def lora(model: Any) -> None:
    """LoRA in the body."""
    model.get_layer("body").enable_lora(2)


def other_head(model: Any) -> None:
    """A new head of the same shape."""
    model.pop()
    model.add(keras.layers.Dense(1, name="head"))


def more_layers(model: Any) -> None:
    """A layer before a new head."""
    model.pop()
    model.add(keras.layers.Dense(3, name="middle"))
    model.add(keras.layers.Dense(1, name="head"))


def quantized(model: Any) -> None:
    """Whole numbers for kernels, with LoRA, which trains."""
    model.quantize("int8")
    model.get_layer("body").enable_lora(2)


def float8(model: Any) -> None:
    """Scales that training overwrites."""
    model.quantize("float8")


CHANGES: dict[str, Callable[[Any], None]] = {
    change.__name__: change for change in (lora, other_head, more_layers, quantized, float8)
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_stays_keeps_its_state_and_what_is_new_begins_fresh(name: str) -> None:
    """Slots of variables that stay are theirs to the bit, those of what is gone are gone, and both are said."""
    model, x, y = two_layers("adam")
    with keepfit.Run(model) as run:
        run.fit(x, y, batch_size=10, epochs=2, verbose=0)
        stayed = {id(variable): variable for variable in model.trainable_variables}
        before = _slots_by_owner(model)
        CHANGES[name](model)
        run.inventory.ready((x[:10], y[:10]))
        run.inventory.seat_optimizer()
        after = _slots_by_owner(model)
        trains = {id(variable) for variable in model.trainable_variables}
        for key in trains & set(stayed):
            assert after[key] == before[key]
        there = {id(variable) for variable in model.variables}
        assert set(after) <= there
        assert not [found for found in state_bits(model) if "unnamed" in found]
        for key in trains - set(stayed):
            assert not any(np.frombuffer(value, "uint8").any() for value in after.get(key, {}).values())
        assert run.fit(x, y, batch_size=10, epochs=2, verbose=0).epoch == [2, 3]
        assert [fit.phase for fit in run.history] == ["first", "new"]


def _slots_by_owner(model: Any) -> dict[int, dict[str, bytes]]:
    found = variables_of(model)
    owners = {name: id(variable) for name, variable in found.items()}
    slots: dict[int, dict[str, bytes]] = {}
    for name, value in found.values().items():
        if name.startswith("optimizer/model/"):
            owner, _, slot = name.removeprefix("optimizer/").rpartition("/")
            if slot not in ("age", "born"):
                slots.setdefault(owners[owner], {})[slot] = np.asarray(value).tobytes()
    return slots


def test_changes_are_said_and_recorded() -> None:
    """A warning and an event name what came and what went."""
    model, x, y = two_layers("adam")
    with keepfit.Run(model) as run:
        run.fit(x, y, batch_size=10, verbose=0)
        more_layers(model)
        with pytest.warns(KeepfitWarning, match="new, and begun fresh: dense_1/kernel.*gone, with what the optimizer"):
            run.fit(x, y, batch_size=10, verbose=0)
        events = [event.message for event in run.recorder.events if event.kind == "variables"]
        assert len(events) == 1
        run.fit(x, y, batch_size=10, verbose=0)
        assert len([event for event in run.recorder.events if event.kind == "variables"]) == 1


@pytest.mark.parametrize("name", CHANGES)
def test_a_script_that_makes_the_change_again_goes_on_with_every_bit(name: str, tmp_path: Path) -> None:
    """Killed in the fit after the change, and cut everywhere: the end is that of one process."""

    def script(directory: Path, fits: int = 3, *, stop: int | None = None) -> Any:
        model, x, y = two_layers("adam")
        with keepfit.Run(model, directory, checkpoint_share="each") as run:
            for number in range(fits):
                if number == 1:
                    CHANGES[name](model)
                callbacks = [Interrupt(stop)] if stop is not None else []
                run.fit(x, y, batch_size=10, epochs=2, verbose=0, callbacks=callbacks)
            return state_bits(model), run.history.logs

    whole = script(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        script(tmp_path / "cut", stop=2)
    for fits in (2, 3, 3):
        cut = script(tmp_path / "cut", fits)
    assert differing(whole[0], cut[0]) == []
    assert whole[1] == cut[1]


@pytest.mark.parametrize("name", CHANGES)
def test_a_script_that_does_not_make_the_change_is_told(name: str, tmp_path: Path) -> None:
    """RecipeChanged names the variables."""
    for change in (True, False):
        model, x, y = two_layers("adam")
        with keepfit.Run(model, tmp_path / "run", checkpoint_share="each") as run:
            run.fit(x, y, batch_size=10, verbose=0)
            if change:
                CHANGES[name](model)
                run.fit(x, y, batch_size=10, verbose=0)
                continue
            with pytest.raises(RecipeChanged) as caught:
                run.fit(x, y, batch_size=10, verbose=0)
            paths = list(caught.value.differences)
            expected = "start" if name == "other_head" else "variables"
            assert any(path.startswith(expected) for path in paths), paths


def test_a_head_that_is_begun_otherwise_is_another_recipe(tmp_path: Path) -> None:
    """What new variables begin with decides the fit, as weights set by hand do."""
    for seed in (1, 2):
        model, x, y = two_layers("adam")
        with keepfit.Run(model, tmp_path / "run", checkpoint_share="each") as run:
            run.fit(x, y, batch_size=10, verbose=0)
            model.pop()
            model.add(keras.layers.Dense(1, kernel_initializer=keras.initializers.RandomNormal(seed=seed)))
            if seed == 1:
                run.fit(x, y, batch_size=10, verbose=0)
            else:
                with pytest.raises(RecipeChanged, match="start"):
                    run.fit(x, y, batch_size=10, verbose=0)


def test_a_new_compile_goes_by_what_stayed() -> None:
    """A newly compiled optimizer takes the state of what stayed, also under another name, and none of what went."""
    model, x, y = two_layers("adam")
    with keepfit.Run(model) as run:
        run.fit(x, y, batch_size=10, verbose=0)
        before = slots_of(model, "body")
        other_head(model)
        model.compile(keras.optimizers.Adam(RATE), "mse")
        run.inventory.ready((x[:10], y[:10]))
        assert differing(before, slots_of(model, "body")) == []
        assert not any(np.frombuffer(value, "uint8").any() for value in slots_of(model, "head").values())
        assert int(np.asarray(model.optimizer.iterations)) == 7


def test_going_back_over_a_quantisation_leaves_whole_numbers_alone() -> None:
    """Weights of before are no values for kernels of whole numbers: they stay, which is said."""
    model, x, y = two_layers("adam")
    with keepfit.Run(model) as run:
        run.fit(x, y, batch_size=10, verbose=0, name="before")
        quantized(model)
        run.fit(x, y, batch_size=10, verbose=0)
        kernel = state_bits(model)["model/dense/kernel"]
        with pytest.warns(KeepfitWarning, match="have no value in the kept state"):
            run.load(fit=1)
        assert state_bits(model)["model/dense/kernel"] == kernel


def test_an_appending_process_makes_the_change_first(tmp_path: Path) -> None:
    """Its model may have the variables of the newest fit from the start, or get them before fit: the same bits."""

    def process(when: str) -> Any:
        model, x, y = two_layers("adam")
        if when == "before":
            lora(model)
        with keepfit.Run(model, tmp_path / "run", mode="append", checkpoint_share="each") as run:
            if when == "after":
                lora(model)
                run.inventory.ready((x[:10], y[:10]))
            found = state_bits(model)
            if when != "before":
                run.fit(x, y, batch_size=10, verbose=0)
            return found, state_bits(model)

    process("plain")
    _, ended = process("after")
    begun, _ = process("before")
    ages = ("/born", "/age")
    assert [name for name in differing(ended, begun) if not name.endswith(ages)] == []


def test_train_leaves_what_lora_stands_beside_frozen() -> None:
    """train="all" lets LoRA's weights train, and not the kernel they stand for."""
    model, x, y = two_layers("adam")
    with keepfit.Run(model) as run:
        run.fit(x, y, batch_size=10, verbose=0)
        lora(model)
        kernel = state_bits(model)["model/dense/kernel"]
        for selector in ("head", "all"):
            run.fit(x, y, batch_size=10, verbose=0, train=selector)
        bits = state_bits(model)
        assert bits["model/dense/kernel"] == kernel
        assert any(np.frombuffer(bits["model/dense/lora_kernel_b"][2], "float32"))


def on_the_same_layers(model: Any) -> Any:
    """Return another model with a new head on the layers of a model."""
    inputs = keras.Input((6,))
    outputs = keras.layers.Dense(2, name="classes")(model.get_layer("body")(inputs))
    other = keras.Model(inputs, outputs)
    other.compile(keras.optimizers.Adam(RATE), "mse")
    return other


def test_a_run_goes_on_with_another_model() -> None:
    """Layers that both models have keep their slots, and the run its numbers; predictions in between change nothing."""
    model, x, y = two_layers("adam")
    model = keepfit.attach(model)
    run = model.run
    model.fit(x, y, batch_size=10, verbose=0)
    before = slots_of(model, "body")
    other = run.replace_model(on_the_same_layers(model))
    assert (other.run is run, hasattr(model, "run")) == (True, False)
    other.predict(x, verbose=0)
    run.inventory.ready((x[:10], np.repeat(y[:10], 2, axis=1)))
    after = {name: value for name, value in slots_of(other, "body").items() if "/dense/" in name}
    assert differing(before, after) == []
    assert other.fit(x, np.repeat(y, 2, axis=1), batch_size=10, verbose=0).epoch == [1]
    assert int(np.asarray(other.optimizer.iterations)) == 14
    run.close()


def test_another_model_is_cut_and_replayed_with_every_bit(tmp_path: Path) -> None:
    """A script that makes the other model again goes on where it was."""

    def script(directory: Path, fits: int) -> Any:
        model, x, y = two_layers("adam")
        with keepfit.Run(model, directory, checkpoint_share="each") as run:
            run.fit(x, y, batch_size=10, verbose=0)
            run.replace_model(on_the_same_layers(model))
            for _ in range(fits):
                run.fit(x, np.repeat(y, 2, axis=1), batch_size=10, epochs=2, verbose=0)
            return state_bits(run.model)

    whole = script(tmp_path / "whole", 2)
    for fits in (0, 1, 2, 2):
        cut = script(tmp_path / "cut", fits)
    assert differing(whole, cut) == []


def test_what_is_no_other_model_is_refused() -> None:
    """With everything as it was."""
    model, x, y = two_layers("adam")
    uncompiled = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    third, _, _ = two_layers("adam")
    with keepfit.Run(model) as run, keepfit.Run(third):
        run.fit(x, y, batch_size=10, verbose=0)
        refuse(run, lambda: run.replace_model("model"), InvalidArgument, "takes a keras.Model")
        refuse(run, lambda: run.replace_model(uncompiled), NotCompiled, "not compiled")
        refuse(run, lambda: run.replace_model(third), CannotAttach, "is live and has variables of this model")
