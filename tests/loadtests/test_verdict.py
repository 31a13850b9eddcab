from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loadtests.load.clients import Outcome
from loadtests.load.histogram import histogram_of
from loadtests.load.scenario import Objectives
from loadtests.load.verdict import EXIT_CODES, Word, judge


def outcome(
    latency_ms: list[float], *, failed: int = 0, dropped: int = 0, delay_ms: float = 0.1, **more: Any
) -> Outcome:
    """A run of one second."""
    latency = histogram_of(np.array(latency_ms) * 1e3)
    values: dict[str, Any] = {
        "seconds": 1.0,
        "due": len(latency_ms) + failed + dropped,
        "latency": latency,
        "service": latency,
        "send_delay": histogram_of(np.full(100, delay_ms * 1e3)),
        "by_method": {},
        "by_code": {},
        "dropped": dropped,
        "every_second": (),
        "took_s": 1.0,
    }
    return Outcome(**(values | more))


def words(found: Outcome, **objectives: Any) -> dict[str, Word]:
    """The word for each objective, and for the run."""
    verdict = judge(found, Objectives(**objectives))
    return {one.objective: one.word for one in verdict.judged} | {"run": verdict.word}


@pytest.mark.parametrize(
    ("objective", "bound", "good", "bad"),
    [
        ("p50_ms", 5.0, outcome([4.0] * 100), outcome([6.0] * 100)),
        ("p99_ms", 5.0, outcome([1.0] * 99 + [4.0]), outcome([1.0] * 97 + [9.0] * 3)),
        ("p99_9_ms", 5.0, outcome([1.0] * 1_000), outcome([1.0] * 990 + [9.0] * 10)),
        ("p99_over_p50", 2.0, outcome([1.0] * 100), outcome([1.0] * 90 + [9.0] * 10)),
        ("error_ratio", 0.1, outcome([1.0] * 90, failed=10), outcome([1.0] * 89, failed=11)),
        ("dropped_ratio", 0.1, outcome([1.0] * 90, dropped=10), outcome([1.0] * 89, dropped=11)),
        ("achieved_ratio", 0.9, outcome([1.0] * 100), outcome([1.0] * 100, took_s=1.2)),
    ],
)
def test_each_objective_is_held_or_missed(objective: str, bound: float, good: Outcome, bad: Outcome) -> None:
    """On either side of its bound; one that is missed misses the run."""
    none = {"error_ratio": None, "dropped_ratio": None, "achieved_ratio": None}
    assert words(good, **(none | {objective: bound})) == {objective: "held", "send_delay_p99_ms": "held", "run": "held"}
    assert words(bad, **(none | {objective: bound})) == {
        objective: "missed",
        "send_delay_p99_ms": "held",
        "run": "missed",
    }


def test_a_late_generator_measures_nothing() -> None:
    """Whatever the figures are: when the generator did not keep its schedule, the run is neither held nor missed."""
    for found in (outcome([1.0] * 100, delay_ms=20), outcome([900.0] * 100, delay_ms=20)):
        assert words(found, p99_ms=5.0)["run"] is Word.UNKNOWN
    assert len({EXIT_CODES[word] for word in Word}) == 3
    assert EXIT_CODES[Word.HELD] == 0


def test_no_answer_is_no_success() -> None:
    """A run of which nothing came back misses its objectives of latency."""
    assert words(outcome([], failed=10), p99_ms=5.0)["p99_ms"] is Word.MISSED
