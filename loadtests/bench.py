"""`make bench`: what the core does on this machine, in one run, as a table of medians and as a line of history.

    python loadtests/bench.py [--events 20e6] [--json] [--history PATH]

CPU time of all threads is counted for rates, wall-clock time for latencies. pyg-lib is benched where it is installed
(or NOWGRAPH_BENCH_PYG_LIB names a library with its operators), diskgraph of the kumo-engine wheel likewise (or
NOWGRAPH_BENCH_DISKGRAPH names an interpreter that has it).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench_diskgraph import DISKGRAPH_EVENTS, bench_diskgraph, diskgraph_interpreter
from bench_graph import PIECE, Events, bench_schema, build, pieces, powerlaw_events
from bench_latency import LatencyResult, bench_latency, bench_visible
from bench_log import logged
from bench_sampling import SamplingResult, bench_sampling, peer_left_out
from bench_stream import bench_stream

from temporal_graph import _native
from temporal_graph.graph import TemporalGraph

HISTORY = Path(__file__).resolve().parent / "history.ndjson"
MESSAGES = 200_000
MESSAGES_AT_ONCE = 2_000
VISIBLE_PER_S = 50_000
VISIBLE_AT_ONCE = 500
ADJACENCY_SEEDS = 8_000
BUILDS = 3
FRESH_BYTES = 1 << 30
# Of an appended event with two links: for each a key's slot, the parent's record, the end of its list.
LINES_PER_EVENT = 6


def bench_ingest(events: Events) -> tuple[dict[str, float], TemporalGraph]:
    """Rates of both ways in, and bytes of what is in; of columns the median of several graphs, and the first one's.

    The first pays for memory that the machine has not given out before, which on a virtual one costs ten times as much.
    """
    seconds = []
    for _ in range(BUILDS):
        graph, taken = build(events, 10 * MESSAGES)
        seconds.append(taken)
        if len(seconds) < BUILDS:
            graph.close()
            del graph
    memory = graph.memory()
    table = next(table for table in memory.tables if table.name == "events")
    count = min(len(events), MESSAGES)
    messages = logged(events, 0, count)
    with TemporalGraph.create(bench_schema(), arena_bytes=2 << 30) as fresh:
        started = time.process_time()
        for low in range(0, count, MESSAGES_AT_ONCE):
            fresh.apply(messages[low : low + MESSAGES_AT_ONCE])
        applying = time.process_time() - started
    with TemporalGraph.create(bench_schema(), arena_bytes=2 << 30) as fresh:
        visible = bench_visible(fresh, messages, VISIBLE_PER_S, VISIBLE_AT_ONCE)
    adjacency = memory.adjacency_bytes / memory.adjacency_entries
    figures = {
        "append_events_per_s": len(events) / statistics.median(seconds),
        "append_first_events_per_s": len(events) / seconds[0],
        "apply_events_per_s": count / applying,
        "message_bytes": statistics.mean(map(len, messages)),
        "event_to_visible_p50_ms": visible.p50_us / 1_000,
        "event_to_visible_p99_ms": visible.p99_us / 1_000,
        "adjacency_bytes_per_entry": adjacency,
        "topology_bytes_per_event": table.topology_bytes / table.rows + 2 * adjacency,
        "key_bytes_per_event": (table.key_bytes + table.key_map_bytes) / table.rows,
        "version_head_bytes_per_event": table.version_head_bytes / table.rows,
        "arena_bytes_per_event": memory.used_bytes / len(events),
    }
    return figures, graph


def bench_kafka(events: Events) -> dict[str, float]:
    """From Kafka's bytes to visible, with the embedded broker in a process of its own."""
    result = bench_stream(logged(events, 0, min(len(events), MESSAGES)))
    return {
        "in_order_events_per_s": result.in_order_per_s,
        "backlog_events_per_s": result.backlog_per_s,
        "event_to_visible_p50_ms": result.visible.p50_ms,
        "event_to_visible_p99_ms": result.visible.p99_ms,
        "event_to_visible_p999_ms": result.visible.p999_ms,
        "event_to_visible_p99_worst_run_ms": result.visible.p99_worst_ms,
        "event_to_visible_per_s": result.visible.per_s,
    }


