"""The time of a ranking's fitting: shares by weight, what is left goes on, and what was cut is kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graph_transformer.finetune.ranking.time_budget import EARLIER, FUSIONS, LISTS, TOWERS, WEIGHTS, Cut, TimeBudget

PHASES = (TOWERS, LISTS, FUSIONS)


def clock() -> tuple[list[float], Callable[[], float]]:
    """A time that a test moves, and what reads it."""
    now = [100.0]
    return now, lambda: now[0]


def test_a_phase_has_its_share_of_what_is_left() -> None:
    """What a phase leaves, those after it have; what it takes too much, they lack; the last has all that is left."""
    now, read = clock()
    time = TimeBudget(60.0, PHASES, read)
    towers, lists, fusions = (WEIGHTS[phase] for phase in PHASES)

    with time.phase(TOWERS) as most_s:
        assert most_s == pytest.approx(60.0 * towers / (towers + lists + fusions))
        now[0] += 40.0
    now[0] += 1000.0  # between phases nothing counts: measuring is no fitting
    with time.phase(LISTS) as most_s:
        assert most_s == pytest.approx(20.0 * lists / (lists + fusions))
        now[0] += 1.0
    with time.phase(FUSIONS) as most_s:
        assert most_s == pytest.approx(19.0)


def test_spent_time_leaves_nothing_and_not_less() -> None:
    """Where earlier phases took more than all of it, later ones have zero seconds."""
    now, read = clock()
    time = TimeBudget(5.0, (TOWERS, EARLIER), read)
    with time.phase(TOWERS):
        now[0] += 9.0
    with time.phase(EARLIER) as most_s:
        assert most_s == 0.0


def test_without_a_limit_there_is_none() -> None:
    """No seconds are given out, and it is said."""
    time = TimeBudget(None, PHASES)
    with time.phase(TOWERS) as most_s:
        assert most_s is None
    assert not time.limited
    assert TimeBudget(1.0, PHASES).limited


def test_what_was_cut_is_kept_once() -> None:
    """Only what came to less than was wanted; of a phase told of twice the first."""
    time = TimeBudget(1.0, PHASES)
    time.told(LISTS, 64, 64, "questions")
    time.told(TOWERS, 54, 1777, "steps")
    time.told(TOWERS, 3, 1777, "steps")
    assert time.cuts == [Cut(TOWERS, 54, 1777, "steps")]
    assert str(time.cuts[0]) == "towers: 54 of 1,777 steps"
    assert time.cuts[0].to_dict() == {"phase": "towers", "done": 54, "wanted": 1777, "unit": "steps"}
