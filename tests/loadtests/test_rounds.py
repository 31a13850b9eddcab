"""What `loadtests.serving.rounds` promises: an overload is compared with its neighbors; each side's CPU is known."""

from __future__ import annotations

import math

import pytest

from loadtests.serving.light_client import Phase
from loadtests.serving.rounds import Capacity, Overload, Spread, recovery_s

DEADLINE_MS = 250.0


def phase_of(latency_ms: list[float], refused_ms: list[float], *, offered_per_s: float = 2_000.0) -> Phase:
    """A phase of a second."""
    return Phase("2x", offered_per_s, 1.0, latency_ms=latency_ms, refused_ms=refused_ms)


def overload_of(phase: Phase, *, server_cores: float = 1.0) -> Overload:
    """Between a capacity of 800 and one of 1,200 calls a second, each with a core of the server's."""
    before, after = Capacity(800.0, 0.8, 0.1), Capacity(1_200.0, 1.2, 0.1)
    return Overload(phase, DEADLINE_MS, server_cores, 0.5, before, after)


def test_share_and_factor_are_of_the_neighbours() -> None:
    """A machine that got faster meanwhile changes what was offered and what was reached, both as shares of the mean."""
    overload = overload_of(phase_of([10.0] * 900, []))
    assert overload.capacity_per_s == 1_000.0
    assert overload.share == 0.9
    assert overload.factor == 2.0


def test_answers_after_the_deadline_are_no_goodput() -> None:
    """Goodput counts answers up to the deadline, and none a millisecond later."""
    assert overload_of(phase_of([DEADLINE_MS] * 400 + [DEADLINE_MS + 1.0] * 600, [])).share == 0.4


def test_a_refusal_costs_what_answers_leave() -> None:
    """An answer costs 1,000 us beside it: 500 of them leave half a core to 2,000 refusals; nothing refused, no cost."""
    overload = overload_of(phase_of([10.0] * 500, [1.0] * 2_000))
    assert overload.refusal_us == pytest.approx(250.0)
    assert math.isnan(overload_of(phase_of([10.0] * 500, [])).refusal_us)


def test_hints_are_a_share_of_the_refused() -> None:
    """One refusal in four has a hint; nothing refused, no share."""
    phase = phase_of([], [1.0] * 4)
    phase.hinted = 1
    assert overload_of(phase).hinted == 0.25
    assert math.isnan(overload_of(phase_of([10.0], [])).hinted)


def test_the_clients_cost_is_by_call() -> None:
    """Half a core for 2,000 calls a second is 250 us a call, whether they were answered or refused."""
    assert overload_of(phase_of([], [1.0] * 2_000)).call_us == pytest.approx(250.0)


def test_spread_is_the_median_within_its_bounds() -> None:
    """One bad round moves a bound and not the median; of no rounds nothing is known."""
    spread = Spread.of([0.9, 0.1, 0.95])
    assert (spread.median, spread.least, spread.most) == (0.9, 0.1, 0.95)
    assert spread.written("{:.0%}") == "90% (10% to 95%)"
    assert math.isnan(Spread.of([]).median)


def after_of(slow_until_s: float, latency_ms: float) -> Phase:
    """Three seconds of 100 calls a second, as slow as that until then, and 5 ms from there on."""
    at_s = [number / 100 for number in range(300)]
    latencies = [latency_ms if at < slow_until_s else 5.0 for at in at_s]
    return Phase("after", 100.0, 3.0, latency_ms=latencies, answered_at_s=at_s)


def test_recovery_ends_with_the_first_normal_half_second() -> None:
    """Slow calls until 1.1 s: normal from 1.25 s on; twice the calm p99 still is normal, more is not."""
    assert recovery_s(5.0, after_of(1.1, 100.0)) == 1.25
    assert recovery_s(5.0, after_of(3.0, 10.0)) == 0.0
    assert recovery_s(5.0, after_of(3.0, 10.1)) == math.inf


def test_what_is_not_answered_is_not_normal() -> None:
    """A server that answers half of what it is asked has not recovered, however fast it is."""
    after = after_of(0.0, 0.0)
    after.latency_ms, after.answered_at_s = after.latency_ms[::2], after.answered_at_s[::2]
    assert recovery_s(5.0, after) == math.inf
