"""One seed from Python, alone and while events are applied; and how long an event takes to be visible."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from bench_graph import Events, append

from online_sampler import Sampler, SamplingPlan
from temporal_graph.graph import TemporalGraph

# About 150 edges: two parents, and what they did last with whom.
PLAN = {"num_neighbors": [{"hop1": 1}, {"hop2": 38}, {"hop3": 1}]}
CALLS = 100_000
WARM_UP = 500
APPLIED_PER_S = 100_000
# The writer waits for Python's lock some milliseconds a batch: both are threads of one process here.
APPLIED_AT_ONCE = 2_000


@dataclass(frozen=True)
class LatencyResult:
    """Wall-clock microseconds of one call, edges of one neighborhood, events applied per second meanwhile."""

    p50_us: float
    p99_us: float
    edges: float
    applied_per_s: float


def bench_latency(graph: TemporalGraph, events: Events, more: Events | None) -> LatencyResult:
    """Times single-seed calls at "now"; with `more`, another thread applies those events at 100k a second meanwhile."""
    sampler = Sampler(graph.view(), SamplingPlan.from_dict(PLAN))
    rows = np.random.default_rng(9).integers(0, len(events), CALLS + WARM_UP)
    cutoff = np.array([events.event_time_us[-1] + 1], np.int64)
    done = threading.Event()
    applied = [0]

    def ingest(more: Events) -> None:
        first, started = graph.view().row_count("events"), time.perf_counter()
        while not done.is_set() and applied[0] + APPLIED_AT_ONCE <= len(more):
            part = slice(applied[0], applied[0] + APPLIED_AT_ONCE)
            append(graph, np.arange(first + part.start, first + part.stop), more.batch(part))
            applied[0] = part.stop
            time.sleep(max(0.0, started + applied[0] / APPLIED_PER_S - time.perf_counter()))

    writer = None if more is None else threading.Thread(target=ingest, args=(more,))
    if writer is not None:
        writer.start()
    taken = np.empty(len(rows))
    edges = 0
    began = time.perf_counter()
    try:
        for i in range(len(rows)):
            row = rows[i : i + 1]
            started = time.perf_counter_ns()
            found = sampler.sample_rows("events", row, cutoff)
            taken[i] = time.perf_counter_ns() - started
            edges += len(found.edge_source)
    finally:
        seconds = time.perf_counter() - began
        done.set()
        if writer is not None:
            writer.join()
    p50, p99 = _microseconds(taken[WARM_UP:])
    return LatencyResult(p50, p99, edges / len(rows), applied[0] / seconds)


def bench_visible(graph: TemporalGraph, messages: list[bytes], per_s: int, at_once: int) -> LatencyResult:
    """From the moment a RowEvent is due to the moment readers see it, at a steady rate, applied batch by batch."""
    taken, started = [], time.perf_counter()
    for low in range(0, len(messages), at_once):
        batch = messages[low : low + at_once]
        due = started + (low + len(batch)) / per_s
        time.sleep(max(0.0, due - time.perf_counter()))
        graph.apply(batch)
        visible = time.perf_counter()
        taken += [(visible - (started + (low + i + 1) / per_s)) * 1e9 for i in range(len(batch))]
    p50, p99 = _microseconds(np.array(taken))
    return LatencyResult(p50, p99, 0.0, len(messages) / (time.perf_counter() - started))


def _microseconds(nanoseconds: npt.NDArray[np.float64]) -> tuple[float, float]:
    p50, p99 = np.quantile(nanoseconds, [0.5, 0.99]) / 1_000
    return float(p50), float(p99)
