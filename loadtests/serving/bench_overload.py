"""What a server still answers when it is asked too much: open loop at 2 and 5 times its capacity, and afterwards.

    server process (core 0) ◄── HTTP/2 ── light_client: requests leave on a schedule whatever the answers do (core 1)

How fast a machine is changes by the minute, so each overload stands between two measurements of capacity, a closed loop
of the same client, and is compared with those alone; medians of the rounds count. Goodput counts answers within the
deadline of their intended send time; a refusal's time counts from when the request left, and what was taken and then
missed its deadline counts as refused. A row is appended to loadtests/history.ndjson.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # after the installed packages, which are what is measured

import numpy as np
import uvloop

from loadtests.load.report import append_history
from loadtests.load.worlds import Cores, written
from loadtests.serving import payments
from loadtests.serving.bench_overhead import Served
from loadtests.serving.bench_serving import run_of
from loadtests.serving.light_client import Load, Phase, connect, never_waiting, percentile, without_pauses
from loadtests.serving.rounds import Capacity, Overload, Spread, recovery_s
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

SERVICE = "/nowgraph.v1.PredictionService"
REQUESTS = 1_000
CONNECTIONS = 4
IN_FLIGHT = 128
WARM_UP_S = 2.0
CAPACITY_S = 1.5
# Of the phases before and after an overload that show what normal is, the share of capacity.
CALM = 0.25
FACTORS = (2.0, 5.0)
# The least that is to be answered, by load factor.
GOALS = {2.0: 0.9, 5.0: 0.8}
REFUSED_MS_GOAL = 5.0
RECOVERY_S_GOAL = 5.0


@dataclass
class Measured:
    """A calm phase, the overloads by load factor, and a calm phase after each of the highest."""

    calm: Phase
    overloads: dict[float, list[Overload]] = field(default_factory=lambda: {factor: [] for factor in FACTORS})
    afters: list[Phase] = field(default_factory=list)

    @property
    def capacities_per_s(self) -> list[float]:
        """Calls a second beside each overload."""
        return [one.capacity_per_s for found in self.overloads.values() for one in found]

    @property
    def recoveries_s(self) -> list[float]:
        """How long it took until latency was normal, after each."""
        calm_p99_ms = percentile(self.calm.latency_ms, 99)
        return [recovery_s(calm_p99_ms, after) for after in self.afters]


def messages_of(rows: int) -> tuple[str, list[bytes]]:
    """The method, and its requests of so many rows."""
    asked = payments.requests(REQUESTS, after=10**9)
    if rows == 1:
        return "Score", [request.SerializeToString() for request in asked]
    for request in asked:
        request.priority = service_pb2.PRIORITY_INTERACTIVE
    starts = range(0, REQUESTS - rows, rows)
    batches = [service_pb2.ScoreBatchRequest(requests=asked[at : at + rows]) for at in starts]
    return "ScoreBatch", [batch.SerializeToString() for batch in batches]


class Meter:
    """The cores that the server and this process use from now on."""

    def __init__(self, server: Served) -> None:
        self._server = server
        self._since = self._now()

    def cores(self) -> tuple[float, float]:
        """The server's and the client's."""
        (start_s, *before), (end_s, *after) = self._since, self._now()
        server, client = ((used - was) / (end_s - start_s) for used, was in zip(after, before, strict=True))
        return server, client

    def _now(self) -> tuple[float, float, float]:
        return time.perf_counter(), self._server.cpu_s(), time.process_time()


class Bench:
    """A server under load, one stretch of time after the other."""

    def __init__(self, server: Served, load: Load, options: argparse.Namespace) -> None:
        self._server, self._load, self._options = server, load, options
        self._in_flight = max(1, IN_FLIGHT // options.rows)

    async def rounds(self) -> Measured:
        """As many as were asked for."""
        await self._load.capacity(WARM_UP_S, in_flight=self._in_flight)
        before = await self._capacity()
        measured = Measured(await self._phase("calm", CALM * before.per_s))
        for number in range(1, self._options.runs + 1):
            for factor in FACTORS:
                meter = Meter(self._server)
                phase = await self._phase(f"{factor:g}x", factor * before.per_s)
                cores = meter.cores()
                if factor == FACTORS[-1]:
                    measured.afters.append(await self._phase("after", CALM * before.per_s))
                after = await self._capacity()
                one = Overload(phase, self._options.deadline_ms, *cores, before, after)
                print(f"round {number}, {one.factor:.1f}x: {one.share:.0%} of {one.capacity_per_s:,.0f}/s", flush=True)
                measured.overloads[factor].append(one)
                before = after
        return measured

    async def _phase(self, name: str, per_s: float) -> Phase:
        return await self._load.phase(name, per_s, self._options.seconds)

    async def _capacity(self) -> Capacity:
        """By a closed loop, once what came before is over."""
        await asyncio.sleep(self._options.deadline_ms / 1e3 + 0.05)
        meter = Meter(self._server)
        per_s = await self._load.capacity(CAPACITY_S, in_flight=self._in_flight)
        return Capacity(per_s, *meter.cores())


async def measure(server: Served, options: argparse.Namespace) -> Measured:
    """All rounds over connections of their own."""
    method, messages = messages_of(options.rows)
    path = f"{SERVICE}/{method}"
    clients = [await connect(server.target, path, timeout_ms=options.deadline_ms) for _ in range(CONNECTIONS)]
    measured = await Bench(server, Load(clients, messages), options).rounds()
    for client in clients:
        client.close()
    return measured


def result_of(measured: Measured, options: argparse.Namespace) -> dict[str, float]:
    """The figures by name; of each the median of the rounds."""
    capacity = Spread.of(measured.capacities_per_s)
    result = {"deadline_ms": options.deadline_ms, "rows": options.rows}
    result["capacity_rows_per_s"] = capacity.median * options.rows
    for factor, found in measured.overloads.items():
        shares = Spread.of([one.share for one in found])
        refused_ms = [ms for one in found for ms in one.phase.refused_ms]
        latency_ms = [ms for one in found for ms in one.phase.latency_ms]
        figures = {
            "goodput": shares.median,
            "goodput_least": shares.least,
            "goodput_most": shares.most,
            "offered": Spread.of([one.factor for one in found]).median,
            "p50_ms": percentile(latency_ms, 50),
            "p99_ms": percentile(latency_ms, 99),
            "refused_p50_ms": percentile(refused_ms, 50),
            "refused_p99_ms": percentile(refused_ms, 99),
            "refused_within_goal": within(refused_ms, REFUSED_MS_GOAL),
            "refused_hinted": Spread.of([one.hinted for one in found]).median,
            "refusal_us": Spread.of([one.refusal_us for one in found]).median,
            "server_cores": Spread.of([one.server_cores for one in found]).median,
            "client_cores": Spread.of([one.client_cores for one in found]).median,
            "client_call_us": Spread.of([one.call_us for one in found]).median,
            "sent_late_p99_ms": percentile([ms for one in found for ms in one.phase.late_ms], 99),
            "unsent": float(sum(one.phase.unsent for one in found)),
        }
        result |= {f"{factor:g}x_{name}": value for name, value in figures.items()}
    result["recovery_s"] = max(measured.recoveries_s)
    return result


def table_of(measured: Measured, result: dict[str, float], options: argparse.Namespace) -> str:
    """The figures as a table, and beside their goals."""
    capacity = Spread.of(measured.capacities_per_s).written("{:,.0f}")
    heads = (
        "load",
        "goodput of capacity",
        "p50 ms",
        "p99 ms",
        "refused p50 ms",
        "p99 ms",
        "with a hint",
        "us of the server's CPU",
        "the client's core busy",
        "us a call",
        "sent late p99 ms",
    )
    calls = f"{options.runs} rounds, phases of {options.seconds:g} s, calls of {options.rows} rows"
    lines = [f"{calls}, deadline {options.deadline_ms} ms; capacity {capacity} calls/s"]
    lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for factor, found in measured.overloads.items():
        of = {name.removeprefix(f"{factor:g}x_"): value for name, value in result.items()}
        shares = Spread.of([one.share for one in found]).written("{:.0%}")
        lines.append(
            f"| {of['offered']:.1f}x | {shares} | {of['p50_ms']:.1f} "
            f"| {of['p99_ms']:.1f} | {of['refused_p50_ms']:.1f} | {of['refused_p99_ms']:.1f} "
            f"| {of['refused_hinted']:.0%} | {of['refusal_us']:.0f} "
            f"| {of['client_cores']:.0%} | {of['client_call_us']:.0f} | {of['sent_late_p99_ms']:.1f} |"
        )
    lines += ["", "| goal | measured | |", "|---|---|---|"]
    goals = [
        (
            f"{factor:g}x goodput >= {goal:.0%}",
            f"{result[f'{factor:g}x_goodput']:.0%}",
            result[f"{factor:g}x_goodput"] >= goal,
        )
        for factor, goal in GOALS.items()
    ]
    for factor in FACTORS:
        p99_ms, share = (result[f"{factor:g}x_refused_{name}"] for name in ("p99_ms", "within_goal"))
        said = f"{p99_ms:.1f} ms; {share:.1%} within the goal"
        goals.append((f"{factor:g}x refusals' p99 < {REFUSED_MS_GOAL:g} ms", said, p99_ms < REFUSED_MS_GOAL))
    recovery = Spread.of(measured.recoveries_s)
    goals.append(
        (f"normal within {RECOVERY_S_GOAL:g} s", f"{recovery.written('{:.2f}')} s", recovery.most <= RECOVERY_S_GOAL)
    )
    lines += [f"| {name} | {said} | {'held' if held else 'missed'} |" for name, said, held in goals]
    return "\n".join(lines)


def within(values: list[float], bound: float) -> float:
    """The share of the values below the bound; NaN of none."""
    return float(np.mean(np.array(values) < bound)) if values else float("nan")


def main() -> None:
    """Starts the server, measures, prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=6, help="rounds")
    parser.add_argument("--seconds", type=float, default=2.5, help="of each phase")
    parser.add_argument("--deadline-ms", type=int, default=250)
    parser.add_argument("--rows", type=int, default=1, help="of one call: 1 is Score, more are ScoreBatch")
    parser.add_argument("--history", type=int, default=100_000, help="payments in the graph before the runs")
    parser.add_argument("--no-history", action="store_true", help="do not append to loadtests/history.ndjson")
    options = parser.parse_args()
    cores = Cores.of_machine()
    os.sched_setaffinity(0, set(cores.clients))
    never_waiting()
    without_pauses()
    with (
        written(["Score"], rows=options.history, core=cores.writer) as writers,
        closing(Served(writers["Score"].folder, cores.server[0], ("model",))) as server,
    ):
        measured = uvloop.run(measure(server, options))
    result = result_of(measured, options)
    print(table_of(measured, result, options))
    if not options.no_history:
        append_history("overload", run_of(options) | result)


if __name__ == "__main__":
    main()
