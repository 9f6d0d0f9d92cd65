from __future__ import annotations

import random
import string
from math import inf

import pytest

from keepfit.journal import FitRecord
from keepfit.recorder.fits import FitTable


def record(number: int, **facts) -> FitRecord:
    recipe = {"learning_rate": 1 / number, "layers": [{"name": f"dense_{i}", "units": i} for i in range(20)]}
    return FitRecord(number=number, recipe=recipe, detail={"best": inf, "text": "ä"}, **facts)


def test_fit_table_gives_records_back_whatever_their_age():
    """Recent and packed records come back equal; the table is a dict in order of numbers."""
    table = FitTable()
    records = {number: record(number) for number in range(1, 51)}
    for item in records.values():
        table.put(item)
    assert dict(table) == records
    assert list(table) == list(records)
    assert len(table) == 50
    assert 7 in table
    assert 77 not in table
    with pytest.raises(KeyError):
        table[77]


def test_fit_table_replaces_a_record_whatever_its_age():
    """The newest word about a fit counts, also about one that was packed."""
    table = FitTable()
    for number in range(1, 51):
        table.put(record(number))
    for number in (2, 50):
        table.put(record(number, status="finished"))
    for number in range(51, 70):
        table.put(record(number))
    assert [number for number, item in table.items() if item.status == "finished"] == [2, 50]


def test_fit_table_takes_out_what_lies_after_a_fit():
    """The records taken out are returned, and their numbers can be used again."""
    table = FitTable()
    for number in range(1, 31):
        table.put(record(number))
    assert table.cut(3) == [record(number) for number in range(4, 31)]
    table.put(record(4, name="again"))
    assert [(item.number, item.name) for item in table.values()] == [(1, None), (2, None), (3, None), (4, "again")]


def test_fit_table_knows_which_fits_have_a_name():
    """Whatever their age; the newest word counts, and what was taken out has none."""
    table = FitTable()
    for number in range(1, 41):
        table.put(record(number, name=f"fit {number}" if number % 10 == 0 else None))
    assert table.named == {10, 20, 30, 40}
    table.put(record(10))
    table.put(record(11, name="late"))
    assert table.named == {11, 20, 30, 40}
    table.cut(25)
    assert table.named == {11, 20} == {number for number, item in table.items() if item.name}


def test_fit_table_is_small_when_recipes_change_for_good():
    """Records that stop resembling the first are packed against a newer one."""
    table, letters = FitTable(), random.Random(0)
    for number in range(1, 101):
        if number % 50 == 1:
            text = "".join(letters.choices(string.ascii_letters, k=3000))
        table.put(FitRecord(number=number, recipe={"text": text}))
    assert len(table._dictionaries) == 2
    assert sum(map(len, table._packed.values())) < 100 * 200
    assert [len(item.recipe["text"]) for item in table.values()] == [3000] * 100


def test_fit_table_is_small_when_every_fit_is_of_its_own():
    """Where each fit has other data, its hashes are all that it takes; most records serve none as a dictionary."""
    table, letters = FitTable(), random.Random(0)
    common = "".join(letters.choices(string.ascii_letters, k=3000))
    for number in range(1, 201):
        hashes = "".join(letters.choices(string.ascii_letters, k=1000))
        table.put(FitRecord(number=number, recipe={"text": common, "data": hashes}))
    assert sum(map(len, table._dictionaries)) < sum(map(len, table._packed.values())) / 2
    assert [len(item.recipe["data"]) for item in table.values()] == [1000] * 200
