from __future__ import annotations

import pytest

from keepfit.clock import Position
from keepfit.recorder.requests import Request, Requests, Waiting
from keepfit.recorder.snapshot import Snapshot


def request(name: str, **options) -> Request:
    facts = {"kind": "end", "fit": 1, "must": False, "now": False} | options
    facts |= {"position": Position(), "state": Snapshot({}), "good": True, "fit_record": None}
    return Request(tensors={"name": name}, created=0.0, order=0, **facts)


@pytest.fixture
def requests():
    """Return an empty queue."""
    return Requests()


def taken(requests: Requests, *, due: bool = True) -> list[str]:
    """Return the names of all that is to be written, in order."""
    names = []
    while item := requests.take(due=due):
        names.append(item.tensors["name"])
    return names


def test_a_newer_pending_one_replaces_an_older(requests):
    """Of those that can wait only the newest is written."""
    requests.add(request("a"))
    requests.add(request("b"))
    assert taken(requests, due=False) == []
    assert taken(requests) == ["b"]
    assert not requests


def test_those_that_must_be_written_are_in_order(requests):
    """None of them is replaced; one that can wait and is older is."""
    requests.add(request("a"))
    requests.add(request("b", must=True))
    requests.add(request("c", must=True))
    requests.add(request("d"))
    assert requests.urgent
    assert taken(requests) == ["b", "c", "d"]


def test_what_is_wanted_now_hands_its_hurry_on(requests):
    """A newer state that replaces one wanted at once is written at once."""
    requests.add(request("a", now=True))
    requests.add(request("b"))
    assert taken(requests, due=False) == ["b"]


def test_put_back_keeps_the_start_and_the_newest(requests):
    """While the disk refuses, memory holds two states at most, and who waits is told."""
    waiting = Waiting()
    start, failed = request("start", kind="start", must=True), request("a", must=True, waiting=waiting)
    requests.add(start)
    requests.add(failed)
    requests.add(request("b", must=True))
    assert requests.take(due=True) is start
    requests.put_back(start, OSError())
    assert isinstance(waiting.error, OSError)
    assert requests.urgent
    assert taken(requests, due=False) == ["start", "b"]


def test_put_back_does_not_push_out_a_newer_one(requests):
    """A state that failed gives way to one that came meanwhile."""
    failed = request("a")
    requests.add(request("b"))
    requests.put_back(failed, OSError())
    assert taken(requests) == ["b"]


def test_rebranch_moves_later_ones_and_will_write_their_end(requests):
    """A pending end of a closed fit is written into its branch; a pending one inside is not."""
    inflight = request("inflight", fit=2)
    requests.add(request("must", fit=2, must=True))
    requests.add(request("end", fit=3))
    requests.rebranch(inflight, after=1, number=4)
    assert inflight.branch == 4
    requests.add(request("new", fit=2))
    moved = [(item.tensors["name"], item.branch) for item in iter(lambda: requests.take(due=True), None)]
    assert moved == [("must", 4), ("end", 4), ("new", 0)]
    requests.add(request("inside", fit=3, kind="inside"))
    requests.rebranch(None, after=1, number=5)
    assert not requests
