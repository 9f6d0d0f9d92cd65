from __future__ import annotations

import pytest

from keepfit.journal import FitRecord


def test_fit_record_comes_back_from_its_json():
    """A record given as plain data comes back equal."""
    record = FitRecord(number=2, name="head", recipe={"epochs": 3}, approximate=["a generator was replayed"])
    assert FitRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize("facts", [{"number": 0}, {"number": 1, "status": "done"}])
def test_fit_record_refuses_impossible_facts(facts):
    """A number below 1 and an unknown status are refused where the record is made."""
    with pytest.raises(ValueError, match=r"FitRecord\."):
        FitRecord(**facts)
