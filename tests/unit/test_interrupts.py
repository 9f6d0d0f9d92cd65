"""Signals that are noted while a fit runs."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from keepfit.interrupts import Interrupts

pytestmark = pytest.mark.usefixtures("_heard_ctrl_c")


def handlers() -> list[Any]:
    """Return what is called for Ctrl-C and for SIGTERM."""
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


def ctrl_c(times: int = 1) -> None:
    """Press it."""
    for _ in range(times):
        signal.raise_signal(signal.SIGINT)


def test_a_signal_waits_until_it_is_asked_for() -> None:
    """Then it raises, and the handlers are as they were."""
    before, noted = handlers(), []

    def work() -> None:
        with Interrupts() as interrupts:
            interrupts.leave()
            ctrl_c()
            noted.append(interrupts.noted)
            interrupts.leave()
            noted.append(False)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert noted == [True]
    assert handlers() == before


def test_a_signal_that_nobody_asks_for_takes_effect_at_the_end() -> None:
    """The work is done first."""
    done = []

    def work() -> None:
        with Interrupts():
            ctrl_c()
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done


def test_an_error_says_more_than_ctrl_c() -> None:
    """What was raised after the signal came is what is raised."""

    def work() -> None:
        with Interrupts():
            ctrl_c()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()


def test_sigterm_takes_effect_whatever_was_raised() -> None:
    """The process was asked to end, and ends."""

    def leave(number: int, _: Any) -> None:
        raise SystemExit(number)

    def work() -> None:
        with Interrupts():
            signal.raise_signal(signal.SIGTERM)
            raise ZeroDivisionError

    before = signal.signal(signal.SIGTERM, leave)
    try:
        with pytest.raises(SystemExit):
            work()
    finally:
        assert signal.signal(signal.SIGTERM, before) is leave


def test_second_ctrl_c_raises_at_once() -> None:
    """And leaves the handlers as they were."""
    before, done = handlers(), []

    def work() -> None:
        with Interrupts():
            ctrl_c(times=2)
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert not done
    assert handlers() == before


def test_handlers_are_put_back_whatever_comes_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C again and again while a fit ends."""
    before, install = handlers(), signal.signal

    def disturbed(number: int, handler: Any) -> Any:
        ctrl_c()
        return install(number, handler)

    def work() -> None:
        with Interrupts():
            ctrl_c()
            monkeypatch.setattr(signal, "signal", disturbed)

    with pytest.raises(KeyboardInterrupt):
        work()
    monkeypatch.undo()
    assert handlers() == before


def test_signals_within_one_another_come_to_the_outer_one() -> None:
    """As when a callback evaluates: the fit is left, and not the evaluation alone."""
    noted = []

    def work() -> None:
        with Interrupts() as outer:
            with Interrupts():
                ctrl_c()
            noted.append(outer.noted)
            outer.leave()
            noted.append(False)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert noted == [True]
