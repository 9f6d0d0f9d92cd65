"""Rehearsal: which samples are kept and mixed in, what counts as a change, and what is refused."""

from __future__ import annotations

import json
import warnings
from collections import deque
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import keepfit
from keepfit import data, rehearsal, request
from keepfit.cli.verify import verify_folder
from keepfit.data import RehearsedSource
from keepfit.errors import InvalidArgument, KeepfitWarning, RecipeChanged
from keepfit.rehearsal import reservoir
from keepfit.store import FeatureFiles
from tests.behaviour.months import classes, classifier, month
from tests.bits import differing, state_bits
from tests.unchanged import Batches, batches, refuse

# Other validation data, loss or layers begin a new phase, which is said; it is not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:Fit . is a new phase")
MONTHS = [month(number) for number in range(4)]
QUIET: dict[str, Any] = {"batch_size": 16, "verbose": 0}


def trained(directory: Path | None, *fits: dict[str, Any], months: Any = MONTHS, **settings: Any) -> Any:
    """Return a run after a fit on each month with the given arguments."""
    run = keepfit.Run(classifier(), directory, **settings)
    for (x, y), arguments in zip(months, fits, strict=False):
        run.fit(x, y, **QUIET, **arguments)
    return run


def mixed_rows(run: Any, fit: int) -> Any:
    """Return the earlier samples that a fit on the last month would be given."""
    x, y = MONTHS[-1]
    asked = request.check_arguments({"x": x, "y": y, "rehearse": 0.3})
    source = data.training_source(x, y, batch_size=16, seed=run.seed)
    mix = rehearsal.Rehearsal(run.past, asked, source, None).mixed(fit)
    assert isinstance(mix.source, RehearsedSource)
    return mix.source._load()


def test_one_in_five_samples_is_an_earlier_one() -> None:
    """An epoch has all new samples and a quarter as many earlier ones, which the run counts."""
    run = trained(None, {"rehearse": 0.2}, {"rehearse": 0.2}, {"rehearse": 0.2, "epochs": 2})
    assert run.position.samples == 60 + 75 + 2 * 75
    told = [record.detail.get("rehearse") for record in run.recorder.fits.values()]
    assert told == [
        None,
        {"fraction": 0.2, "samples": 60, "fits": [1]},
        {"fraction": 0.2, "samples": 120, "fits": [1, 2]},
    ]


def test_what_is_mixed_in_are_samples_of_earlier_fits() -> None:
    """Each with its own target; with room for all, all of them."""
    run = trained(None, {"rehearse": 0.0}, {"rehearse": 0.0})
    x, y = mixed_rows(run, 3)
    assert np.array_equal(x, np.concatenate([MONTHS[0][0], MONTHS[1][0]]))
    assert np.array_equal(y, np.concatenate([MONTHS[0][1], MONTHS[1][1]]))


