"""Recipes are compared key by key, and the differences are said in the house form."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from keepfit.data import describe_difference, fingerprint
from keepfit.errors import RecipeChanged
from keepfit.recipe import Comparison, Recipe, compare, recipe_changed

STRICT = {
    "data": {"samples": 100, "hash": "a" * 32},
    "batch_size": 32,
    "learning_rate": float(np.float32(1e-3)),
    "optimizer": {"class": "keras.Adam", "beta_1": 0.9, "clipnorm": None},
    "metrics": ["accuracy", {"class": "keras.AUC", "curve": "ROC"}],
}


def recipe(epochs=5, name=None, warned=None, **strict):
    return Recipe(strict={**STRICT, **strict}, warned=warned or {}, epochs=epochs, name=name)


def test_recipe_survives_json():
    """A recipe read from the journal equals the one that was written."""
    one = recipe(warned={"loss": {"code": "abc"}}, name="head")
    again = Recipe.from_json(json.loads(json.dumps(one.to_json())))
    assert again == one
    assert again.digest == one.digest != recipe().digest
    assert compare(again, one) == Comparison()


def test_compare_finds_nothing_in_what_json_makes_alike():
    """Tuples come back from JSON as lists, keys as text; a key that is None equals none at all."""
    given = recipe(class_weight={0: 1.0, 1: 2.0}, steps=(1, 2), later=None)
    assert compare(Recipe.from_json(json.loads(json.dumps(given.to_json()))), given).same
    assert compare(recipe(), recipe(later=None)).same


def test_compare_gives_dotted_paths_of_nested_differences():
    """A difference is named as narrowly as it is."""
    now = recipe(
        batch_size=64,
        optimizer={"class": "keras.Adam", "beta_1": 0.8, "clipnorm": 1.0},
        metrics=["accuracy", {"class": "keras.AUC", "curve": "PR"}],
    )
    assert compare(recipe(), now).raises == {
        "batch_size": (32, 64),
        "optimizer.beta_1": (0.9, 0.8),
        "optimizer.clipnorm": (None, 1.0),
        "metrics.1.curve": ("ROC", "PR"),
    }


def test_compare_takes_another_class_as_one_difference():
    """The settings of another optimizer are not told one by one."""
    now = recipe(optimizer={"class": "keras.SGD", "momentum": 0.9})
    assert list(compare(recipe(), now).raises) == ["optimizer"]


def test_compare_tells_more_epochs_from_fewer():
    """More epochs go on, fewer raise."""
    assert compare(recipe(5), recipe(8)) == Comparison(more_epochs=True)
    assert compare(recipe(5), recipe(3)).raises == {"epochs": (5, 3)}


def test_compare_raises_for_another_name():
    """The name belongs to the recipe."""
    assert compare(recipe(name="head"), recipe()).raises == {"name": ("head", None)}


def test_compare_only_warns_of_code():
    """What is warned of never raises."""
    told = compare(recipe(warned={"loss": {"code": "a"}}), recipe(warned={"loss": {"code": "b"}}))
    assert told.same
    assert told.warns == {"loss.code": ("a", "b")}


def test_compare_asks_describe_whether_fingerprints_differ():
    """Two fingerprints of equal data are no difference, and different ones are told whole."""
    now = recipe(data={"samples": 100, "hash": "b" * 32})
    assert compare(recipe(), now, describe=lambda old, new: None).same
    told = compare(recipe(), now, describe=lambda old, new: "other rows")
    assert told.raises == {"data": (STRICT["data"], now.strict["data"])}


def test_compare_takes_the_fingerprint_inside_validation_whole():
    """Validation data lies beside its own settings, which are told apart."""
    one = recipe(validation={"data": {"hash": "a", "samples": 5}, "steps": None})
    now = recipe(validation={"data": {"hash": "b", "samples": 5}, "steps": 3})
    assert compare(one, now).raises == {
        "validation.data": ({"hash": "a", "samples": 5}, {"hash": "b", "samples": 5}),
        "validation.steps": (None, 3),
    }
    assert list(compare(one, now, describe=lambda old, new: None).raises) == ["validation.steps"]


def test_recipe_changed_names_what_a_list_of_names_lost_and_gained():
    """Which variables train is told by those that changed."""
    told = compare(recipe(trainable=["a", "b", "c", "d"]), recipe(trainable=["b", "e"]))
    assert "trainable: now without a, c and 1 more, with e" in str(recipe_changed(2, None, told, directory="runs/a"))


def test_recipe_changed_says_what_differs_in_the_house_form():
    """The message has fit, differences, what was changed, and the ways on."""
    error = recipe_changed(3, "unfreeze", compare(recipe(8), recipe(5, learning_rate=0.01)), directory="runs/try")
    assert isinstance(error, RecipeChanged)
    assert str(error) == (
        'Fit 3 ("unfreeze") was recorded with another recipe: 2 differences.\n'
        "  learning_rate: recorded 0.001, now 0.01\n"
        "  epochs:        recorded 8, now 5\n"
        "A fit can be made longer, not shorter: to train on in steps, call fit again rather than ask for more.\n"
        "Nothing was changed. Keep the recorded fit by giving its recipe again, branch off after fit 2 with\n"
        'on_change="branch", or try the new recipe beside it with run.fork("runs/try-2", at=2).'
    )
    assert error.fit == 3
    assert error.differences == {"learning_rate": (float(np.float32(1e-3)), 0.01), "epochs": (8, 5)}


def test_recipe_changed_tells_at_most_five_differences():
    """A long list is cut, and the rest is counted."""
    now = recipe(**{f"key_{index}": index for index in range(7)})
    error = recipe_changed(1, None, compare(recipe(), now), directory=None)
    text = str(error)
    assert "7 differences" in text
    assert "and 2 more" in text
    assert text.count("recorded none") == 5
    assert len(error.differences) == 7
    assert "start again from the state before fit 1" in text


def test_recipe_changed_asks_about_seeds_when_data_differ():
    """The usual reason for other data is named."""
    now = recipe(data={"samples": 100, "hash": "b" * 32})
    told = compare(recipe(), now)
    text = str(recipe_changed(2, None, told, directory="runs/a", describe=lambda old, new: "3 of 100 rows differ"))
    assert "data: 3 of 100 rows differ" in text
    assert "without a seed?" in text
    assert "append" not in text


def test_recipe_changed_suggests_append_when_data_have_grown():
    """New data every month is what append is for."""
    told = compare(recipe(), recipe(data={"samples": 150, "hash": "b" * 32}))
    assert 'mode="append"' in str(recipe_changed(2, None, told, directory="runs/a"))


def test_recipe_changed_does_not_ask_about_seeds_when_data_are_cast():
    """Another dtype alone has no seed as its reason; beside other values it has."""
    draw = np.random.default_rng(1).random((40, 2))
    for now, asks in ((draw.astype("float32"), False), ((draw + 1).astype("float64"), True)):
        told = compare(recipe(data=fingerprint((draw, draw))), recipe(data=fingerprint((now, now))))
        text = str(recipe_changed(2, None, told, directory="runs/a", describe=describe_difference))
        assert ("without a seed?" in text) is asks


def test_recipe_changed_says_which_fits_can_be_longer():
    """More epochs than recorded are refused of a fit that others follow, which is said."""
    told = Comparison(raises={"epochs": (3, 5)})
    assert "Only the newest fit can be made longer" in str(recipe_changed(1, None, told, directory="runs/a"))


@pytest.mark.parametrize(("rows", "advice"), [(60, 'mode="append"'), (40, "without a seed?"), (30, "without a seed?")])
def test_recipe_changed_understands_fingerprints_of_data(rows, advice):
    """The fingerprints that the recipe is given tell growth from change."""
    draw = np.random.default_rng(rows)
    one, now = (recipe(data=fingerprint((draw.random((count, 2)), None))) for count in (40, rows))
    told = compare(one, now, describe=describe_difference)
    text = str(recipe_changed(2, None, told, directory="runs/a", describe=describe_difference))
    assert "data: [0] has" in text
    assert advice in text


@pytest.mark.parametrize(
    ("pair", "line"),
    [
        (({"class": "keras.Adam", "beta_1": 0.9}, "sgd"), 'recorded keras.Adam(beta_1=0.9), now "sgd"'),
        (("f" * 64, "bytecode:" + "0" * 64), "recorded ffffffff, now 00000000"),
        (([1] * 50, [1]), "recorded [...], now [1]"),
        ((None, {"function": "mine"}), "recorded none, now mine"),
        (({}, {"Mine": {"patience": 3}, "Yours": {}}), "recorded none, now Mine, Yours"),
        ((0.1, float(np.float32(0.1))), "recorded 0.1 ("),
        (("x" * 80, "y"), f'recorded "{"x" * 56}..., now "y"'),
    ],
)
def test_recipe_changed_shows_values_short(pair, line):
    """Values are short enough to read, and never look the same when they differ."""
    comparison = dataclasses.replace(Comparison(), raises={"key": pair})
    assert line in str(recipe_changed(1, None, comparison, directory=None))
