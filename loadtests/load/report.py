"""What a load test leaves: tables on standard output, a JSON file, pictures beside it, and a row of the history."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from loadtests.load.capacity import Curve
from loadtests.load.clients import Outcome
from loadtests.load.histogram import at_ms, percentiles_ms
from loadtests.load.independent import Measured, agree
from loadtests.load.scenario import Scenario
from loadtests.load.verdict import Verdict

ROOT = Path(__file__).resolve().parents[2]
HISTORY = ROOT / "loadtests/history.ndjson"
RESULTS = ROOT / "loadtests/results"

Document = Mapping[str, object]


def outcome_document(outcome: Outcome) -> dict[str, object]:
    """A run as plain values; latencies in milliseconds, histograms also encoded, to be merged or drawn again."""
    return {
        "seconds": outcome.seconds,
        "due": outcome.due,
        "answered": outcome.answered,
        "failed": outcome.failed,
        "dropped": outcome.dropped,
        "offered_per_s": outcome.offered_per_s,
        "achieved_per_s": outcome.achieved_per_s,
        "latency_ms": percentiles_ms(outcome.latency),
        "latency_from_real_send_ms": percentiles_ms(outcome.service),
        "send_delay_ms": percentiles_ms(outcome.send_delay),
        "by_method_ms": {name: percentiles_ms(histogram) for name, histogram in outcome.by_method.items()},
        "by_code": {
            name: {"count": histogram.get_total_count(), "latency_ms": percentiles_ms(histogram)}
            for name, histogram in outcome.by_code.items()
        },
        "every_second": [
            {
                "due": second.due,
                "failed": second.failed,
                "dropped": second.dropped,
                "p50_ms": at_ms(second.latency, 50),
                "p99_ms": at_ms(second.latency, 99),
            }
            for second in outcome.every_second
        ],
        "latency_hdr": outcome.latency.encode().decode(),
    }


def verdict_document(verdict: Verdict) -> dict[str, object]:
    """A verdict as plain values."""
    judged = {one.objective: [one.bound, one.measured, one.word.value] for one in verdict.judged}
    return {"word": verdict.word.value, "objectives": judged}


def outcome_table(title: str, outcome: Outcome, verdict: Verdict) -> str:
    """A run and its verdict, for people."""
    p, delay = percentiles_ms(outcome.latency), percentiles_ms(outcome.send_delay)
    real = percentiles_ms(outcome.service)
    lines = [
        title,
        f"  offered {outcome.offered_per_s:,.1f}/s for {outcome.seconds:g} s, achieved {outcome.achieved_per_s:,.1f}/s",
        f"  {outcome.due:,} due, {outcome.failed:,} failed, {outcome.dropped:,} dropped",
        f"  latency from the due time   {_row(p)}",
        f"  from the real send          {_row(real)}",
        f"  the send delay              {_row(delay)}",
    ]
    for name, histogram in outcome.by_method.items():
        if len(outcome.by_method) > 1:
            lines.append(f"  {name:<28}{_row(percentiles_ms(histogram))}")
    for name, histogram in outcome.by_code.items():
        if name != "OK":
            lines.append(f"  {name:<28}{_row(percentiles_ms(histogram))}  ({histogram.get_total_count():,})")
    lines += [f"  {one.objective:<16} {one.measured:>10.4g}  bound {one.bound:g}: {one.word}" for one in verdict.judged]
    return "\n".join([*lines, f"  verdict: {verdict.word}"])


def curve_table(curve: Curve) -> str:
    """The capacity curve: offered against achieved against p99."""
    lines = [
        f"capacity curve; a closed loop reached {curve.guess_per_s:,.0f}/s",
        "| share | offered/s | achieved/s | p50 ms | p99 ms | failed | dropped | send delay p99 ms | objectives |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for step in curve.steps:
        row = step.row
        lines.append(
            f"| {step.share:g} | {row['offered_per_s']:,.0f} | {row['achieved_per_s']:,.0f} | {row['p50_ms']:.2f} "
            f"| {row['p99_ms']:.2f} | {step.outcome.error_ratio:.2%} | {step.outcome.dropped_ratio:.2%} "
            f"| {row['send_delay_p99_ms']:.2f} | {row['verdict']} |"
        )
    held, most = curve.within_objectives_per_s, curve.saturated_per_s
    lines.append(f"within the objectives up to {held:,.0f}/s; saturated at {most:,.0f}/s")
    return "\n".join(lines)


def compare_table(pairs: Sequence[tuple[Measured, Measured]]) -> str:
    """Two generators on the same load, beside each other."""
    lines = [
        "latency from the real send, as both can say it",
        "| generator | offered/s | achieved/s | p50 ms | p99 ms | failed | dropped | agree |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for pair in pairs:
        word = "yes" if agree(*pair) else "no"
        for one in pair:
            lines.append(
                f"| {one.generator} | {one.offered_per_s:,.0f} | {one.achieved_per_s:,.0f} | {one.p50_ms:.2f} "
                f"| {one.p99_ms:.2f} | {one.failed} | {one.dropped} | {word} |"
            )
    return "\n".join(lines)


def save(name: str, document: Document, *, folder: Path = RESULTS) -> Path:
    """Writes the JSON of a test; NaN, which JSON has not, becomes null. Returns its path without the suffix."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    text = json.dumps(_plain({**machine(), **document}), indent=1)
    stem.with_suffix(".json").write_text(text, encoding="utf-8")
    return stem


def append_history(bench: str, figures: Mapping[str, float | str]) -> None:
    """One line for this run, kept for ever: what was measured, of which commit, on which machine."""
    rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}
    with HISTORY.open("a") as file:
        file.write(json.dumps(_plain({"bench": bench, **machine(), **rounded})) + "\n")


def machine() -> dict[str, object]:
    """When, of which commit, and on what: figures of a busy machine say that it was busy."""
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "load_average": round(os.getloadavg()[2], 1),
    }


def scenario_document(scenario: Scenario) -> dict[str, object]:
    """A scenario as plain values."""
    return dict(scenario.model_dump(mode="json"))


def _row(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.2f}" for name, value in values.items()) + " ms"


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    return value