def test_reservoir_is_bounded_in_samples_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all fits together; a bound in bytes that is reached is said."""
    run = trained(None, {}, {}, {}, reservoir=50)
    assert len(mixed_rows(run, 4)[0]) == 50
    monkeypatch.setattr(reservoir, "MOST_BYTES", 20 * 28)
    with pytest.warns(KeepfitWarning, match="holds 20 samples instead of 1,000"):
        run = trained(None, {"rehearse": 0.0}, {"rehearse": 0.0})
    assert len(mixed_rows(run, 3)[0]) == 20


def test_a_run_with_a_smaller_reservoir_has_part_of_the_samples() -> None:
    """Nested, also after several fits."""
    large, small = (mixed_rows(trained(None, {}, {}, {}, reservoir=size), 4)[0] for size in (50, 20))
    assert {row.tobytes() for row in small} < {row.tobytes() for row in large}


@pytest.mark.parametrize("where", ["memory", "folder"])
def test_rehearsal_goes_with_partitions_samples_by_index_and_a_split(where: str, tmp_path: Path) -> None:
    """What was kept of one kind of data is mixed into another."""

    class Samples:
        def __len__(self) -> int:
            return 60

        def __getitem__(self, index: int) -> Any:
            return MONTHS[2][0][index], MONTHS[2][1][index]

    run = keepfit.Run(classifier(), None if where == "memory" else tmp_path / "run", reservoir=40)
    parts = [lambda rows=rows: (MONTHS[0][0][rows], MONTHS[0][1][rows]) for rows in (slice(0, 25), slice(25, 60))]
    run.fit(keepfit.partitions(parts, window=1), **QUIET)
    run.fit(*MONTHS[1], validation_split=0.5, rehearse=0.5, **QUIET)
    run.fit(Samples(), rehearse=0.5, **QUIET)
    run.fit(keepfit.partitions(parts, window=1), rehearse=0.5, epochs=2, **QUIET)
    assert run.position.samples == 60 + 60 + 120 + 240
    samples = [record.detail["rehearse"]["samples"] for n, record in run.recorder.fits.items() if n > 1]
    assert samples[0] == 40
    assert samples[1] == 40
    assert 0 < samples[2] < 40


def test_a_source_that_came_before_is_kept_once_and_not_rehearsed_in_itself() -> None:
    """Two fits on the same data are one source, and no earlier one to one another."""
    run = trained(None, {"rehearse": 0.2}, {"rehearse": 0.2}, months=[MONTHS[0]] * 2)
    assert run.position.samples == 120
    assert len(run.past.register.of("source")) == 1
    run.fit(*MONTHS[1], rehearse=0.2, **QUIET)
    assert len(mixed_rows(run, 4)[0]) == 120


class Functions:
    """Months as functions of equal sizes, of which the first returns the same rows in every month."""

    def __init__(self) -> None:
        self.called: deque[int] = deque()

    def __call__(self, number: int) -> Any:
        return keepfit.partitions([self._part(0, slice(0, 20)), self._part(number, slice(20, 60))], sizes=[20, 40])

    def _part(self, number: int, rows: slice) -> Any:
        def part() -> Any:
            self.called.append(number)
            return MONTHS[number][0][rows], MONTHS[number][1][rows]

        return part


@pytest.mark.parametrize("where", ["memory", "folder"])
def test_functions_are_told_apart_by_all_their_rows(where: str, tmp_path: Path) -> None:
    """Sizes and first rows may be the same: what is kept is told by reading it; a replay asks its own record."""

    def script() -> Any:
        months = Functions()
        with keepfit.Run(classifier(), None if where == "memory" else tmp_path / "run", seed=1) as run:
            for number in range(3):
                for _ in range(2):  # the second fit on a month is no later month
                    run.fit(months(number), rehearse=0.2, **QUIET)
            found = [record.detail.get("rehearse", {}).get("fits") for record in run.recorder.fits.values()]
            return found, run.position.samples, len(run.past.register.of("source")), state_bits(run.model), months

    *first, months = script()
    assert first[:3] == [[None, None, [1], [1], [1, 3], [1, 3]], 2 * 60 + 4 * 75, 3]
    if where == "folder":
        *again, months = script()
        assert again == first
        # Only for the first rows: of 6 fits, none reads its month again to tell it from others.
        assert set(months.called) == {0}


def test_samples_of_functions_are_kept_as_they_are_read() -> None:
    """Once, and the same object is not read again to be told from others; rows and order are those of arrays."""
    months = Functions()
    run = keepfit.Run(classifier(), seed=1)
    parts = months(1)
    run.fit(parts, rehearse=0.0, epochs=0, **QUIET)
    assert months.called.count(1) == 1
    parts.close()
    run.fit(parts, rehearse=0.2, epochs=0, **QUIET)
    assert months.called.count(1) == 1
    arrays = tuple(np.concatenate([zero[:20], one[20:]]) for zero, one in zip(MONTHS[0], MONTHS[1], strict=True))
    other = trained(None, {"rehearse": 0.0}, months=[arrays], seed=1)
    found = zip(mixed_rows(run, 3), mixed_rows(other, 2), strict=True)
    assert all(np.array_equal(mine, theirs) for mine, theirs in found)


def test_without_their_rows_functions_are_taken_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: told by sizes and first rows alone, no month is an earlier one to another."""
    monkeypatch.setattr(data.Partitions, "tells_content", True)
    months = Functions()
    run = keepfit.Run(classifier(), seed=1)
    for number in range(2):
        run.fit(months(number), rehearse=0.2, **QUIET)
    assert run.position.samples == 120


# Weights


def test_weights_on_one_side_are_ones_on_the_other() -> None:
    """Sample weights of some fits, weights of classes for all, and the control: without them training differs."""

    def ends(second: dict[str, Any], third: dict[str, Any]) -> Any:
        return state_bits(trained(None, {"rehearse": 0.0}, {**second}, {"rehearse": 0.5, **third}).model)

    plain, ones = {"rehearse": 0.5}, {"rehearse": 0.5, "sample_weight": np.ones(60, "float32")}
    assert differing(ends(plain, {}), ends(ones, {})) == []
    assert differing(ends(ones, {}), ends(ones, {"sample_weight": np.ones((60, 1), "float32")})) == []
    alike = dict.fromkeys(range(3), 1.0)
    assert differing(ends(plain, {}), ends(plain, {"class_weight": alike})) == []
    assert differing(ends(plain, {}), ends(plain, {"class_weight": {1: 3.0}})) != []


