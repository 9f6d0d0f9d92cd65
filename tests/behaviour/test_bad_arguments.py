"""Bad arguments of fit are refused before anything changes, and the run goes on as if they had not been given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keepfit.errors import InvalidArgument, InvalidData
from tests.bits import differing, state_bits
from tests.unchanged import Batches, batches, begun, refuse, train, two_fits

Given = Callable[[Any, Any], dict[str, Any]]
Case = tuple[Given, type[Exception], str]


def whole_number(name: str, value: Any, least: int) -> Case:
    """Return a case in which a count is none."""
    return lambda x, y: {name: value}, InvalidArgument, rf"{name}=.*: expected a whole number, {least} or more"


def argument(name: str, value: Any, words: str) -> Case:
    """Return a case in which an argument has a value without meaning."""
    return lambda x, y: {name: value}, InvalidArgument, rf"fit cannot take {name}=.*: expected .*{words}"


def data(given: Given, words: str) -> Case:
    """Return a case in which data cannot be trained on."""
    return given, InvalidData, words


REFUSED: dict[str, list[Case]] = {
    "unknown": [(lambda x, y: {"epoch": 3}, InvalidArgument, r"no argument 'epoch'.*keras\.Model\.fit and name=")],
    "counts": [
        *(whole_number("epochs", value, 0) for value in (-1, 1.5, True, "2", None)),
        *(whole_number("initial_epoch", value, 0) for value in (-1, 0.5)),
        *(whole_number("batch_size", value, 1) for value in (0, -3, 1.5, True)),
        *(whole_number("steps_per_epoch", value, 1) for value in (0, -1, 2.5)),
        whole_number("validation_steps", 0, 1),
        whole_number("validation_batch_size", 0, 1),
    ],
    "choices": [
        *(argument("validation_split", value, r"in \[0, 1\)") for value in (1, 1.0, -0.1, float("nan"), None, "0.2")),
        *(argument("name", value, "a text that is not empty") for value in ("", "  ", 3, b"warm-up")),
        *(argument("on_change", value, '"raise" or "branch"') for value in ("merge", None, ["raise"])),
        *(argument("fresh", value, 'a list of callbacks and "optimizer"') for value in ("optimizer", 3, None)),
        *(argument("verbose", value, '"auto", 0, 1, 2') for value in ("loud", 3, None)),
        (lambda x, y: {"shuffle": "bach"}, InvalidArgument, "shuffle must be True, False or \"batch\", got 'bach'"),
        argument("x", None, "training data"),
    ],
    "callbacks": [
        argument("callbacks", value, "objects with the hooks of keras.callbacks.Callback")
        for value in ([3], "early", [print], {"early": 3}, [keras.callbacks.History(), None])
    ],
    "beside a generator": [
        data(lambda x, y: {"x": batches(x, y), "y": y}, "y was given beside a generator.*make the targets part"),
        data(lambda x, y: {"x": batches(x, y), "y": None, "sample_weight": y}, "sample_weight was given beside a gene"),
        data(lambda x, y: {"x": batches(x, y), "y": None, "class_weight": {0: 2.0}}, "class_weight cannot be used"),
        data(lambda x, y: {"x": batches(x, y), "y": None, "validation_split": 0.2}, "validation_split needs arrays"),
        (
            lambda x, y: {"x": batches(x, y), "y": None, "batch_size": 4, "steps_per_epoch": 2},
            InvalidArgument,
            "batch_size=4 was given beside a generator.*Leave batch_size out",
        ),
        data(lambda x, y: {"x": iter(()), "y": None}, "Unrecognized data type: x is a .*An iterable of batches"),
        data(lambda x, y: {"x": (batch for batch in ()), "y": None}, "generator has no batch to give"),
        data(lambda x, y: {"x": (text for text in "ab"), "y": None}, "must yield tuples .*it yielded a str"),
    ],
    "beside a PyDataset": [
        data(lambda x, y: {"x": Batches(x, y)}, "y was given beside a PyDataset"),
        data(lambda x, y: {"x": Batches(x, y), "y": None, "sample_weight": y}, "sample_weight was given beside a PyD"),
        data(lambda x, y: {"x": Batches(x, y), "y": None, "validation_split": 0.2}, "needs arrays, but x is a Batches"),
        (
            lambda x, y: {"x": Batches(x, y), "y": None, "batch_size": 4},
            InvalidArgument,
            "batch_size=4 was given beside a PyDataset",
        ),
    ],
    "lengths": [
        data(lambda x, y: {"y": y[:-1]}, r"(?s)cardinality is ambiguous.*x: 70 samples.*y: 69 samples"),
        data(lambda x, y: {"x": {"a": x, "b": [x, x[:9]]}}, r"(?s)x\['b'\]\[0\]: 70 samples.*x\['b'\]\[1\]: 9 samples"),
        data(lambda x, y: {"sample_weight": np.ones(3)}, r"(?s)sample_weight: 3 samples"),
        data(lambda x, y: {"validation_data": (x, y[:-1])}, r"(?s)x: 70 samples.*y: 69 samples"),
        data(lambda x, y: {"x": x[:1], "y": y[:1], "validation_split": 0.5}, "of 1 samples leaves one side empty"),
    ],
    "empty": [
        data(lambda x, y: {"x": x[:0], "y": y[:0]}, "x is empty: it has 0 samples.*Give at least one"),
        data(lambda x, y: {"validation_data": (x[:0], y[:0])}, "x is empty: it has 0 samples"),
        data(lambda x, y: {"x": np.float32(3)}, "x has no axes"),
    ],
    "kinds": [
        data(lambda x, y: {"x": x.astype(object)}, r"(?s)x has dtype object.*astype\(\"float32\"\)"),
        data(lambda x, y: {"y": y.astype(object)}, "y has dtype object"),
        data(lambda x, y: {"x": np.ma.masked_greater(x, 0)}, "x is a masked array with masked values"),
        data(lambda x, y: {"x": np.array([np.ones(2), np.ones(3)], object), "y": y[:2]}, "(?s)object.*pad_sequences"),
        data(lambda x, y: {"x": x.astype(str)}, "(?s)x has dtype <U32.*StringLookup"),
        data(lambda x, y: {"y": y.astype(str)}, "y has dtype <U32"),
        data(lambda x, y: {"x": x.astype("datetime64[s]")}, "(?s)x has dtype datetime64.*Turn times into numbers"),
        data(lambda x, y: {"validation_data": (x.astype(str), y)}, "x has dtype <U32"),
        data(lambda x, y: {"x": [[1.0, 2.0], [3.0]], "y": y[:2]}, r"x\[0\]\[0\] is a plain float; a list counts"),
        data(lambda x, y: {"x": [np.ones(2), np.ones(3)], "y": y[:2]}, r"x\[0\]: 2 samples"),
        data(lambda x, y: {"x": x.tolist(), "y": y.tolist()}, r"x\[0\]\[0\] is a plain float.*numpy\.array"),
        data(lambda x, y: {"x": "data.csv"}, "x is a plain str"),
        data(lambda x, y: {"x": Path("data.csv")}, "Unrecognized data type: x is a .*Path"),
        data(lambda x, y: {"x": len}, "Unrecognized data type"),
        data(lambda x, y: {"validation_data": "held-out.csv"}, "is a plain str"),
    ],
    "weights": [
        data(
            lambda x, y: {"sample_weight": np.ones(70), "class_weight": {0: 1.0}},
            "class_weight and sample_weight were given at the same time",
        ),
        data(lambda x, y: {"y": None, "class_weight": {0: 1.0}}, "class_weight needs targets of a single output"),
        data(lambda x, y: {"sample_weight": "balanced"}, "sample_weight is a plain str"),
        *(
            (lambda x, y, given=given: {"class_weight": given}, InvalidArgument, rf"class_weight must be a dict.*{got}")
            for given, got in [
                ([1, 2], "got list"),
                ("balanced", "got str"),
                ({0.5: 1.0}, "got 0.5: 1.0"),
                ({"cat": 1.0}, "got 'cat': 1.0"),
                ({0: "heavy"}, "got 0: 'heavy'"),
                ({float("nan"): 1.0}, "got nan: 1.0"),
            ]
        ),
    ],
}


@pytest.mark.parametrize("theme", REFUSED)
def test_bad_argument_is_refused_before_anything_changes(theme: str, tmp_path: Path) -> None:
    """The error names what is wrong, nothing changed, and the next fit has the bits as if nothing had been asked."""
    run, x, y = begun(tmp_path / "run")
    for given, error, words in REFUSED[theme]:
        arguments = {"x": x, "y": y, "verbose": 0, **given(x, y)}
        refuse(run, lambda arguments=arguments: run.fit(**arguments), error, words)
    train(run, x, y)
    assert differing(two_fits(), state_bits(run.model)) == []
    assert [(fit.number, fit.status) for fit in run.recorder.fits.values()] == [(1, "finished"), (2, "finished")]
