from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from loadtests.load import pictures, report
from loadtests.load.capacity import Curve, curve
from loadtests.load.clients import Outcome, Request, Senders, run
from loadtests.load.histogram import at_ms, percentiles_ms
from loadtests.load.scenario import Objectives
from loadtests.load.soak import Memory
from loadtests.load.verdict import Word, judge

pytestmark = pytest.mark.integration
OBJECTIVES = Objectives(p99_ms=4_000.0, send_delay_p99_ms=4_000.0, achieved_ratio=0.5)


@pytest.fixture(scope="module")
def step(echo: Callable[..., str]) -> Callable[[float], Outcome]:
    """Half a second at a rate, against a server that needs 20 ms."""
    target = echo(work_s=0.02)

    def at(rate_per_s: float) -> Outcome:
        count = int(rate_per_s / 2)
        due_us = np.arange(count, dtype=np.int64) * 500_000 // count
        request = Request(target, "/echo.Echo/Score", b"x")
        return run([request], due_us, np.zeros(count, np.int64), seconds=0.5, how=Senders(in_flight_max=20))

    return at


@pytest.fixture(scope="module")
def found(step: Callable[[float], Outcome]) -> Curve:
    """A curve from steps that fit in flight as a whole, up to far beyond: 20 in 20 ms are 1,000 a second."""
    return curve(400.0, step, OBJECTIVES, shares=(0.05, 0.09, 8.0))


def test_a_curve_shows_where_it_ends(found: Curve) -> None:
    """What is offered rises, what is achieved stops rising, what is lost is counted, and the verdict changes there."""
    first, second, last = found.steps
    assert first.verdict.word is second.verdict.word is Word.HELD
    assert last.verdict.word is not Word.HELD
    assert last.outcome.dropped > 0
    assert last.outcome.achieved_per_s < last.outcome.offered_per_s / 2
    held = second.outcome.achieved_per_s
    assert found.within_objectives_per_s == pytest.approx(held)
    table = report.curve_table(found)
    assert table.count("\n| ") == 4
    assert f"within the objectives up to {held:,.0f}/s" in table


def test_a_result_is_kept_whole(found: Curve, tmp_path: Path) -> None:
    """The JSON holds the figures and the histogram itself; what is not a number is null, as JSON has none."""
    outcome = found.steps[0].outcome
    document = {"outcome": report.outcome_document(outcome), "nothing": float("nan"), "steps": [found.steps[0].row]}
    stem = report.save("mine", document, folder=tmp_path / "results")
    kept = json.loads(stem.with_suffix(".json").read_text())
    assert kept["nothing"] is None
    assert kept["commit"]
    histogram = HdrHistogram.decode(kept["outcome"]["latency_hdr"])
    assert percentiles_ms(histogram) == kept["outcome"]["latency_ms"]
    assert kept["outcome"]["latency_ms"]["p50"] == at_ms(outcome.latency, 50)


def test_pictures_are_drawn(found: Curve, tmp_path: Path) -> None:
    """Of every kind, also where nothing was answered."""
    outcome = found.steps[-1].outcome
    nothing = {"nothing": found.steps[0].outcome.latency.__class__(1, 1_000, 3)}
    pictures.percentiles(tmp_path / "p.png", {"mine": outcome.latency} | nothing, title="t", bound_ms=5.0)
    pictures.over_time(tmp_path / "t.png", outcome, title="t")
    pictures.capacity(tmp_path / "c.png", found, title="t", bound_ms=None)
    seconds = np.arange(40.0)
    pictures.memory(tmp_path / "m.png", Memory(seconds, 300 + seconds), title="t")
    assert all((tmp_path / f"{name}.png").stat().st_size > 5_000 for name in "ptcm")


def test_a_table_says_what_was_missed(found: Curve) -> None:
    """Every objective with its bound, what was measured and its word; failures by their code."""
    outcome = found.steps[0].outcome
    text = report.outcome_table("mine", outcome, judge(outcome, Objectives(p99_ms=1.0)))
    assert "p99_ms" in text
    assert "bound 1: missed" in text
    assert "the send delay" in text
    assert text.splitlines()[-1] in {"  verdict: missed", "  verdict: not measured"}