def test_class_weights_apply_to_earlier_samples_too() -> None:
    """They multiply the weights that these came with; weights made of classes are not kept as the data's own."""
    run = trained(
        None, {"rehearse": 0.0, "class_weight": {0: 7.0}}, {"rehearse": 0.0, "sample_weight": np.full(60, 2.0)}
    )
    x, y = MONTHS[3]
    asked = request.check_arguments({"x": x, "y": y, "rehearse": 0.5, "class_weight": {1: 5.0}})
    source = data.training_source(x, y, batch_size=16, seed=1, class_weight={1: 5.0})
    mix = rehearsal.Rehearsal(run.past, asked, source, None).mixed(3)
    assert isinstance(mix.source, RehearsedSource)
    _, y, weights = mix.source._load()
    own = np.repeat([1.0, 2.0], 60)
    assert np.array_equal(weights, own * np.where(y == 1, 5.0, 1.0))


def test_structures_of_any_kind_are_rehearsed(tmp_path: Path) -> None:
    """Dictionaries of inputs and targets, with weights for one of two outputs, over processes."""

    def script() -> Any:
        keras.utils.set_random_seed(2)
        inputs = {"b": keras.Input((6,), name="b"), "a": keras.Input((2,), name="a")}
        joined = keras.layers.Concatenate()([inputs["a"], inputs["b"]])
        outputs = {"one": keras.layers.Dense(1, name="one")(joined), "kind": keras.layers.Dense(3, name="kind")(joined)}
        model = keras.Model(inputs, outputs)
        model.compile("sgd", {"one": "mse", "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True)})
        with keepfit.Run(model, tmp_path / "run") as run:
            for x, y in MONTHS[:3]:
                run.fit(
                    {"b": x, "a": x[:, :2]},
                    {"one": x[:, :1], "kind": y},
                    sample_weight={"one": np.abs(x[:, 0]), "kind": None},
                    rehearse=0.3,
                    **QUIET,
                )
            return state_bits(model), run.position

    first = script()
    assert first[1].samples == 60 + 86 + 86
    assert script() == first


# What is refused


def test_a_fit_with_nothing_to_rehearse_is_refused(tmp_path: Path) -> None:
    """Where earlier fits left no samples; the message says what to do, and doing it helps."""
    run = trained(tmp_path / "run", {})
    x, y = MONTHS[1]
    refuse(run, lambda: run.fit(x, y, rehearse=0.2, **QUIET), InvalidArgument, r"none of the 1 fits before it left")
    with trained(tmp_path / "run", {"rehearse": 0.0}, {"rehearse": 0.2}) as run:
        assert run.position.samples == 60 + 75


@pytest.mark.parametrize("value", [-0.1, 1.0, 1, True, "half", float("nan")])
def test_fractions_that_are_none_are_refused(value: Any) -> None:
    """Before anything changes."""
    run = trained(None, {"rehearse": 0.0})
    refuse(run, lambda: run.fit(*MONTHS[1], rehearse=value, **QUIET), InvalidArgument, "rehearse=")


@pytest.mark.parametrize("kind", ["generator", "PyDataset"])
@pytest.mark.parametrize("fraction", [0.0, 0.2])
def test_data_without_samples_by_index_is_refused(kind: str, fraction: float) -> None:
    """Streams and data sets that make whole batches."""
    run = trained(None, {"rehearse": 0.0})
    data = batches(*MONTHS[0]) if kind == "generator" else Batches(*MONTHS[0])
    refuse(
        run,
        lambda: run.fit(data, steps_per_epoch=2, rehearse=fraction, verbose=0),
        InvalidArgument,
        "samples can be had one by one",
    )


def test_data_without_samples_by_index_in_a_run_with_a_reservoir_is_said_once() -> None:
    """It trains, and leaves nothing; later fits say what they miss."""
    run = trained(None, {}, reservoir=100)
    with pytest.warns(KeepfitWarning, match="No samples of a Batches are kept"):
        run.fit(Batches(*MONTHS[0]), steps_per_epoch=2, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", KeepfitWarning)
        run.fit(Batches(*MONTHS[0]), steps_per_epoch=2, verbose=0)
    with pytest.warns(KeepfitWarning, match="rehearsed without fits 2, 3, of which"):
        run.fit(*MONTHS[1], rehearse=0.2, **QUIET)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: (x, y.astype("int64")), r"y: kept int32 \(\), now int64 \(\)"),
        (lambda x, y: (x, y[:, None]), r"y: kept int32 \(\), now int32 \(1,\)"),
        (lambda x, y: ({"a": x}, y), r"x: kept float32 \(6,\), now not there"),
        (lambda x, y: (x[:, :3], y), r"x: kept float32 \(6,\), now float32 \(3,\)"),
    ],
)
def test_samples_that_are_not_alike_are_refused(change: Any, words: str) -> None:
    """Named, with what they were and are."""
    run = trained(None, {"rehearse": 0.0})
    x, y = change(*MONTHS[1])
    refuse(run, lambda: run.fit(x, y, rehearse=0.2, **QUIET), InvalidArgument, words)


