"""Score's latency with an idle writer and while events arrive, as ratios within one run.

    writer process (core 1) ── 50k events/s ──► arena ◄── server process (core 0) ◄── gRPC ── open loop (core 1, or 2)

Runs alternate idle and busy, so that whatever else the machine does falls on both; the medians of the runs count.
Latency counts from the intended send time. A row is appended to loadtests/history.ndjson.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the bench's own modules; the interpreter runs with a safe path

import payments
import uvloop
from open_loop import Load, closed_loop, open_loop

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "examples/payments/schema.yaml"
TASK = ROOT / "examples/payments/task.yaml"
HISTORY = ROOT / "loadtests/history.ndjson"
SLO_MS = 25.0
REQUESTS = 1_000
IN_FLIGHT = 64
CAPACITY_S = 4.0
WARM_UP_S = 3.0
SERVE = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
from model_server.attached import serve
from model_server.settings import ServerSettings
serve(ServerSettings())
"""


class Writer:
    """The writer's process, told what to do by lines."""

    def __init__(self, options: argparse.Namespace, folder: Path, core: int) -> None:
        command = [sys.executable, "-P", str(Path(__file__).parent / "writer.py"), "--core", str(core)]
        command += ["--schema", str(SCHEMA), "--task", str(TASK), "--arena", str(folder / "arena")]
        command += ["--checkpoint", str(folder / "model"), "--history", str(options.history)]
        command += ["--rate", str(options.events_per_s)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.read() == "ready"

    def read(self) -> str:
        """The process's next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"the writer ended with {self.process.wait()}")
        return line

    def tell(self, command: str) -> str:
        """Sends a command and returns its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.read()


def start_server(folder: Path, core: int) -> tuple[subprocess.Popen[str], str]:
    """A server process beside the arena; returns it with its address."""
    environment = {
        **os.environ,
        "NOWGRAPH_SERVER_PORT": "0",
        "NOWGRAPH_SERVER_METRICS_PORT": "0",
        "NOWGRAPH_SERVER_SCHEMA_PATH": str(SCHEMA),
        "NOWGRAPH_SERVER_ARENA_PATH": str(folder / "arena"),
        "NOWGRAPH_SERVER_CHECKPOINT_PATH": str(folder / "model"),
        "NO_COLOR": "1",
    }
    command = [sys.executable, "-P", "-c", SERVE, str(core)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "serving" in line and " port=" in line:
            return process, f"127.0.0.1:{line.rsplit(' port=', 1)[1].split()[0]}"
    raise RuntimeError(f"the server ended with {process.wait()}")


def cpu_s(process: subprocess.Popen[str]) -> float:
    """CPU seconds that the process has used, of all its threads."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(
    options: argparse.Namespace, writer: Writer, server: subprocess.Popen[str], target: str
) -> dict[str, float]:
    """Capacity, then alternating idle and busy runs at a quarter and at half of it."""
    asked = payments.requests(REQUESTS, after=10**9)
    uvloop.run(closed_loop(target, asked, in_flight=IN_FLIGHT, seconds=WARM_UP_S))
    capacity = uvloop.run(closed_loop(target, asked, in_flight=IN_FLIGHT, seconds=CAPACITY_S))
    print(f"capacity {capacity:,.0f} scores/s with {IN_FLIGHT} in flight", flush=True)
    runs: dict[str, list[Load]] = {name: [] for name in ("idle", "busy", "half idle", "half busy")}
    cpu_us: dict[str, list[float]] = {name: [] for name in runs}
    applied: list[float] = []

    def run(name: str, rate: float) -> None:
        before_s = cpu_s(server)
        load = uvloop.run(open_loop(target, asked, rate_per_s=rate, seconds=options.seconds))
        cpu_us[name].append((cpu_s(server) - before_s) * 1e6 / max(1, len(load.latency_ms)))
        runs[name].append(load)

    for number in range(options.runs):
        for prefix, share in (("", 0.25), ("half ", 0.5)):
            rate = capacity * share
            run(f"{prefix}idle", rate)
            writer.tell(f"prepare {options.seconds + 1.5}")
            writer.tell("start")
            run(f"{prefix}busy", rate)
            applied.append(float(writer.tell("stop")))
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


def append_history(bench: str, result: dict[str, float], options: argparse.Namespace) -> None:
    """One line for this run, kept for ever: what was measured, of which commit, on which machine."""
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    row = {
        "bench": bench,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "load_average": round(os.getloadavg()[2], 1),
        "history_rows": options.history,
        "runs": options.runs,
        "seconds": options.seconds,
        **{name: round(value, 3) for name, value in result.items()},
    }
    with HISTORY.open("a") as file:
        file.write(json.dumps(row) + "\n")


def main() -> None:
    """Starts both processes, measures, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run")
    parser.add_argument("--history", type=int, default=300_000, help="payments in the graph before the runs")
    parser.add_argument("--events-per-s", type=int, default=50_000)
    parser.add_argument("--no-history", action="store_true", help="do not append to loadtests/history.ndjson")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    server_core, writer_core, client_core = cores[0], cores[1 % len(cores)], cores[2 if len(cores) > 2 else -1]
    os.sched_setaffinity(0, {client_core})
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # for the processes that are started
    fast = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=fast if fast.is_dir() else None) as name:
        folder = Path(name)
        writer = Writer(options, folder, writer_core)
        server: subprocess.Popen[str] | None = None
        try:
            server, target = start_server(folder, server_core)
            result = measure(options, writer, server, target)
        finally:
            for process in (server, writer.process):
                if process is not None:
                    process.terminate()
                    process.wait(timeout=30)
    print(table_of(result, options))
    if not options.no_history:
        append_history("serving", result, options)


if __name__ == "__main__":
    main()
