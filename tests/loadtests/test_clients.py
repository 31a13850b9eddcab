"""A run's clients against a real grpc.aio server in another process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from loadtests.load.clients import Request, Senders, run
from loadtests.load.histogram import at_ms

pytestmark = pytest.mark.integration

PATH = "/echo.Echo/Answer"


def evenly(rate: int, seconds: float) -> np.ndarray:
    """Due times of a constant rate."""
    return (np.arange(int(rate * seconds)) * 1_000_000 // rate).astype(np.int64)


def sent(target: str, *, rate: int, seconds: float, path: str = PATH, **how: Any) -> Any:
    """What came of a constant rate."""
    due_us = evenly(rate, seconds)
    return run(
        [Request(target, path, b"x")], due_us, np.zeros(len(due_us), np.int64), seconds=seconds, how=Senders(**how)
    )


def test_a_stall_shows_in_the_tail(echo: Callable[..., str]) -> None:
    """A server that answers nothing for 500 ms keeps a quarter of two seconds waiting: p99 says so, p50 does not.

    A generator that waits for answers would have sent one request in that time: 1 of 400, beyond its p99.
    """
    stalled = sent(echo(stall_after_s=0.7, stall_s=0.5), rate=200, seconds=2)
    smooth = sent(echo(), rate=200, seconds=2)
    assert at_ms(stalled.latency, 99) > 400
    assert at_ms(stalled.latency, 80) > 50
    assert at_ms(stalled.latency, 50) < 200
    assert at_ms(smooth.latency, 50) < 200
    assert at_ms(smooth.latency, 99) < at_ms(stalled.latency, 99)
    assert (stalled.answered, stalled.failed, stalled.dropped) == (400, 0, 0)
    worst = max(stalled.every_second, key=lambda second: at_ms(second.latency, 99))
    assert stalled.every_second.index(worst) in (0, 1)


def test_what_waits_for_room_is_dropped_and_counted(echo: Callable[..., str]) -> None:
    """Beyond the limit of unanswered requests nothing is sent, and each one that was due and not sent is counted."""
    outcome = sent(echo(stall_after_s=0.1, stall_s=0.5), rate=200, seconds=1, in_flight_max=10)
    assert outcome.dropped >= 50
    assert outcome.answered + outcome.dropped == outcome.due == 200
    assert sum(second.dropped for second in outcome.every_second) == outcome.dropped
    assert outcome.dropped_ratio == outcome.dropped / 200


def test_errors_are_counted_by_code(echo: Callable[..., str]) -> None:
    """An answer that is not OK is a failure under its gRPC code, and not in the latency of answers."""
    target = echo()
    refused = sent(target, rate=100, seconds=0.5, path="/echo.Echo/Refuse")
    assert (refused.answered, refused.failed) == (0, 50)
    assert {name: h.get_total_count() for name, h in refused.by_code.items()} == {"RESOURCE_EXHAUSTED": 50}
    late = sent(echo(stall_after_s=0.0, stall_s=0.4), rate=100, seconds=0.3, timeout_s=0.1)
    assert late.by_code["DEADLINE_EXCEEDED"].get_total_count() > 0


def test_several_processes_send_one_schedule(echo: Callable[..., str]) -> None:
    """Three senders share the due times: every request is sent once, and the histograms are those of all three."""
    outcome = sent(echo(), rate=300, seconds=1, processes=3, cores=(0,))
    assert (outcome.due, outcome.answered) == (300, 300)
    assert outcome.latency.get_total_count() == outcome.service.get_total_count() == 300
    assert [second.due for second in outcome.every_second] == [300]


def test_a_generator_that_cannot_keep_up_says_so(echo: Callable[..., str]) -> None:
    """More than one process can send: requests leave late; the send delay is reported apart, and is in the latency."""
    outcome = sent(echo(), rate=60_000, seconds=0.2, in_flight_max=100_000, timeout_s=30.0)
    assert outcome.due == 12_000
    assert at_ms(outcome.send_delay, 99) > 50
    assert at_ms(outcome.latency, 99) >= at_ms(outcome.send_delay, 99) * 0.99


def test_methods_are_told_apart(echo: Callable[..., str]) -> None:
    """A mixed run has a histogram of each method."""
    target = echo()
    requests = [Request(target, PATH, b"a"), Request(target, "/echo.Echo/Other", b"b")]
    due_us = evenly(100, 0.5)
    outcome = run(requests, due_us, np.arange(50) % 5 // 4, seconds=0.5, how=Senders())
    assert {name: h.get_total_count() for name, h in outcome.by_method.items()} == {"Answer": 40, "Other": 10}
