"""Score's latency with an idle writer and while events arrive, as ratios within one run.

    writer process (core 1) ── 50k events/s ──► arena ◄── server process (core 0) ◄── gRPC ── open loop (core 1, or 2)

Runs alternate idle and busy, so that whatever else the machine does falls on both; the medians of the runs count.
Latency counts from the intended send time. A row is appended to loadtests/history.ndjson.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # after the installed packages, which are what is measured

import uvloop

from loadtests.load.report import append_history
from loadtests.load.worlds import Cores, Served, Writer, started
from loadtests.serving import payments
from loadtests.serving.open_loop import Load, closed_loop, open_loop

SLO_MS = 25.0
REQUESTS = 1_000
IN_FLIGHT = 64
CAPACITY_S = 4.0
WARM_UP_S = 3.0


def measure(options: argparse.Namespace, writer: Writer, server: Served) -> dict[str, float]:
    """Capacity, then alternating idle and busy runs at a quarter and at half of it."""
    target, asked = server.target, payments.requests(REQUESTS, after=10**9)
    uvloop.run(closed_loop(target, asked, in_flight=IN_FLIGHT, seconds=WARM_UP_S))
    capacity = uvloop.run(closed_loop(target, asked, in_flight=IN_FLIGHT, seconds=CAPACITY_S))
    print(f"capacity {capacity:,.0f} scores/s with {IN_FLIGHT} in flight", flush=True)
    runs: dict[str, list[Load]] = {name: [] for name in ("idle", "busy", "half idle", "half busy")}
    cpu_us: dict[str, list[float]] = {name: [] for name in runs}
    applied: list[float] = []

    def run(name: str, rate: float) -> None:
        before_s = server.cpu_s()
        load = uvloop.run(open_loop(target, asked, rate_per_s=rate, seconds=options.seconds))
        cpu_us[name].append((server.cpu_s() - before_s) * 1e6 / max(1, len(load.latency_ms)))
        runs[name].append(load)

    for number in range(options.runs):
        for prefix, share in (("", 0.25), ("half ", 0.5)):
            rate = capacity * share
            run(f"{prefix}idle", rate)
            writer.rate(options.events_per_s)
            run(f"{prefix}busy", rate)
            applied.append(writer.rate(0))
        latest = {
            name: f"{loads[-1].percentile(50):.2f}/{loads[-1].percentile(99):.2f}" for name, loads in runs.items()
        }
        print(f"run {number + 1}: p50/p99 ms {latest}", flush=True)
    result = {"capacity_per_s": capacity, "events_per_s": statistics.median(applied)}
    for name, loads in runs.items():
        key = name.replace(" ", "_")
        for q in (50, 99):
            result[f"{key}_latency_ms_p{q}"] = statistics.median(load.percentile(q) for load in loads)
            result[f"{key}_server_ms_p{q}"] = statistics.median(load.server_percentile(q) for load in loads)
        result[f"{key}_cpu_us_per_score"] = statistics.median(cpu_us[name])
        result[f"{key}_failed"] = sum(load.failed + load.dropped for load in loads)
    ratios: dict[str, Callable[[int], float]] = {
        "latency": lambda i: runs["busy"][i].percentile(99) / runs["idle"][i].percentile(99),
        "server": lambda i: runs["busy"][i].server_percentile(99) / runs["idle"][i].server_percentile(99),
    }
    for name, ratio in ratios.items():
        result[f"p99_busy_over_idle_{name}"] = statistics.median(ratio(i) for i in range(options.runs))
    return result


def table_of(result: dict[str, float], options: argparse.Namespace) -> str:
    """The figures as a table."""
    rates = f"capacity {result['capacity_per_s']:,.0f} scores/s; {result['events_per_s']:,.0f} events/s when busy"
    lines = [
        f"{rates}; medians of {options.runs} runs of {options.seconds:g} s",
        "| load | writer | p50 ms | p99 ms | server's own p50 ms | p99 ms | server's CPU us per score |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, key in (("quarter of capacity", ""), ("half of capacity", "half_")):
        for writer in ("idle", "busy"):
            values = [result[f"{key}{writer}_{what}_ms_p{q}"] for what in ("latency", "server") for q in (50, 99)]
            figures = " | ".join(f"{value:.2f}" for value in values)
            cpu = result[f"{key}{writer}_cpu_us_per_score"]
            lines.append(f"| {label} | {writer} | {figures} | {cpu:,.0f} |")
    lines.append(
        f"p99 busy / idle: {result['p99_busy_over_idle_latency']:.2f} as clients see it, "
        f"{result['p99_busy_over_idle_server']:.2f} in the server (objective: at most 1.5)"
    )
    verdict = "held" if result["half_busy_latency_ms_p99"] <= SLO_MS else "missed"
    lines.append(f"objective p99 {SLO_MS:g} ms at half of capacity while events arrive: {verdict}")
    return "\n".join(lines)


def run_of(options: argparse.Namespace) -> dict[str, float | str]:
    """What the history says of a run beside its figures."""
    return {"history_rows": options.history, "runs": options.runs, "seconds": options.seconds}


def main() -> None:
    """Starts both processes, measures, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run")
    parser.add_argument("--history", type=int, default=300_000, help="payments in the graph before the runs")
    parser.add_argument("--events-per-s", type=int, default=50_000)
    parser.add_argument("--no-history", action="store_true", help="do not append to loadtests/history.ndjson")
    options = parser.parse_args()
    cores = Cores.of_machine()
    os.sched_setaffinity(0, set(cores.clients))
    with started(["Score"], cores, rows=options.history) as tested:
        result = measure(options, tested.writers["Score"], tested.servers["Score"])
    print(table_of(result, options))
    if not options.no_history:
        append_history("serving", run_of(options) | result)


if __name__ == "__main__":
    main()
