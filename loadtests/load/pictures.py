"""Pictures of a load test: latency by percentile, latency over time, and the capacity curve."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram

from loadtests.load.capacity import Curve
from loadtests.load.clients import Outcome
from loadtests.load.histogram import at_ms
from loadtests.load.soak import Memory

INK = "#22313f"
COLORS = ("#1f6fb2", "#d1603d", "#4c956c", "#8d6a9f")
NINES = (0.0, 50.0, 90.0, 99.0, 99.9, 99.99)


def percentiles(path: Path, histograms: Mapping[str, HdrHistogram], *, title: str, bound_ms: float | None) -> None:
    """Latency by percentile on the HdrHistogram scale: each further nine takes the same width."""
    figure, axes = _figure(title)
    drawn = [0.0, *(100.0 * (1 - 10.0 ** -(k / 20)) for k in range(1, 101))]
    for color, (name, histogram) in zip(COLORS, histograms.items(), strict=False):
        count = histogram.get_total_count()
        if not count:
            continue
        # Beyond 1 - 1/count there is nothing but the maximum.
        within = [q for q in drawn if q <= 100.0 * (1 - 1 / count)]
        axes.plot([_nines(q) for q in within], [at_ms(histogram, q) for q in within], color=color, label=name)
    longest = max((histogram.get_total_count() for histogram in histograms.values()), default=0)
    if bound_ms is not None:
        axes.axhline(bound_ms, color=INK, linewidth=0.8, linestyle=":", label=f"objective of p99: {bound_ms:g} ms")
    shown = [q for q in NINES if q <= 100.0 * (1 - 1 / max(1, longest))]
    axes.set_xticks([_nines(q) for q in shown], [f"{q:g} %" for q in shown])
    _scale_ms(axes)
    axes.set_xlabel("percentile")
    axes.set_ylabel("latency from the due time, ms")
    axes.legend(frameon=False)
    _save(figure, path)


def over_time(path: Path, outcome: Outcome, *, title: str) -> None:
    """p50, p99 and what failed or was dropped, of each second in which requests were due."""
    figure, axes = _figure(title)
    seconds = np.arange(len(outcome.every_second)) + 0.5
    for color, q in zip(COLORS, (50.0, 99.0), strict=False):
        axes.plot(seconds, [at_ms(second.latency, q) for second in outcome.every_second], color=color, label=f"p{q:g}")
    _scale_ms(axes)
    axes.set_xlabel("second of the run")
    axes.set_ylabel("latency from the due time, ms")
    lost = [second.failed + second.dropped for second in outcome.every_second]
    beside = axes.twinx()
    beside.plot(seconds, [second.due for second in outcome.every_second], color=INK, alpha=0.4, label="due")
    if any(lost):
        beside.bar(seconds, lost, width=0.8, color=COLORS[1], alpha=0.3, label="failed or dropped")
    beside.set_ylim(bottom=0)
    beside.set_ylabel("requests a second")
    handles, labels = axes.get_legend_handles_labels()
    more = beside.get_legend_handles_labels()
    axes.legend(handles + more[0], labels + more[1], frameon=False, loc="best")
    _save(figure, path)


def capacity(path: Path, curve: Curve, *, title: str, bound_ms: float | None) -> None:
    """Achieved and p99 by what was offered."""
    figure, axes = _figure(title)
    offered = [step.outcome.offered_per_s for step in curve.steps]
    achieved = [step.outcome.achieved_per_s for step in curve.steps]
    axes.plot(offered, offered, color=INK, linewidth=0.8, linestyle=":", label="offered")
    axes.plot(offered, achieved, color=COLORS[0], marker="o", label="achieved")
    axes.set_xlabel("offered, requests a second")
    axes.set_ylabel("achieved, requests a second")
    axes.set_ylim(bottom=0)
    beside = axes.twinx()
    p99 = [at_ms(step.outcome.latency, 99) for step in curve.steps]
    beside.plot(offered, p99, color=COLORS[1], marker="s", label="p99")
    if bound_ms is not None:
        beside.axhline(bound_ms, color=COLORS[1], linewidth=0.8, linestyle=":", label=f"objective: {bound_ms:g} ms")
    _scale_ms(beside)
    beside.set_ylabel("p99 from the due time, ms")
    handles, labels = axes.get_legend_handles_labels()
    more = beside.get_legend_handles_labels()
    axes.legend(handles + more[0], labels + more[1], frameon=False, loc="upper left")
    _save(figure, path)


def memory(path: Path, found: Memory, *, title: str) -> None:
    """Private memory over time; the beginning, which is not judged, is pale."""
    figure, axes = _figure(title)
    axes.plot(found.seconds, found.mib, color=COLORS[0], alpha=0.35)
    axes.plot(found.seconds[found.settled], found.mib[found.settled], color=COLORS[0])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds")
    axes.set_ylabel("private memory of the server, MiB")
    _save(figure, path)


def _scale_ms(axes: Any) -> None:
    """A logarithmic scale with plain numbers, also where it spans less than a decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_formatter(NullFormatter())


def _nines(percentile: float) -> float:
    return float(-np.log10(1 - percentile / 100.0))


def _figure(title: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, color=INK, fontsize=11)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