def bench_adjacency(events: Events) -> dict[str, float]:
    """The lists alone: both ends of each event are nodes of one kind; entries and neighborhoods a second."""
    nodes = int(max(events.user.max(), events.merchant.max())) + 1
    source, target = events.user.view(np.uint32), events.merchant.view(np.uint32)
    tick = np.empty(len(events), np.uint32)
    for part in pieces(len(events), PIECE):
        tick[part] = (events.event_time_us[part] - events.event_time_us[0]) // 2_000
    lists = _native.AdjacencyBench(nodes, len(events) * 60 + (1 << 29))
    started = time.process_time()
    lists.ingest(source, target, tick)
    figures = {"ingest_events_per_s": len(events) / (time.process_time() - started)}
    random = np.random.default_rng(4)
    at = random.integers(0, len(events), ADJACENCY_SEEDS)
    seeds = np.where(random.random(len(at)) < 0.5, source[at], target[at]).astype(np.uint32)
    for name, cutoffs in (("now", np.full(len(at), tick[-1] + 1, np.uint32)), ("hist", np.maximum(tick[at], 1) - 1)):
        for strategy, code in (("most_recent", 0), ("uniform", 1)):
            taken = []
            for _ in range(5):
                started = time.process_time()
                lists.sample(seeds, cutoffs.astype(np.uint32), [16, 8], code)
                taken.append(time.process_time() - started)
            figures[f"{strategy}_{name}_seeds_per_s"] = len(at) / statistics.median(taken)
    return figures


def physical_floor(bytes_per_event: float) -> dict[str, float]:
    """What the memory does without us, a second: bytes copied, random 64-byte lines gathered, fresh bytes written.

    Of the last two, the events that could be appended if each did no more than write its bytes and gather its lines.
    """
    lines = np.zeros((1 << 22, 8), np.int64)
    copy = np.empty_like(lines)
    started = time.process_time()
    for _ in range(3):
        np.copyto(copy, lines)
    copied = 3 * lines.nbytes / (time.process_time() - started)
    at = np.random.default_rng(0).integers(0, len(lines), 1 << 21)
    started = time.process_time()
    np.take(lines, at, axis=0, out=copy[: len(at)], mode="clip")
    gathered = len(at) / (time.process_time() - started)
    written = statistics.median(FRESH_BYTES / fresh_seconds() for _ in range(BUILDS))
    return {
        "copy_gb_per_s": copied / 1e9,
        "random_lines_per_s": gathered,
        "fresh_gb_per_s": written / 1e9,
        "append_events_per_s": 1 / (bytes_per_event / written + LINES_PER_EVENT / gathered),
    }


def fresh_seconds() -> float:
    """CPU seconds to write memory that the kernel gives out for it; it goes back afterwards, as a graph's does."""
    fresh = np.empty(FRESH_BYTES, np.uint8)
    started = time.process_time()
    fresh.fill(1)
    return time.process_time() - started


def conditions(events: int) -> dict[str, Any]:
    """What the figures depend on."""
    cpu = "unknown"
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "events": events,
    }


def geometric_mean(results: list[SamplingResult]) -> float | None:
    """Over the ratios to the other sampler, "deep" left out: it is no fan-out of the comparison."""
    ratios = [result.ratio for result in results if result.ratio is not None and result.fan_out != "deep"]
    return math.exp(statistics.mean(map(math.log, ratios))) if ratios else None


def sampling_table(peer: str, results: list[SamplingResult]) -> Table:
    """Rates beside those of another sampler, where it was there."""
    names = ("fan-out", "strategy", "moment", "edges", "neighborhoods/s", "edges/s", "its edges", "its/s", "ratio")
    table = Table(*names, title=f"beside {peer}")
    for one in results:
        theirs = ("", "", "")
        if one.peer_seeds_per_s is not None:
            theirs = (f"{one.peer_edges_per_seed:.0f}", f"{one.peer_seeds_per_s:,.0f}", f"{one.ratio:.1f}x")
        table.add_row(
            one.fan_out,
            one.strategy,
            one.moment,
            f"{one.edges_per_seed:.0f}",
            f"{one.seeds_per_s:,.0f}",
            f"{one.seeds_per_s * one.edges_per_seed / 1e6:.1f}M",
            *theirs,
        )
    return table


