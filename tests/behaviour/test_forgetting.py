"""The matrix of forgetting: its values, what it leaves behind (nothing), and where it is known."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import keepfit
from keepfit import retest
from keepfit.errors import InvalidArgument, KeepfitWarning
from tests.behaviour.months import classifier, month
from tests.bits import differing, state_bits
from tests.unchanged import Batches, batches, facts_of, refuse, unchanged

pytestmark = pytest.mark.filterwarnings(
    "ignore:Fit . is a new phase", "ignore:The results of earlier fits", "ignore:validation_split over"
)
MONTHS = [month(number) for number in range(4)]
HELD = [month(number + 10, samples=25) for number in range(4)]
QUIET: dict[str, Any] = {"batch_size": 16, "verbose": 0}


def trained(directory: Path | None, fits: int = 3, *, by_hand: list[Any] | None = None, **settings: Any) -> Any:
    """Return a run after fits on a month each, each validated on a set of its own.

    Args:
        directory: Folder of the run.
        fits: How many.
        by_hand: Filled with what ``keras.Model.evaluate`` gives on the sets so far after each fit.
        settings: Of the run, and ``fit``: arguments of every fit.
    """
    arguments = settings.pop("fit", {})
    model = classifier()
    run = keepfit.Run(model, directory, **settings)
    for number in range(fits):
        run.fit(*MONTHS[number], **QUIET, validation_data=HELD[number], epochs=2, **arguments)
        if by_hand is not None:
            row = [by_keras(model, *held) for held in HELD[: number + 1]]
            by_hand.append(row)
    return run


def by_keras(model: Any, *data: Any) -> dict[str, float]:
    """Return what ``keras.Model.evaluate`` gives; of a copy, since it takes a model's arrays with it on JAX."""
    copy = classifier()
    copy.set_weights(model.get_weights())
    size = {} if len(data) == 1 else {"batch_size": 16}
    return copy.evaluate(*data, **size, verbose=0, return_dict=True)


def expected(by_hand: list[Any], metric: str) -> Any:
    """Return the matrix of what was evaluated by hand."""
    matrix = np.full((len(by_hand), len(by_hand)), np.nan)
    for row, values in enumerate(by_hand):
        for column, logs in enumerate(values):
            matrix[row, column] = logs[metric]
    return matrix


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("where", ["memory", "folder"])
def test_matrix_is_what_evaluate_gives(where: str, kept: bool, tmp_path: Path) -> None:
    """After each fit, on the sets so far, whether they are held or kept; earlier rows from kept states."""
    by_hand: list[Any] = []
    run = trained(
        None if where == "memory" else tmp_path / "run", by_hand=by_hand, fit={"rehearse": 0.2} if kept else {}
    )
    for metric in ("accuracy", "val_loss"):
        found = run.forgetting(metric=metric)
        assert np.allclose(found.matrix, expected(by_hand, found.metric), rtol=1e-6, equal_nan=True)
        assert np.isnan(found.matrix).sum() == 3
    assert (found.fits, found.sets, found.metric, found.more_is_better) == ((1, 2, 3), (1, 2, 3), "loss", False)
    assert run.forgetting().metric == "accuracy"


def test_matrix_leaves_no_trace() -> None:
    """Weights, optimizer, metrics, generators and place are as before; only what was measured is noted."""
    run = trained(None)
    before = facts_of(run)
    run.forgetting()
    changed = differing(before, facts_of(run))
    assert changed == ["meta"]
    with unchanged(run):
        run.forgetting()


