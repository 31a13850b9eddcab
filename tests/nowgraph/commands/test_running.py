"""A command stops when it is told to, and says now and then how it is doing."""

from __future__ import annotations

import os
import signal

import pytest

from nowgraph.commands.running import Stop, end_on, progress_line


def test_the_first_signal_stops_and_the_second_does_what_it_always_did() -> None:
    """After the first the old handler is back, so that a hung process can still be ended."""
    before = signal.getsignal(signal.SIGUSR1)
    stop = Stop(signal.SIGUSR1)
    assert not stop.wait(0)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert stop.wait(5)
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_start_that_makes_nothing_ends_where_it_is() -> None:
    """Exit code 0, from the middle of what it does; stops set later take precedence."""
    before = signal.getsignal(signal.SIGUSR1)
    try:
        end_on(signal.SIGUSR1)
        with pytest.raises(SystemExit) as ended:
            os.kill(os.getpid(), signal.SIGUSR1)
        assert ended.value.code == 0
        stop = Stop(signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.wait(5)
        assert stop.came
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_pipe_gets_a_line_now_and_then_and_lasting_ones_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Hundreds of updates are one line; what lasts is always written; all of it to standard error."""
    with progress_line(quiet=False) as show:
        for number in range(300):
            show(f"{number} events")
        show("generation 1 serves", lasting=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == ["0 events", "generation 1 serves"]


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Not even what lasts."""
    with progress_line(quiet=True) as show:
        show("x")
        show("y", lasting=True)
    assert capsys.readouterr() == ("", "")
