"""Whether a run held its objectives: pass or fail for each, and whether the generator could be believed at all."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from loadtests.load.clients import Outcome
from loadtests.load.histogram import at_ms
from loadtests.load.scenario import Objectives


class Word(StrEnum):
    """Of one objective, and of a run."""

    HELD = "held"
    MISSED = "missed"
    UNKNOWN = "not measured"
    """The generator did not keep its own schedule, so that the server was not asked what the scenario says."""


EXIT_CODES = {Word.HELD: 0, Word.MISSED: 1, Word.UNKNOWN: 3}


@dataclass(frozen=True, slots=True)
class Judged:
    """One objective: its bound, what was measured, and the word."""

    objective: str
    bound: float
    measured: float
    word: Word


@dataclass(frozen=True, slots=True)
class Verdict:
    """All objectives of a run and the word for it."""

    judged: tuple[Judged, ...]
    word: Word


def judge(outcome: Outcome, objectives: Objectives) -> Verdict:
    """Compares a run with its objectives. What is not a number, because nothing was answered, is missed."""
    delay_ms = at_ms(outcome.send_delay, 99)
    p50_ms, p99_ms = at_ms(outcome.latency, 50), at_ms(outcome.latency, 99)
    at_most = {
        "p50_ms": (objectives.p50_ms, p50_ms),
        "p99_ms": (objectives.p99_ms, p99_ms),
        "p99_9_ms": (objectives.p99_9_ms, at_ms(outcome.latency, 99.9)),
        "p99_over_p50": (objectives.p99_over_p50, p99_ms / p50_ms if p50_ms else float("nan")),
        "error_ratio": (objectives.error_ratio, outcome.error_ratio),
        "dropped_ratio": (objectives.dropped_ratio, outcome.dropped_ratio),
    }
    judged = [
        Judged(name, bound, measured, Word.HELD if measured <= bound else Word.MISSED)
        for name, (bound, measured) in at_most.items()
        if bound is not None
    ]
    if objectives.achieved_ratio is not None:
        ratio = outcome.achieved_per_s / outcome.offered_per_s if outcome.due else float("nan")
        word = Word.HELD if ratio >= objectives.achieved_ratio else Word.MISSED
        judged.append(Judged("achieved_ratio", objectives.achieved_ratio, ratio, word))
    kept_up = delay_ms <= objectives.send_delay_p99_ms
    judged.append(
        Judged("send_delay_p99_ms", objectives.send_delay_p99_ms, delay_ms, Word.HELD if kept_up else Word.UNKNOWN)
    )
    if not kept_up:
        return Verdict(tuple(judged), Word.UNKNOWN)
    held = all(one.word is Word.HELD for one in judged)
    return Verdict(tuple(judged), Word.HELD if held else Word.MISSED)