@pytest.mark.parametrize("lost", ["weights", "generators"])
def test_matrix_that_did_not_put_back_would_show(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the tests above and below."""
    run = trained(None)
    if lost == "weights":
        assign = retest._bring

        def bring(*given: Any) -> bool:
            found = assign(*given)
            monkeypatch.setattr("keepfit.state.Variables.assign", lambda *_, **how: [])
            return found

        # The last row is measured first, on the state there is; the next one is loaded and stays.
        monkeypatch.setattr(retest, "_bring", lambda run, fit: (bring if fit == 2 else assign)(run, fit))
    else:
        monkeypatch.setattr(retest, "numbers", lambda logs: {name: float(np.random.random()) for name in logs})
        monkeypatch.setattr(retest.randomness, "restore", lambda state: None)
    before = facts_of(run)
    run.forgetting()
    assert len(differing(before, facts_of(run))) > 1


def test_training_goes_on_as_without_it(tmp_path: Path) -> None:
    """What follows ends with the bits of a run that never asked, and is the same fit, with the same phases."""

    def script(directory: Path, *, asked: bool) -> Any:
        model = classifier()
        with keepfit.Run(model, directory, seed=5) as run:
            for number in range(3):
                run.fit(*MONTHS[number], **QUIET, validation_data=HELD[0], rehearse=0.3, steps_per_epoch=3)
                if asked:
                    run.forgetting()
            return state_bits(model), [fit.phase for fit in run.history]

    one, other = script(tmp_path / "one", asked=False), script(tmp_path / "other", asked=True)
    assert differing(one[0], other[0]) == []
    assert one[1] == other[1] == ["first", "continues", "continues"]


def test_equal_sets_are_one_column() -> None:
    """By their content, whether they are the same object or not."""
    run = keepfit.Run(classifier())
    held = [(HELD[0][0].copy(), HELD[0][1].copy()) for _ in range(2)]
    for number, which in enumerate((held[0], held[0], held[1])):
        run.fit(*MONTHS[number], **QUIET, validation_data=which)
    found = run.forgetting()
    assert (found.matrix.shape, found.fits, found.sets) == ((3, 1), (1, 2, 3), (1,))
    assert not np.isnan(found.matrix).any()


def test_functions_that_return_other_rows_are_other_sets() -> None:
    """Validation data of functions is told apart by its first rows, sizes being equal, and is measured on."""
    run = keepfit.Run(classifier())
    held = [keepfit.partitions([lambda data=data: data]) for data in HELD[:2]]
    for number, which in enumerate((held[0], held[1], keepfit.partitions([lambda: HELD[0]]))):
        run.fit(*MONTHS[number], **QUIET, validation_data=which)
    found = run.forgetting()
    assert (found.fits, found.sets) == ((1, 2, 3), (1, 2))
    assert np.allclose(found.matrix[-1], [by_keras(run.model, *each)["accuracy"] for each in HELD[:2]])


def test_a_split_is_a_set_of_its_own() -> None:
    """The samples that were held back of each month."""
    run = keepfit.Run(classifier())
    for x, y in MONTHS[:2]:
        run.fit(x, y, **QUIET, validation_split=0.25)
    found = run.forgetting(metric="loss")
    x, y = MONTHS[0]
    by_hand = by_keras(run.model, x[45:], y[45:])["loss"]
    assert found.matrix[1, 0] == pytest.approx(by_hand, rel=1e-6)


def test_a_replay_gives_the_same_matrix_without_the_states(tmp_path: Path) -> None:
    """Asked after each fit, it is recorded; run again, nothing is measured, whatever was thinned out."""

    def script() -> list[Any]:
        found = []
        with keepfit.Run(classifier(), tmp_path / "run", keep=2, checkpoint_share="each") as run:
            for number in range(4):
                run.fit(*MONTHS[number], **QUIET, validation_data=HELD[number])
                found.append(run.forgetting().matrix)
        return found

    first = script()
    assert not np.isnan(first[-1][np.tri(4, dtype=bool)]).any()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retest, "_evaluated", None)
        again = script()
    assert all(np.array_equal(one, other, equal_nan=True) for one, other in zip(first, again, strict=True))


def test_a_later_process_has_the_sets_that_were_kept(tmp_path: Path) -> None:
    """An appending run measures on what earlier processes validated on; without the sets, what they measured."""
    for number in range(3):
        with keepfit.Run(classifier(), tmp_path / "run", mode="append", seed=2) as run:
            run.fit(*MONTHS[number], **QUIET, validation_data=HELD[number], rehearse=0.2)
            found = run.forgetting()
    by_hand = [by_keras(run.model, *held)["accuracy"] for held in HELD[:3]]
    assert np.allclose(found.matrix[-1], by_hand)
    with keepfit.Run(classifier(), tmp_path / "run", mode="append", seed=2) as run:
        assert np.array_equal(run.forgetting().matrix, found.matrix, equal_nan=True)


def test_sets_that_are_gone_leave_what_was_measured(tmp_path: Path) -> None:
    """Earlier values stay, the last row is not known."""
    for number in range(2):
        held = HELD[number]
        with keepfit.Run(classifier(), tmp_path / "run", mode="append", seed=2) as run:
            run.fit(*MONTHS[number], **QUIET, validation_data=held)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", KeepfitWarning)
                found = run.forgetting()
    assert np.isnan(found.matrix).tolist() == [[False, True], [True, False]]
    assert np.isnan(found.average)


def test_a_set_that_is_gone_is_said() -> None:
    """What is not there any more cannot be measured on; where no set is left, the error says what to do."""
    run = keepfit.Run(classifier())
    x, y = MONTHS[0]
    run.fit(x, y, **QUIET, validation_data=batches(x, y), validation_steps=2)
    refuse(run, run.forgetting, InvalidArgument, "that the script holds on to, or let the run keep it")
    run.fit(*MONTHS[1], **QUIET, validation_data=HELD[1])
    with pytest.warns(KeepfitWarning, match="validation sets of fit 1 are not at hand"):
        assert run.forgetting().sets == (2,)


def test_rows_of_states_that_are_not_kept_are_said_once(tmp_path: Path) -> None:
    """NaN in the matrix, one notice."""
    run = trained(tmp_path / "run", 4, keep=2, checkpoint_share="each")
    with pytest.warns(KeepfitWarning, match=r"leaves out the states? after fits? 1, 2") as caught:
        found = run.forgetting()
    assert len([each for each in caught if each.category is KeepfitWarning]) == 1
    assert np.isnan(found.matrix[0, 0])
    assert not np.isnan(found.matrix[3]).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error", KeepfitWarning)
        run.forgetting()


def test_a_set_larger_than_the_reservoir_is_measured_on_a_sample(tmp_path: Path) -> None:
    """The same one in every run, and said."""
    runs = [trained(tmp_path / str(seed), 2, reservoir=10, seed=seed) for seed in (1, 2)]
    with pytest.warns(KeepfitWarning, match="is measured on 10 of its 25 samples") as caught:
        runs[0].forgetting()
    assert len([each for each in caught if each.category is KeepfitWarning]) == 2
    kept = [run.past.register.of("validation")[0] for run in runs]
    first, second = (run.past.register.arrays(each)[0] for run, each in zip(runs, kept, strict=True))
    assert np.array_equal(first, second)


def test_weights_set_by_hand_are_not_taken_for_those_of_the_fit() -> None:
    """The last row is that of the fit's result, which is kept; the weights by hand stay."""
    by_hand: list[Any] = []
    run = trained(None, 2, by_hand=by_hand)
    changed = [weight * 2 for weight in run.model.get_weights()]
    run.model.set_weights(changed)
    found = run.forgetting(metric="loss")
    assert np.allclose(found.matrix, expected(by_hand, "loss"), equal_nan=True)
    assert all(np.array_equal(one, other) for one, other in zip(changed, run.model.get_weights(), strict=True))


def test_more_epochs_of_a_fit_are_measured_anew(tmp_path: Path) -> None:
    """What was recorded belonged to the shorter fit."""
    values = []
    for epochs in (1, 3):
        with keepfit.Run(classifier(), tmp_path / "run") as run:
            run.fit(*MONTHS[0], **QUIET, validation_data=HELD[0], epochs=epochs)
            values.append(run.forgetting(metric="loss").matrix[0, 0])
    assert values[0] != values[1]
    assert values[1] == pytest.approx(by_keras(run.model, *HELD[0])["loss"], rel=1e-6)


def test_states_of_other_variables_are_left_out(tmp_path: Path) -> None:
    """A model that got layers since cannot hold what an earlier fit left."""
    run = trained(tmp_path / "run", 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KeepfitWarning)
        run.model.get_layer("head").enable_lora(2)
        run.fit(*MONTHS[1], **QUIET, validation_data=HELD[1])
    with pytest.warns(KeepfitWarning, match="of other variables"):
        assert np.isnan(run.forgetting().matrix[0]).all()


def test_data_sets_are_measured_on_and_streams_are_not() -> None:
    """A PyDataset with a length can be gone through without a trace."""
    run = keepfit.Run(classifier())
    x, y = (np.concatenate([part, part[:10]]) for part in MONTHS[0])
    data = Batches(x, y)
    run.fit(x, y, **QUIET, validation_data=data)
    assert run.forgetting().matrix[0, 0] == pytest.approx(by_keras(run.model, data)["accuracy"])
    stream = batches(x, y)
    run.fit(*MONTHS[1], **QUIET, validation_data=stream, validation_steps=2)
    with pytest.warns(KeepfitWarning, match="of fit 2 are not at hand"):
        assert run.forgetting().sets == (1,)


@pytest.mark.parametrize("metric", ["precision", 3])
def test_unknown_metrics_are_refused(metric: Any) -> None:
    """Before anything is measured."""
    run = trained(None, 1)
    refuse(run, lambda: run.forgetting(metric=metric), InvalidArgument, "forgetting cannot take metric=")


def test_a_run_without_fits_has_nothing_to_forget() -> None:
    """And says what is needed."""
    run = keepfit.Run(classifier())
    refuse(run, run.forgetting, InvalidArgument, "No validation set")


def test_a_model_that_is_attached_tells(tmp_path: Path) -> None:
    """Through its run, with a picture."""
    model = keepfit.attach(classifier())
    for number in range(2):
        model.fit(*MONTHS[number], **QUIET, validation_data=HELD[number], name=f"month {number}")
    found = model.run.forgetting()
    assert list(found.frame().columns) == ["month 0", "month 1"]
    found.plot(tmp_path / "forgetting.png")
    assert (tmp_path / "forgetting.png").stat().st_size > 10_000
