"""Scores a second through ScoreBatch and ScoreStream with the model on a device, and how busy a GPU is meanwhile.

    clients (processes) ── rows when due ──► nowgraph serve --workers N ─► models on the device ◄── nvidia-smi

Open loop at rising rates; latency counts from when a row was due, and a row that was refused has no answer. A method
ends with the first rate of which less than nine tenths was answered.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from urllib.request import urlopen

if not __package__:  # run by its path: after the installed packages, which are what is measured
    sys.path.append(str(Path(__file__).resolve().parents[2]))

import numpy as np
from rich.console import Console
from rich.table import Table

from loadtests.load.clients import sent
from loadtests.load.worlds import Cores, Served, serve, wait_until_serving, written
from loadtests.serving import payments
from loadtests.serving.rows_client import Part

CLIENT = Path(__file__).parent / "rows_client.py"
METHODS = ("ScoreBatch", "ScoreStream")
RATES = (2_500.0, 5_000.0, 10_000.0, 15_000.0, 20_000.0, 25_000.0, 30_000.0)
GOAL_PER_S, GOAL_P99_MS = 20_000.0, 10.0
ANSWERED_MIN = 0.9
STAGES = ("sample", "collate", "forward")
SAMPLE_MS = 200
COLUMNS = ("method", "rows a call", "offered/s", "scores/s", "p50 ms", "p99 ms", "GPU busy", "server's cores",
           *(f"{stage} us a row" for stage in STAGES))  # fmt: skip


@contextmanager
def busy_shares(device: str) -> Iterator[list[tuple[float, float]]]:
    """Gives a list that is filled, until the end, with moments (time.monotonic) and shares of time a kernel ran.

    By nvidia-smi, each for a fifth of a second or so before; on a CPU it stays empty.
    """
    found: list[tuple[float, float]] = []
    if device == "cpu":
        yield found
        return
    number = device.partition(":")[2] or "0"
    command = ["nvidia-smi", "-i", number, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    with subprocess.Popen([*command, "-lms", str(SAMPLE_MS)], stdout=subprocess.PIPE, text=True) as process:

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                if line.strip().isdecimal():
                    found.append((time.monotonic(), float(line) / 100))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        try:
            yield found
        finally:
            process.terminate()
            reader.join()


def device_name(device: str) -> str | None:
    """What the device calls itself; None where it is not there."""
    import torch

    from graph_transformer.device import find_device
    from graph_transformer.errors import DeviceUnavailable

    try:
        found = find_device(device)
    except DeviceUnavailable:
        return None
    return "the processor" if found.type == "cpu" else torch.cuda.get_device_name(found)


@dataclass(frozen=True, slots=True)
class Offered:
    """What came of one rate: when it began (time.monotonic), how long it took until the last answer, and latencies.

    good_ms: of the rows that were answered, from when they were due.
    """

    start_s: float
    took_s: float
    good_ms: np.ndarray


def offer(target: str, method: str, per_s: float, options: argparse.Namespace) -> Offered:
    """Sends rows at a constant rate from several processes."""
    rows = options.rows if method == "ScoreBatch" else 1
    moments = max(1, int(per_s * options.seconds / rows))
    due_us = (np.arange(moments) * (1e6 * rows / per_s)).astype(np.int64)
    requests = tuple(one.SerializeToString() for one in payments.requests(1_024, after=10**9))
    parts = [
        Part(target, method, options.connections, rows, due_us[number :: options.clients], requests)
        for number in range(options.clients)
    ]
    start_ns, found = sent(CLIENT, parts)
    good_us, done_us = [], [np.array([options.seconds * 1e6])]
    for part, records in zip(parts, found, strict=True):
        answered = records["latency_us"] >= 0
        good_us.append(records["latency_us"][answered])
        done_us.append((records["latency_us"] + part.due_us[:, None])[answered])
    return Offered(start_ns / 1e9, float(np.concatenate(done_us).max() / 1e6), np.concatenate(good_us) / 1e3)


def stages_of(server: Served, workers: int) -> dict[str, float]:
    """Seconds of each stage and the rows that reached the model, of all workers since they began."""
    host, _, port = server.metrics_url.removesuffix("/metrics").rpartition(":")
    ports = [int(port)] if workers == 1 else [int(port) + 1 + number for number in range(workers)]
    sums = dict.fromkeys((*STAGES, "rows"), 0.0)
    for each in ports:
        with urlopen(f"{host}:{each}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        for stage in STAGES:
            pattern = rf'^nowgraph_stage_seconds_sum{{.*stage="{stage}".*}} (\S+)'
            sums[stage] += sum(map(float, re.findall(pattern, text, re.MULTILINE)))
        sums["rows"] += sum(map(float, re.findall(r"^nowgraph_model_rows_total(?:{.*})? (\S+)", text, re.MULTILINE)))
    return sums


def measured(server: Served, method: str, per_s: float, options: argparse.Namespace) -> dict[str, float | str]:
    """One rate of one method, as a row of the table."""
    before, cpu_s = stages_of(server, options.workers), server.cpu_s()
    with busy_shares(options.device) as shares:
        offered = offer(server.target, method, per_s, options)
    after, cpu_s = stages_of(server, options.workers), server.cpu_s() - cpu_s
    good = offered.good_ms
    until_s = offered.start_s + options.seconds
    busy = [share for moment_s, share in shares if offered.start_s < moment_s <= until_s]
    rows = max(1.0, after["rows"] - before["rows"])
    row: dict[str, float | str] = {
        "method": method,
        "rows": options.rows if method == "ScoreBatch" else 1,
        "offered_per_s": per_s,
        "scores_per_s": len(good) / offered.took_s,
        "p50_ms": float(np.percentile(good, 50)) if len(good) else float("nan"),
        "p99_ms": float(np.percentile(good, 99)) if len(good) else float("nan"),
        "gpu_busy": fmean(busy) if busy else float("nan"),
        "server_cores": cpu_s / offered.took_s,
    }
    return row | {f"{stage}_us": 1e6 * (after[stage] - before[stage]) / rows for stage in STAGES}


def table_of(name: str, rows: list[dict[str, float | str]], workers: int) -> Table:
    """The rows as a table with the device's name."""
    table = Table(*COLUMNS, title=f"{name}, {workers} server processes")
    for row in rows:
        busy = float(row["gpu_busy"])
        cells = [row["method"], *(f"{row[key]:,.0f}" for key in ("rows", "offered_per_s", "scores_per_s"))]
        cells += [f"{row['p50_ms']:.1f}", f"{row['p99_ms']:.1f}", "none" if np.isnan(busy) else f"{busy:.0%}"]
        cells += [f"{row['server_cores']:.1f}", *(f"{row[f'{stage}_us']:.0f}" for stage in STAGES)]
        table.add_row(*map(str, cells))
    return table


