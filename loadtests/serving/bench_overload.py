"""What a server still answers when it is asked too much: open loop at 1, 2 and 5 times its capacity, and afterwards.

    server process (core 0) ◄── HTTP/2 ── light_client: requests leave on a schedule whatever the answers do (core 1)

Rates are multiples of what a closed loop of the same client gets; shares are of the best goodput seen anywhere. Goodput
counts answers within the deadline of their intended send time; a refusal's time counts from when the request left, and
what was taken and then missed its deadline counts as refused. A row is appended to loadtests/history.ndjson.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from contextlib import closing
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # after the installed packages, which are what is measured

import numpy as np
import uvloop

from loadtests.load.report import append_history
from loadtests.load.worlds import Cores, written
from loadtests.serving import payments
from loadtests.serving.bench_overhead import Served
from loadtests.serving.bench_serving import run_of
from loadtests.serving.light_client import Load, Phase, connect, first_in_line
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

SERVICE = "/nowgraph.v1.PredictionService"
REQUESTS = 1_000
CONNECTIONS = 4
IN_FLIGHT = 128
WARM_UP_S = 2.0
CAPACITY_S = 4.0
# Load factor of each phase; a quarter of capacity before and after shows what normal is.
PHASES = (("before", 0.25), ("1x", 1.0), ("2x", 2.0), ("5x", 5.0), ("after", 0.25))


async def measure(options: argparse.Namespace, target: str) -> tuple[float, list[Phase]]:
    """Capacity in calls per second, then the phases, each right after the one before."""
    asked = payments.requests(REQUESTS, after=10**9)
    if options.rows == 1:
        method, messages = "Score", [request.SerializeToString() for request in asked]
    else:
        method = "ScoreBatch"
        starts = range(0, REQUESTS - options.rows, options.rows)
        batches = [service_pb2.ScoreBatchRequest(requests=asked[at : at + options.rows]) for at in starts]
        for batch in batches:
            for request in batch.requests:
                request.priority = service_pb2.PRIORITY_INTERACTIVE
        messages = [batch.SerializeToString() for batch in batches]
    clients = [await connect(target, f"{SERVICE}/{method}", timeout_ms=options.deadline_ms) for _ in range(CONNECTIONS)]
    load = Load(clients, messages)
    in_flight = max(1, IN_FLIGHT // options.rows)
    await load.capacity(WARM_UP_S, in_flight=in_flight)
    capacity = await load.capacity(CAPACITY_S, in_flight=in_flight)
    print(f"capacity {capacity * options.rows:,.0f} rows/s in calls of {options.rows}", flush=True)
    phases = [await load.phase(name, capacity * factor, options.seconds) for name, factor in PHASES]
    await asyncio.sleep(options.deadline_ms / 1e3 + 0.5)
    for client in clients:
        client.close()
    return capacity, phases


def recovery_s(phases: list[Phase]) -> float:
    """Seconds after the overload until the p99 of half a second is again at most twice what it was before."""
    before, after = phases[0], phases[-1]
    normal_ms = 2 * before.percentile(before.latency_ms, 99)
    at_s, latency_ms = np.array(after.answered_at_s), np.array(after.latency_ms)
    for start_s in np.arange(0.0, after.seconds, 0.25):
        inside = latency_ms[(at_s >= start_s) & (at_s < start_s + 0.5)]
        enough = len(inside) >= 0.9 * after.offered_per_s * min(0.5, after.seconds - start_s)
        if enough and np.percentile(inside, 99) <= normal_ms:
            return float(start_s)
    return float("inf")


def main() -> None:
    """Starts the server, measures, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each phase")
    parser.add_argument("--deadline-ms", type=int, default=250)
    parser.add_argument("--rows", type=int, default=1, help="of one call: 1 is Score, more are ScoreBatch")
    parser.add_argument("--history", type=int, default=100_000, help="payments in the graph before the runs")
    parser.add_argument("--no-history", action="store_true", help="do not append to loadtests/history.ndjson")
    options = parser.parse_args()
    options.runs = 1
    cores = Cores.of_machine()
    os.sched_setaffinity(0, set(cores.clients))
    first_in_line()
    with (
        written(["Score"], rows=options.history, core=cores.writer) as writers,
        closing(Served(writers["Score"].folder, cores.server[0], ("model",))) as server,
    ):
        capacity, phases = uvloop.run(measure(options, server.target))
    result = {"capacity_rows_per_s": capacity * options.rows, "deadline_ms": options.deadline_ms, "rows": options.rows}
    print(f"deadline {options.deadline_ms} ms; phases of {options.seconds:g} s, calls of {options.rows} rows")
    heads = (
        "load",
        "offered/s",
        "goodput/s",
        "of the best",
        "p50 ms",
        "p99 ms",
        "refused/s",
        "refused p50 ms",
        "p99 ms",
    )
    print(f"| {' | '.join((*heads, 'unsent/s'))} |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    best = max(capacity, *(phase.goodput_per_s(options.deadline_ms) for phase in phases))
    result["best_rows_per_s"] = best * options.rows
    for phase in phases:
        good = phase.goodput_per_s(options.deadline_ms)
        latency, refused = ([phase.percentile(v, q) for q in (50, 99)] for v in (phase.latency_ms, phase.refused_ms))
        print(
            f"| {phase.name} | {phase.offered_per_s:,.0f} | {good:,.0f} | {good / best:.0%} | {latency[0]:.1f} "
            f"| {latency[1]:.1f} | {len(phase.refused_ms) / phase.seconds:,.0f} | {refused[0]:.1f} | {refused[1]:.1f} "
            f"| {phase.unsent / phase.seconds:,.0f} |"
        )
        result |= {f"{phase.name}_goodput": good / best, f"{phase.name}_p99_ms": latency[1]}
        result |= {f"{phase.name}_refused_p50_ms": refused[0], f"{phase.name}_refused_p99_ms": refused[1]}
    result["recovery_s"] = recovery_s(phases)
    print(f"goals: 2x >= 90 %, 5x >= 80 %, normal within 5 s: it took {result['recovery_s']:.2f} s")
    if not options.no_history:
        append_history("overload", run_of(options) | result)


if __name__ == "__main__":
    main()
