"""How long a demo looks back, trains and plays: one full run of minutes, and a quick one of seconds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from nowgraph.payments_generator import GeneratorSettings


def _us(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp()) * 1_000_000


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """Times are int64 microseconds UTC; the defaults are the Handbook's test week with three months to learn from.

    History is what happened from ``history_us`` and was known before ``live_us``. Payments from ``train_us`` whose
    label is known by ``live_us`` train; those from ``live_us`` to ``until_us`` are scored live, and their reports are
    played up to ``known_us``.
    """

    history_us: int = _us(2018, 4, 1)
    train_us: int = _us(2018, 5, 1)
    live_us: int = _us(2018, 8, 8)
    until_us: int = _us(2018, 8, 15)
    known_us: int = _us(2018, 8, 22)
    # The Handbook blocks customers with a fraud on record from the start of its week of training.
    on_record_us: int = _us(2018, 7, 25)
    cards_a_day: int = 100
    # Enough steps to learn the reports' meaning within the minutes of a demo; `nowgraph train` takes more.
    steps: int = 1200
    alone_steps: int = 400
    # However slow the machine, the schedules shrink to this, so that the demo ends in its six minutes.
    train_budget_s: float = 110.0
    alone_budget_s: float = 15.0
    # No payment is begun after this; what was scored by then is what is measured.
    live_budget_s: float = 130.0
    # Payments being scored at the same time, as terminals would: one alone would leave the micro-batcher idle.
    in_flight: int = 8
    # Between parts of the last week's reports, so that the average precision can be watched as it settles.
    report_pause_s: float = 0.15
    partitions: int = 2
    arena_bytes: int = 4 << 30
    generator: GeneratorSettings = field(default_factory=GeneratorSettings)
    output: Path = Path("demo-output")

    @classmethod
    def quick(cls) -> Self:
        """A small town and a thousand payments: every part of the path within a minute, no claim to quality."""
        return cls(
            history_us=_us(2018, 4, 1),
            train_us=_us(2018, 4, 8),
            live_us=_us(2018, 5, 20),
            until_us=_us(2018, 5, 22),
            known_us=_us(2018, 5, 29),
            on_record_us=_us(2018, 5, 6),
            cards_a_day=10,
            steps=60,
            alone_steps=40,
            train_budget_s=15.0,
            alone_budget_s=5.0,
            live_budget_s=15.0,
            report_pause_s=0.0,
            arena_bytes=1 << 30,
            generator=GeneratorSettings(
                customers=250,
                terminals=500,
                days=52,
                radius=10.0,
                terminals_taken_per_day=1,
                customers_leaked_per_day=1,
            ),
        )

    def into(self, output: Path) -> Self:
        """The same run with its files in ``output``."""
        return replace(self, output=output)