@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_reservoirs_of_no_size_are_refused(value: Any) -> None:
    """As other settings are."""
    with pytest.raises(InvalidArgument, match="reservoir="):
        keepfit.Run(classifier(), reservoir=value)


# The recipe


@pytest.mark.parametrize(
    ("recorded", "now", "raises"),
    [
        (0.2, 0.3, {"rehearse.fraction": (0.2, 0.3)}),
        (0.2, 0.0, {"rehearse": ({"fraction": 0.2, "samples": 60}, None)}),
        (0.0, 0.2, {"rehearse": (None, {"fraction": 0.2, "samples": 60})}),
        (0.0, None, None),
        (None, 0.0, None),
    ],
)
def test_what_is_mixed_in_is_part_of_the_recipe(recorded: Any, now: Any, raises: Any, tmp_path: Path) -> None:
    """Not so a fraction where nothing is mixed in: no rehearsal, and the first fit."""
    trained(tmp_path / "run", {"rehearse": 0.0}, {"rehearse": recorded}).close()
    if raises is None:
        assert trained(tmp_path / "run", {}, {"rehearse": now}).position.fit == 2
        return
    with pytest.raises(RecipeChanged) as caught:
        trained(tmp_path / "run", {"rehearse": 0.5}, {"rehearse": now})
    assert caught.value.differences == raises


def test_another_size_of_the_reservoir_shows_where_it_matters(tmp_path: Path) -> None:
    """A fit that was given other samples than it would be now is another one."""
    trained(tmp_path / "run", {}, {"rehearse": 0.2}, reservoir=50).close()
    trained(tmp_path / "run", {}, reservoir=20).close()
    with pytest.raises(RecipeChanged, match=r"rehearse\.samples: recorded 50, now 20"):
        trained(tmp_path / "run", {}, {"rehearse": 0.2}, reservoir=20)


def test_frozen_layers_are_computed_in_every_step_beside_rehearsal() -> None:
    """And the plan says why."""
    run = trained(None, {"rehearse": 0.0, "train": "head"}, {"rehearse": 0.2})
    assert run.recorder.fits[2].plan["prefix"] == {"used": False, "why": "samples of earlier fits are mixed in"}


# The folder


def test_samples_lie_in_the_folder_for_later_processes(tmp_path: Path) -> None:
    """Each month in a process of its own, appending: the bits of one process with all of them."""

    def nightly(directory: Path, months: list[Any], fraction: float = 0.3) -> Any:
        with keepfit.Run(classifier(), directory, mode="append", seed=9) as run:
            for x, y in months:
                run.fit(x, y, rehearse=fraction, **QUIET)
            return state_bits(run.model)

    whole = nightly(tmp_path / "whole", MONTHS)
    cut = [nightly(tmp_path / "cut", [each]) for each in MONTHS]
    assert differing(whole, cut[-1]) == []
    plain = [nightly(tmp_path / "plain", [each], 0.0) for each in MONTHS]
    assert differing(whole, plain[-1]) != []


def test_a_retried_fit_by_name_finds_what_it_had(tmp_path: Path) -> None:
    """An appending run looks it up among others that came later, with the samples of then."""
    for _ in range(2):
        with keepfit.Run(classifier(), tmp_path / "run", mode="append", seed=9) as run:
            for number, (x, y) in enumerate(MONTHS[:3]):
                run.fit(x, y, rehearse=0.3, name=f"month {number}", **QUIET)
            assert len(run.history) == 3