def best_of(rows: list[dict[str, float | str]], method: str) -> float:
    """The most scores a second of a method with a p99 within the goal; 0 where none was."""
    held = [float(row["scores_per_s"]) for row in rows if row["method"] == method and row["p99_ms"] <= GOAL_P99_MS]
    return max(held, default=0.0)


def run(options: argparse.Namespace) -> list[dict[str, float | str]]:
    """Starts the world and its server, offers every rate to every method."""
    cores = Cores.of_machine(servers=options.workers, clients=options.clients)
    rows = []
    with written(["Score"], rows=options.history, core=cores.writer) as writers, ExitStack() as stack:
        os.environ["NOWGRAPH_SERVER_DEVICE"] = options.device
        os.environ["NOWGRAPH_SERVER_BATCH_LIMIT"] = str(options.batch_limit)
        server = serve(writers["Score"].folder, cores.server, options.workers, stack)
        wait_until_serving(server)
        os.sched_setaffinity(0, set(cores.clients))  # which the clients' processes inherit
        for method in METHODS:
            offer(server.target, method, options.rates[0] / 2, options)  # warms all processes up
            for per_s in options.rates:
                row = measured(server, method, per_s, options)
                rows.append(row)
                if float(row["scores_per_s"]) < ANSWERED_MIN * per_s:
                    break
    return rows


def main() -> None:
    """Measures, prints the table and what it says of the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=max(1, len(os.sched_getaffinity(0)) // 2))
    parser.add_argument("--clients", type=int, default=4, help="processes that send")
    parser.add_argument("--connections", type=int, default=4, help="of each client")
    parser.add_argument("--rows", type=int, default=64, help="of one ScoreBatch")
    parser.add_argument("--batch-limit", type=int, default=256, help="rows in one forward pass")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="rows a second, rising")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each rate")
    parser.add_argument("--history", type=int, default=100_000, help="payments in the graph")
    parser.add_argument("--json", action="store_true", help="print the rows as one line of JSON too")
    options = parser.parse_args()
    console = Console(stderr=options.json, width=180)
    name = device_name(options.device)
    if name is None:
        console.print(f"there is no {options.device} on this machine: nothing was measured")
        return
    rows = run(options)
    console.print(table_of(name, rows, options.workers))
    for method in METHODS:
        best = best_of(rows, method)
        held = "held" if best >= GOAL_PER_S else "missed"
        goal = f"of an H200-class GPU {GOAL_PER_S:,.0f} are expected: {held}"
        console.print(f"{method}: {best:,.0f} scores/s with p99 <= {GOAL_P99_MS:g} ms; {goal}")
    if options.json:
        print(json.dumps({"bench": "device", "device": name, "workers": options.workers, "rows": rows}))


if __name__ == "__main__":
    main()
