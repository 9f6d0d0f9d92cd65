from __future__ import annotations

from dataclasses import replace
from math import isnan, nan

import numpy as np
import pytest

from keepfit.journal import EpochRecord
from keepfit.recorder.epochs import EpochLog

FIRST = EpochRecord(
    fit=1, epoch=0, label=1, logs={"loss": 0.1 + 0.2, "accuracy": 1.0}, learning_rate=1e-3, steps=3, step=3,
    samples=96, seconds=0.25, ended=2.0**31 + 0.5,
)  # fmt: skip


@pytest.fixture
def log():
    """Return the log of three fits of two epochs each."""
    log = EpochLog()
    for epoch in range(6):
        log.put(replace(FIRST, epoch=epoch, fit=1 + epoch // 2, logs={"loss": float(epoch)}))
    return log


def test_epoch_log_gives_records_back_bit_for_bit():
    """An epoch comes back equal, also without a rate, without logs, and with a log that is not one number."""
    log = EpochLog()
    records = [
        FIRST,
        replace(FIRST, epoch=1, logs={}, learning_rate=None),
        replace(FIRST, epoch=2, logs={"per_class": (0.5, 0.25)}),
        replace(FIRST, epoch=3, logs={"loss": np.float32(0.1)}),
    ]
    for record in records:
        log.put(record)
    assert log == records
    assert type(log[3].logs["loss"]) is float


def test_epoch_log_keeps_a_loss_that_is_not_finite():
    """NaN stays NaN."""
    log = EpochLog()
    log.put(replace(FIRST, logs={"loss": nan}))
    assert isnan(log[0].logs["loss"])


def test_epoch_log_is_a_list(log):
    """Index, slice, length, iteration and comparison are those of a list."""
    assert [item.epoch for item in log] == list(range(6))
    assert log[-1] == log[5]
    assert [item.epoch for item in log[1:5:2]] == [1, 3]
    assert len(log) == 6
    assert log
    assert log == list(log)
    assert log != list(log)[1:]
    with pytest.raises(IndexError):
        log[6]


def test_epoch_log_replaces_from_an_index_on(log):
    """An epoch that is done again takes the place of the old one and of those after it."""
    log.put(replace(FIRST, epoch=3, fit=2, label=33))
    assert [item.label for item in log] == [1, 1, 1, 33]


def test_epoch_log_cuts_rows_of_all_kinds():
    """Rows with other logs, fewer or none, before and after a cut, come back as they were put."""
    kinds = [{"loss": 1.0, "per_class": (0.5, 0.25)}, {"loss": 2.0, "mae": 3.0}, {}, {"loss": 4.0}]
    records = [replace(FIRST, epoch=epoch, logs=kinds[epoch % 4]) for epoch in range(12)]
    for end in range(12):
        log = EpochLog()
        for record in records:
            log.put(record)
        assert log == records
        again = [replace(record, logs=kinds[(record.epoch + 1) % 4]) for record in records[end:]]
        for record in again:
            log.put(record)
        assert log == [*records[:end], *again]


def test_epoch_log_cuts_by_fit_and_by_epoch(log):
    """What lies after a fit, or from an index on, is forgotten and counted."""
    assert log.cut(fit=2) == 2
    assert log.cut(epoch=1) == 3
    assert log.cut(epoch=1) == 0
    assert [item.epoch for item in log] == [0]


def test_epoch_log_finds_the_epochs_of_a_fit(log):
    """The epochs and the last logs of a fit are found; of a fit without epochs, none."""
    assert [item.epoch for item in log.of(2)] == [2, 3]
    assert log.last_logs(2) == {"loss": 3.0}
    assert log.of(9) == []
    assert log.last_logs(9) == {}
    assert EpochLog().last_logs(1) == {}