def test_only_our_files_are_removed_and_verify_knows_them(tmp_path: Path) -> None:
    """A fit that is trained anew, as a branch, takes the samples of the closed ones away, and nothing else."""
    trained(tmp_path / "run", {"rehearse": 0.0}, {"rehearse": 0.3}, {"rehearse": 0.3}).close()
    folder = tmp_path / "run" / rehearsal.FOLDER
    (folder / "source-9-mine.safetensors").write_bytes(b"mine")
    before = {path.name for path in folder.iterdir()}
    with pytest.warns(KeepfitWarning, match="another recipe"):
        trained(tmp_path / "run", {"rehearse": 0.0}, {"rehearse": 0.4}, on_change="branch").close()
    after = {path.name for path in folder.iterdir()}
    assert (folder / "source-9-mine.safetensors").read_bytes() == b"mine"
    assert len(before) == 10
    assert len(after) == 7
    report = verify_folder(tmp_path / "run")
    assert (report.damages, report.notices) == ((), ())


def test_a_branch_ends_with_the_bits_of_a_run_that_never_went_another_way(tmp_path: Path) -> None:
    """What later fits pushed out of the reservoir is there again for an earlier place."""
    small = {"reservoir": 30}
    rest = ({"rehearse": 0.4}, {"rehearse": 0.4})
    trained(tmp_path / "run", {}, {"rehearse": 0.3}, {"rehearse": 0.3}, {"rehearse": 0.3}, **small).close()
    with pytest.warns(KeepfitWarning, match="another recipe"):
        branched = trained(tmp_path / "run", {}, *rest, on_change="branch", **small)
    straight = trained(tmp_path / "straight", {}, *rest, seed=branched.seed, **small)
    assert differing(state_bits(branched.model), state_bits(straight.model)) == []


def test_a_branch_on_functions_that_are_not_those_of_the_record_rehearses_what_was_recorded(tmp_path: Path) -> None:
    """Sizes and first rows being the same, the record stands for the data only where the fit is that of the record."""

    def ends(directory: Path, *fits: tuple[int, float], **settings: Any) -> Any:
        months = Functions()
        with keepfit.Run(classifier(), directory, seed=1, **settings) as run:
            for number, fraction in fits:
                run.fit(months(number), rehearse=fraction, **QUIET)
            return state_bits(run.model), run.recorder.fits[3].detail["rehearse"]["fits"]

    ends(tmp_path / "run", (0, 0.3), (1, 0.3), (1, 0.3))
    with pytest.warns(KeepfitWarning, match="another recipe"):
        branched = ends(tmp_path / "run", (0, 0.3), (1, 0.3), (2, 0.4), on_change="branch")
    assert branched == ends(tmp_path / "straight", (0, 0.3), (1, 0.3), (2, 0.4))
    assert branched[1] == [1, 2]


