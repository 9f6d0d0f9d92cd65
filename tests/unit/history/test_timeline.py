"""Where fits, epochs and events lie on the axis of a picture."""

from __future__ import annotations

import pytest

from keepfit.history.timeline import timeline


def test_bands_cover_the_epochs_of_their_fits(make_history):
    """Each fit is a band from the epochs finished before it to those finished after it."""
    line = timeline(make_history([2, 3]), "epochs")
    assert [(band.left, band.right) for band in line.bands] == [(0, 2), (2, 5)]
    assert line.starts == (0, 1, 2, 3, 4)
    assert line.ends == (1, 2, 3, 4, 5)


def test_steps_are_an_axis_too(make_history):
    """Over steps everything lies at the run's finished steps."""
    line = timeline(make_history([2, 3], events=[("died", 2, 2, 27)]), "steps")
    assert [(band.left, band.right) for band in line.bands] == [(0, 20), (20, 50)]
    assert [mark.at for mark in line.marks] == [27]


def test_kill_inside_an_epoch_lies_between_its_ends(make_history):
    """A kill in the middle of an epoch is drawn in its middle, the resume where it went on."""
    line = timeline(make_history([4], events=[("died", 1, 2, 25), ("resumed", 1, 2, 20)]), "epochs")
    assert [(mark.at, mark.text) for mark in line.marks] == [(2.0, "resumed"), (2.5, "killed")]


@pytest.mark.parametrize("step", [35, 1000])
def test_kill_after_the_last_epoch_stays_in_the_next(make_history, step):
    """Beyond the last finished epoch a kill is drawn inside the one under way, whatever its step."""
    line = timeline(make_history([3], statuses=["open"], events=[("died", 1, 3, step)]), "epochs")
    assert 3 < line.marks[0].at < 4
    assert line.bands[0].right == line.marks[0].at


def test_event_without_step_lies_at_its_epoch(make_history):
    """An event that knows only its epoch is drawn there, one without a place not at all."""
    events = [("died", 1, 2, None), ("died", None, None, None), ("opened", 1, 1, 1)]
    assert [mark.at for mark in timeline(make_history([3], events=events), "epochs").marks] == [2.0]
    assert [mark.at for mark in timeline(make_history([3], events=events), "steps").marks] == [20.0]


def test_early_stop_is_marked_at_the_end_of_its_fit(make_history):
    """A fit that was stopped early has a mark at its end."""
    line = timeline(make_history([2, 2], statuses=["stopped", "finished"]), "epochs")
    assert [(mark.at, mark.text) for mark in line.marks] == [(2, "stopped early")]


def test_fit_without_epochs_has_no_band(make_history):
    """What has not come anywhere takes no place."""
    line = timeline(make_history([2, 0], statuses=["finished", "open"]), "epochs")
    assert [band.row.number for band in line.bands] == [1]
    assert timeline(make_history([]), "epochs").right == 1.0
