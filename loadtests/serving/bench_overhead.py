"""What the server costs beside a bare echo, what batches are worth, and how even its latency is: ratios of one run.

    server process (core 0): echo | batcher | collate | model | model, batches of 1  ◄── gRPC ── this process (core 1)

Throughput is answers per second of the server's own CPU time: that of a server whose core is busy with nothing else,
whatever the rest of the machine leaves it. Kinds alternate, so that what else the machine does falls on all of them; a
ratio is of two neighbors, and the median of the rounds counts. A row is appended to loadtests/history.ndjson.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))  # after the installed packages, which are what is measured

import uvloop

from loadtests.load import worlds
from loadtests.load.report import ROOT, append_history
from loadtests.serving import payments
from loadtests.serving.bench_serving import run_of
from loadtests.serving.light_client import Load, Phase, connect, first_in_line, percentile
from loadtests.serving.rounds import Spread

SCHEMA = ROOT / "examples/payments/schema.yaml"
METHOD = "/nowgraph.v1.PredictionService/Score"
REQUESTS = 1_000
IN_FLIGHT = 128
CONNECTIONS = 4
WARM_UP_S = 1.0
TIMEOUT_MS = 10_000
# name: kind of server, its arguments.
KINDS: dict[str, tuple[str, ...]] = {
    "echo": ("echo",),
    "batcher": ("batcher",),
    "collate": ("collate",),
    "model": ("model",),
    "model, one at a time": ("model", "--batch-limit", "1"),
}


@dataclass
class Measured:
    """The runs of one kind of server."""

    per_s: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)

    @property
    def per_cpu_s(self) -> float:
        """Answers per second of the server's CPU."""
        return 1e6 / statistics.median(self.cpu_us)


class Served(worlds.Served):
    """A server's process and its address."""

    def __init__(self, folder: Path, core: int, arguments: tuple[str, ...]) -> None:
        command = [sys.executable, "-P", str(Path(__file__).parent / "overhead_server.py"), "--core", str(core)]
        command += ["--schema", str(SCHEMA), "--arena", str(folder / "arena"), "--checkpoint", str(folder / "model")]
        command += ["--kind", *arguments]
        self._own = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        super().__init__(self._own, f"127.0.0.1:{self._read('port')}")

    def stall_ms(self) -> float:
        """The p99 of how late the server's event loop was since the last call."""
        assert self._own.stdin is not None
        self._own.stdin.write("\n")
        self._own.stdin.flush()
        return float(self._read("stall"))

    def close(self) -> None:
        """Ends the process."""
        assert self._own.stdin is not None
        self._own.stdin.close()
        try:
            self._own.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._own.kill()

    def _read(self, word: str) -> str:
        assert self._own.stdout is not None
        for line in self._own.stdout:
            if line.startswith(f"{word} "):
                return line.split()[1]
        raise RuntimeError(f"the server ended with {self._own.wait()}")


async def load_on(target: str, messages: list[bytes]) -> Load:
    """Connections to a server."""
    return Load([await connect(target, METHOD, timeout_ms=TIMEOUT_MS) for _ in range(CONNECTIONS)], messages)


def measure(options: argparse.Namespace, folder: Path, core: int) -> tuple[dict[str, Measured], Phase, float]:
    """All kinds in turn; then the whole server at half of its capacity, and its event loop's stall there."""
    messages = [request.SerializeToString() for request in payments.requests(REQUESTS, after=10**9)]

    async def saturate(target: str, seconds: float) -> float:
        load = await load_on(target, messages)
        return await load.capacity(seconds, in_flight=IN_FLIGHT)

    async def open_loop(target: str, rate_per_s: float, seconds: float) -> Phase:
        load = await load_on(target, messages)
        phase = await load.phase("half", rate_per_s, seconds)
        await asyncio.sleep(1.0)
        return phase

    measured = {name: Measured() for name in KINDS}
    servers: dict[str, Served] = {}
    try:
        for name, arguments in KINDS.items():
            servers[name] = Served(folder, core, arguments)
            uvloop.run(saturate(servers[name].target, WARM_UP_S))
        for _ in range(options.runs):
            for name, server in servers.items():
                before_s, start_s = server.cpu_s(), time.perf_counter()
                per_s = uvloop.run(saturate(server.target, options.seconds))
                took_s, used_s = time.perf_counter() - start_s, server.cpu_s() - before_s
                measured[name].per_s.append(per_s)
                measured[name].busy.append(used_s / took_s)
                measured[name].cpu_us.append(used_s * 1e6 / (per_s * took_s))
        model = servers["model"]
        model.stall_ms()
        rate = statistics.median(measured["model"].per_s) / 2
        half = uvloop.run(open_loop(model.target, rate, 3 * options.seconds))
        return measured, half, model.stall_ms()
    finally:
        for server in servers.values():
            server.close()