@pytest.mark.parametrize("before", [True, False])
def test_a_kill_as_a_fit_lets_samples_go_changes_nothing(
    before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A branch that was killed before or after it let go of what the closed fits had left is begun again."""

    class KilledError(BaseException):
        pass

    def killed(past: Any, fit: int) -> None:
        if fit == 2:
            if not before:
                forget(past, fit)
            raise KilledError
        forget(past, fit)

    rest = ({"rehearse": 0.4}, {"rehearse": 0.4})
    trained(tmp_path / "run", {"rehearse": 0.0}, {"rehearse": 0.3}, {"rehearse": 0.3}).close()
    forget = rehearsal.Past.forget
    with monkeypatch.context() as patch:
        patch.setattr(rehearsal.Past, "forget", killed)
        with pytest.warns(KeepfitWarning, match="another recipe"), pytest.raises(KilledError):
            trained(tmp_path / "run", {"rehearse": 0.0}, *rest, on_change="branch")
    branched = trained(tmp_path / "run", {"rehearse": 0.0}, *rest)
    straight = trained(tmp_path / "straight", {"rehearse": 0.0}, *rest, seed=branched.seed)
    assert differing(state_bits(branched.model), state_bits(straight.model)) == []


def test_a_fork_takes_the_samples_of_the_fits_before_it(tmp_path: Path) -> None:
    """It goes on as its parent does, and its files are its own."""
    run = trained(tmp_path / "run", {"rehearse": 0.0}, {"rehearse": 0.3}, {"rehearse": 0.3})
    parent = state_bits(run.model)
    fork = run.fork(tmp_path / "fork", at=2)
    assert [kept.fit for kept in fork.past.register.of("source")] == [1, 2]
    fork.fit(*MONTHS[2], rehearse=0.3, **QUIET)
    assert differing(parent, state_bits(fork.model)) == []
    fork.close()
    assert verify_folder(tmp_path / "fork").damages == ()


@pytest.mark.parametrize("how", ["changed", "missing"])
def test_damaged_samples_are_told_and_kept_again(how: str, tmp_path: Path) -> None:
    """By a replay, which has the data in hand, bit for bit; who cannot goes on without them, and says so."""
    trained(tmp_path / "run", {"rehearse": 0.0}, {"rehearse": 0.3}, {"rehearse": 0.3}).close()
    path = next((tmp_path / "run" / rehearsal.FOLDER).glob("source-0-*-0.safetensors"))
    whole = path.read_bytes()
    if how == "changed":
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    else:
        path.unlink()
    assert any(path.name in damage for damage in verify_folder(tmp_path / "run").damages)
    with keepfit.Run(classifier(), tmp_path / "run", mode="append") as run:
        with pytest.warns(KeepfitWarning, match="samples that were kept of fit 1 cannot be read"):
            run.fit(*MONTHS[3], rehearse=0.3, **QUIET)
        assert run.recorder.fits[4].detail["rehearse"]["fits"] == [2, 3]
    with pytest.warns(KeepfitWarning, match="cannot be read"):
        trained(tmp_path / "run", {"rehearse": 0.0}, {"rehearse": 0.3}).close()
    assert path.read_bytes() == whole
    assert verify_folder(tmp_path / "run").damages == ()


def test_what_a_kill_left_half_written_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were begun are known; the fit that is called again keeps the samples."""
    run = trained(tmp_path / "run", {"rehearse": 0.0})
    write = FeatureFiles._written

    class KilledError(BaseException):
        pass

    def killed(*given: Any) -> None:
        write(*given)
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(FeatureFiles, "_written", killed)
        patch.setattr(FeatureFiles, "remove", lambda *_: None)
        with pytest.raises(KilledError):
            run.fit(*MONTHS[1], rehearse=0.3, **QUIET)
    run.close()
    folder = tmp_path / "run" / rehearsal.FOLDER
    assert any(path.name.endswith(".part") for path in folder.iterdir())
    run = trained(tmp_path / "run", {"rehearse": 0.0}, {"rehearse": 0.3})
    assert not any(path.name.endswith(".part") for path in folder.iterdir())
    assert differing(state_bits(run.model), state_bits(trained(None, {"rehearse": 0.0}, {"rehearse": 0.3}).model)) == []


def test_many_fits_keep_few_samples(tmp_path: Path) -> None:
    """The folder grows with the logarithm of what came, not with the number of fits."""
    generator = np.random.default_rng(3)
    with keepfit.Run(classifier(), tmp_path / "run", reservoir=20, checkpoint_share=1e-6) as run:
        for _ in range(24):
            x = generator.normal(size=(40, 6)).astype("float32")
            run.fit(x, (x[:, 0] > 0).astype("int32"), batch_size=40, verbose=0)
        kept = run.past.register.of("source")
    assert len(kept) == 24
    # 20 (1 + 1/2 + ... + 1/24) = 76 is the mean over seeds.
    assert sum(each.samples for each in kept) < 120
    json.dumps([each.to_json() for each in kept])


def test_memory_and_folder_train_alike(tmp_path: Path) -> None:
    """Where samples lie changes no bit."""
    fits = ({"rehearse": 0.0}, {"rehearse": 0.3}, {"rehearse": 0.6, "steps_per_epoch": 4})
    memory, folder = trained(None, *fits), trained(tmp_path / "run", *fits)
    assert differing(state_bits(memory.model), state_bits(folder.model)) == []


def test_rehearsal_forgets_less() -> None:
    """Two months with other classes: without rehearsal the first is forgotten, with it much less."""

    def after(fraction: float) -> Any:
        run = keepfit.Run(classifier(dropout=0.0))
        for x, y in map(classes, range(2)):
            run.fit(x, y, epochs=40, rehearse=fraction, validation_data=(x, y), **QUIET)
        return run.forgetting()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", KeepfitWarning)
        without, with_it = after(0.0), after(0.4)
    # Measured over three seeds: 0.43 to 0.45 without, at most 0.0 with; averages 0.77 to 0.78 and 0.99.
    assert without.forgetting > 0.3
    assert with_it.forgetting < 0.1
    assert with_it.average > without.average + 0.1
