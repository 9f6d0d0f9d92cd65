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


def test_a_signal_waits_until_it_is_asked_for() -> None:
    """Then it raises, and the handlers are as they were."""
    before = handlers()
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:
        interrupts.leave()
        signal.raise_signal(signal.SIGINT)
        assert interrupts.noted
        interrupts.leave()
        pytest.fail("it did not leave")
    assert handlers() == before


def test_a_signal_that_nobody_asks_for_takes_effect_at_the_end() -> None:
    """The work is done first."""
    done = False
    with pytest.raises(KeyboardInterrupt), Interrupts():
        signal.raise_signal(signal.SIGINT)
        done = True
    assert done


def test_an_error_says_more_than_ctrl_c() -> None:
    """What was raised after the signal came is what is raised."""
    with pytest.raises(ZeroDivisionError), Interrupts():
        signal.raise_signal(signal.SIGINT)
        raise ZeroDivisionError


def test_second_ctrl_c_raises_at_once() -> None:
    """And leaves the handlers as they were."""
    before = handlers()
    with pytest.raises(KeyboardInterrupt), Interrupts():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it did not raise")
    assert handlers() == before


def test_handlers_are_put_back_whatever_comes_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C again and again while a fit ends."""
    before, install = handlers(), signal.signal

    def disturbed(number: int, handler: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return install(number, handler)

    with pytest.raises(KeyboardInterrupt), Interrupts():
        signal.raise_signal(signal.SIGINT)
        monkeypatch.setattr(signal, "signal", disturbed)
    monkeypatch.undo()
    assert handlers() == before


def test_signals_within_one_another_come_to_the_outer_one() -> None:
    """As when a callback evaluates: the fit is left, and not the evaluation alone."""
    with pytest.raises(KeyboardInterrupt), Interrupts() as outer:
        with Interrupts():
            signal.raise_signal(signal.SIGINT)
        assert outer.noted
        outer.leave()