def show(
    console: Console, report: dict[str, Any], sampling: list[SamplingResult], diskgraph: list[SamplingResult]
) -> None:
    """The tables a person reads."""
    at = report["conditions"]
    console.print(f"{at['cpu']}, {at['cores']} cores, load {at['load_average']}, {at['events']:,} events, one thread")
    console.print(sampling_table("pyg-lib", sampling))
    if report["pyg_lib_ratio"] is not None:
        console.print(f"geometric mean over small and large: {report['pyg_lib_ratio']:.1f}x pyg-lib")
    if report["pyg_lib_left_out"] is not None:
        console.print(f"pyg-lib was left out: {report['pyg_lib_left_out']}")
    if diskgraph:
        console.print(sampling_table(f"diskgraph, {report['diskgraph_events']:,} events", diskgraph))
        console.print(f"geometric mean: {report['diskgraph_ratio']:.1f}x diskgraph")
    figures = Table("figure", "value")
    for group in ("latency_idle", "latency_under_ingest", "ingest", "kafka", "adjacency", "floor"):
        for name, value in report[group].items():
            figures.add_row(f"{group}.{name}", f"{value:,.2f}" if value < 1_000 else f"{value:,.0f}")
    console.print(figures)
    appended, floor = report["ingest"]["append_events_per_s"], report["floor"]["append_events_per_s"]
    done = f"{report['ingest']['arena_bytes_per_event']:.0f} fresh bytes and {LINES_PER_EVENT} random lines an event"
    console.print(
        f"appended: {appended / 1e6:.1f}M events/s of CPU time, {appended / floor:.0%} of what plain loops "
        f"over the same memory reach, {floor / 1e6:.1f}M: {done}"
    )


def plain(latency: LatencyResult) -> dict[str, float]:
    """A latency as a mapping."""
    return {
        "p50_us": latency.p50_us,
        "p99_us": latency.p99_us,
        "edges": latency.edges,
        "applied_per_s": latency.applied_per_s,
    }


def main() -> None:
    """Runs everything, prints it and appends it to the history."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=float, default=20e6, help="events of the synthetic graph (default 20e6)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--history", type=Path, default=HISTORY, help="file to append the run to; /dev/null for none")
    arguments = parser.parse_args()
    count = int(arguments.events)
    events = powerlaw_events(count)
    ingest, graph = bench_ingest(events)
    with graph:
        idle = bench_latency(graph, events, None)
        under_ingest = bench_latency(graph, events, powerlaw_events(5 * MESSAGES, seed=2))
        left_out = peer_left_out(count)
        sampling = bench_sampling(graph.view(), events, with_peer=left_out is None)
    interpreter, few = diskgraph_interpreter(), min(count, DISKGRAPH_EVENTS)
    diskgraph = [] if interpreter is None else bench_diskgraph(interpreter, powerlaw_events(few))
    report: dict[str, Any] = {
        "conditions": conditions(count),
        "sampling": [vars(result) | {"ratio": result.ratio} for result in sampling],
        "pyg_lib_ratio": geometric_mean(sampling),
        "pyg_lib_left_out": left_out,
        "diskgraph": [vars(result) | {"ratio": result.ratio} for result in diskgraph],
        "diskgraph_events": few,
        "diskgraph_ratio": geometric_mean(diskgraph),
        "latency_idle": plain(idle),
        "latency_under_ingest": plain(under_ingest),
        "ingest": ingest,
        "kafka": bench_kafka(events),
        "adjacency": bench_adjacency(events),
        "floor": physical_floor(ingest["arena_bytes_per_event"]),
    }
    if arguments.json:
        print(json.dumps(report))  # the command's result
    else:
        show(Console(), report, sampling, diskgraph)
    with arguments.history.open("a", encoding="utf-8") as history:
        history.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
