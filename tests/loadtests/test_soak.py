from __future__ import annotations

import math
import time

import numpy as np
import pytest

from loadtests.load.soak import Memory, MemoryWatch, stall_ms_p99

SECONDS = np.arange(0.0, 600.0)


def test_what_grows_is_seen_and_what_is_flat_is_not() -> None:
    """A leak of 100 MiB an hour under noise is not flat; noise alone, a first rise and one late jump are."""
    noise = np.random.default_rng(0).normal(0, 2.0, len(SECONDS))
    leak = Memory(SECONDS, 300 + SECONDS / 36 + noise)
    assert leak.growth_mib_per_hour == pytest.approx(100, rel=0.2)
    assert not leak.flat
    assert Memory(SECONDS, 300 + noise).flat
    assert Memory(SECONDS, 300 + np.minimum(SECONDS, 100) + noise).flat
    assert Memory(SECONDS, 300 + 20 * (SECONDS > 560) + noise).flat


def test_lows_are_what_is_judged() -> None:
    """Queues that stand more and more of the time are no leak; one under them, that only their ends show, is."""
    standing = 100 * (SECONDS % 60 < SECONDS / 10)
    waits = Memory(SECONDS, 300 + standing)
    assert waits.flat
    leaks = Memory(SECONDS, 300 + SECONDS / 36 + 100 * (SECONDS % 20 < 15))
    assert leaks.growth_mib_per_hour == pytest.approx(100, rel=0.2)
    assert not leaks.flat
    assert len(leaks.lows) == 15
    assert leaks.lows[0] == pytest.approx(300 + 165 / 36, abs=0.5)


def test_a_short_run_is_judged_by_what_it_has() -> None:
    """Fewer samples than stretches are a stretch each."""
    assert Memory(np.arange(0.0, 8.0), np.full(8, 300.0)).flat


def test_memory_is_sampled_while_the_block_runs() -> None:
    """From its beginning to its end, in MiB."""
    with MemoryWatch(lambda: 5 << 20, every_s=0.02) as watch:
        time.sleep(0.2)
    assert len(watch.memory.mib) >= 3
    assert set(watch.memory.mib) == {5.0}


def test_stalls_are_those_between_two_scrapes() -> None:
    """What was there before is not counted; without the metric, or without a new stall, there is nothing to say."""

    def scrape(*counts: int) -> str:
        edges = ("0.001", "0.005", "0.05", "+Inf")
        name = "nowgraph_event_loop_stall_seconds_bucket"
        return "\n".join(f'{name}{{le="{edge}"}} {count}.0' for edge, count in zip(edges, counts, strict=True))

    assert stall_ms_p99(scrape(0, 0, 50, 50), scrape(0, 1_000, 1_055, 1_055)) == 5.0
    assert stall_ms_p99(scrape(0, 0, 0, 0), scrape(0, 900, 1_000, 1_000)) == 50.0
    assert math.isnan(stall_ms_p99(scrape(0, 0, 5, 5), scrape(0, 0, 5, 5)))
    assert math.isnan(stall_ms_p99("", ""))