def ratios_of(measured: dict[str, Measured]) -> dict[str, Spread]:
    """Answers per CPU of one kind beside another's, round by round."""

    def ratio(of: str, over: str) -> Spread:
        return Spread.of([b / a for a, b in zip(measured[of].cpu_us, measured[over].cpu_us, strict=True)])

    return {
        "batcher_over_echo": ratio("batcher", "echo"),
        "collate_over_echo": ratio("collate", "echo"),
        "batches_over_one": ratio("model", "model, one at a time"),
    }


def result_of(measured: dict[str, Measured], half: Phase, stall_ms: float) -> dict[str, float]:
    """The figures by name, ratios last."""
    result: dict[str, float] = {}
    for name, runs in measured.items():
        key = name.replace(", ", "_").replace(" ", "_")
        result[f"{key}_per_cpu_s"] = runs.per_cpu_s
        result[f"{key}_per_s"] = statistics.median(runs.per_s)
    p50_ms, p99_ms = (percentile(half.latency_ms, q) for q in (50, 99))
    result["half_latency_ms_p50"], result["half_latency_ms_p99"] = p50_ms, p99_ms
    result["half_failed"] = len(half.refused_ms) + half.unsent
    for name, spread in ratios_of(measured).items():
        result |= {name: spread.median, f"{name}_least": spread.least, f"{name}_most": spread.most}
    result["half_p99_over_p50"] = p99_ms / p50_ms
    result["half_stall_ms_p99"] = stall_ms
    return result


def table_of(measured: dict[str, Measured], result: dict[str, float], options: argparse.Namespace) -> str:
    """The figures as two tables: what was measured, and the ratios beside their goals."""
    lines = [
        f"{IN_FLIGHT} requests in flight; medians of {options.runs} runs of {options.seconds:g} s",
        "| server | answers per s of its CPU | answers/s | its CPU, us per answer | its core busy |",
        "|---|---|---|---|---|",
    ]
    for name, runs in measured.items():
        lines.append(
            f"| {name} | {runs.per_cpu_s:,.0f} | {statistics.median(runs.per_s):,.0f} "
            f"| {statistics.median(runs.cpu_us):,.0f} | {statistics.median(runs.busy):.0%} |"
        )
    ratios = ratios_of(measured)
    batcher, collated, batches = (ratios[key] for key in ("batcher_over_echo", "collate_over_echo", "batches_over_one"))
    tail, stall_ms = result["half_p99_over_p50"], result["half_stall_ms_p99"]
    goals = [
        ("codec, queue, batches / echo", batcher.written("{:.0%}"), ">= 60 %", batcher.median >= 0.6),
        ("with sampling, collate / echo", collated.written("{:.0%}"), ">= 40 %", collated.median >= 0.4),
        ("model, saturated / one at a time", batches.written("{:.1f} x"), ">= 4 x", batches.median >= 4),
        ("p99 / p50 at half of capacity", f"{tail:.1f} x", "<= 4 x", tail <= 4),
        ("event loop's stall p99 there", f"{stall_ms:.1f} ms", "< 5 ms", stall_ms < 5),
    ]
    lines += ["", "| ratio | measured | goal | |", "|---|---|---|---|"]
    lines += [f"| {name} | {said} | {goal} | {'held' if held else 'missed'} |" for name, said, goal, held in goals]
    p50, p99 = result["half_latency_ms_p50"], result["half_latency_ms_p99"]
    lines.append(f"at half of capacity: p50 {p50:.2f} ms, p99 {p99:.2f} ms, {result['half_failed']:.0f} failed")
    return "\n".join(lines)


def main() -> None:
    """Starts the servers, measures, prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run")
    parser.add_argument("--history", type=int, default=100_000, help="payments in the graph before the runs")
    parser.add_argument("--no-history", action="store_true", help="do not append to loadtests/history.ndjson")
    options = parser.parse_args()
    cores = worlds.Cores.of_machine()
    os.sched_setaffinity(0, set(cores.clients))
    first_in_line()
    with worlds.written(["Score"], rows=options.history, core=cores.writer) as writers:
        measured, half, stall_ms = measure(options, writers["Score"].folder, cores.server[0])
    result = result_of(measured, half, stall_ms)
    print(table_of(measured, result, options))
    if not options.no_history:
        append_history("overhead", run_of(options) | result)


if __name__ == "__main__":
    main()
