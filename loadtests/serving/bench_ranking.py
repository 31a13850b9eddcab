"""Rank's latency beside Score's, as a ratio within one run.

    payments server (core 0) ◄── Score ──┐
                                         ├── one request at a time (core 1), in turns
    shop server (core 0)     ◄── Rank ───┘

Score is the serving bench's: a payment, the payments task's model of one member. Rank orders the candidates of a user
among 12,000 items. Each is asked alone, so that neither waits in a queue; runs alternate, so that whatever else the
machine does falls on both; the medians of the runs count. A row is appended to loadtests/history.ndjson.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # after the installed packages, which are what is measured

import grpc
import numpy as np

from loadtests.load.report import append_history
from loadtests.load.worlds import Cores, Served, end, started
from loadtests.serving import payments, shop
from loadtests.serving.bench_serving import run_of
from protos.nowgraph.v1 import prediction_service_pb2_grpc as service_grpc

RATIO_MAX = 5.0
REQUESTS = 500
K = 10
WARM_UP_S = 2.0
TIMEOUT_S = 10.0
SERVE = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
from nowgraph.cli import app
app(sys.argv[2:])
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """Answers of one run, in milliseconds: as the client saw them, by the server's own account, and its CPU for one."""

    client_ms: np.ndarray
    server_ms: np.ndarray
    cpu_ms: float
    answers: Sequence[Any]


async def one_at_a_time(server: Served, method: str, requests: Sequence[Any], seconds: float) -> Asked:
    """Asks again as soon as the last answer is there, for so long."""
    client_ms: list[float] = []
    answers: list[Any] = []
    async with grpc.aio.insecure_channel(server.target) as channel:
        call = getattr(service_grpc.PredictionServiceStub(channel), method)
        await call(requests[0], timeout=TIMEOUT_S)
        before_s = server.cpu_s()
        until_s = time.perf_counter() + seconds
        while time.perf_counter() < until_s:
            start_s = time.perf_counter()
            answer = await call(requests[len(answers) % len(requests)], timeout=TIMEOUT_S)
            client_ms.append((time.perf_counter() - start_s) * 1e3)
            answers.append(answer)
    server_ms = np.array([answer.timing.total_us / 1e3 for answer in answers])
    cpu_ms = (server.cpu_s() - before_s) * 1e3 / len(answers)
    return Asked(np.array(client_ms), server_ms, cpu_ms, answers)


def start_ranking(folder: Path, core: int) -> Served:
    """A server of lists over a graph of its own."""
    command = [sys.executable, "-P", "-c", SERVE, str(core), "serve", "--checkpoint", str(folder / "model")]
    command += ["--history", str(folder / "history"), "--port", "0", "--metrics-port", "0", "--json", "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line.startswith("}"):
            return Served(process, json.loads(text)["grpc"])
    raise RuntimeError(f"the server ended with {process.wait()}")


def measure(score: Served, rank: Served, options: argparse.Namespace) -> dict[str, float]:
    """Alternates runs of both; the medians of their percentiles, and the ratio of the medians."""
    asked = {
        "Score": (score, payments.requests(REQUESTS, after=10**9)),
        "Rank": (rank, shop.requests(REQUESTS, k=K)),
    }
    runs: dict[str, list[Asked]] = {method.lower(): [] for method in asked}
    for number in range(options.runs + 1):
        for method, (server, requests) in asked.items():
            seconds, name = options.seconds if number else WARM_UP_S, method.lower()
            found = asyncio.run(one_at_a_time(server, method, requests, seconds))
            if number:
                runs[name].append(found)
                print(f"run {number}: {name} p50 {np.median(found.client_ms):.2f} ms", flush=True)
    result: dict[str, float] = {}
    for name, found in runs.items():
        for side in ("client", "server"):
            for q in (50, 99):
                values = [float(np.percentile(getattr(run, f"{side}_ms"), q)) for run in found]
                result[f"{name}_{side}_ms_p{q}"] = statistics.median(values)
        result[f"{name}_cpu_ms"] = statistics.median(run.cpu_ms for run in found)
    lists = [answer for run in runs["rank"] for answer in run.answers]
    result["candidates_mean"] = float(np.mean([answer.candidate_count for answer in lists]))
    result["history_mean"] = float(np.mean([answer.history_count for answer in lists]))
    for stage in ("retrieve", "forward"):
        values = [getattr(answer.timing, f"{stage}_us") / 1e3 for answer in lists]
        result[f"rank_{stage}_ms_p50"] = float(np.median(values))
    for side in ("client", "server"):
        result[f"rank_over_score_{side}_p50"] = result[f"rank_{side}_ms_p50"] / result[f"score_{side}_ms_p50"]
    result["rank_over_score_cpu"] = result["rank_cpu_ms"] / result["score_cpu_ms"]
    return result


def table_of(result: dict[str, float]) -> str:
    """The figures as a table."""
    lines = ["| | p50 ms | p99 ms | server's own p50 ms | p99 ms | server's CPU ms |", "|---|---|---|---|---|---|"]
    for name in ("score", "rank"):
        values = [result[f"{name}_{side}_ms_p{q}"] for side in ("client", "server") for q in (50, 99)]
        values.append(result[f"{name}_cpu_ms"])
        lines.append(f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |")
    ratio = result["rank_over_score_client_p50"]
    lines.append(
        f"{result['candidates_mean']:.0f} candidates of {shop.ITEMS:,} items, a history of "
        f"{result['history_mean']:.1f}; "
        f"retrieve {result['rank_retrieve_ms_p50']:.2f} ms, forward {result['rank_forward_ms_p50']:.2f} ms (p50)"
    )
    verdict = "held" if ratio <= RATIO_MAX else "missed"
    lines.append(
        f"Rank over Score, p50: {ratio:.2f} (objective: at most {RATIO_MAX:g}): {verdict}; "
        f"of the server's CPU: {result['rank_over_score_cpu']:.2f}"
    )
    return "\n".join(lines)


def main() -> None:
    """Makes both worlds, starts both servers, measures, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each run")
    parser.add_argument("--history", type=int, default=300_000, help="payments in Score's graph")
    parser.add_argument("--no-history", action="store_true", help="do not append to loadtests/history.ndjson")
    options = parser.parse_args()
    cores = Cores.of_machine()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name) / "shop"
        shop.write_tables(folder)
        shop.save_model(folder)
        tested = stack.enter_context(started(["Score"], cores, rows=options.history))
        rank = start_ranking(folder, cores.server[0])
        stack.callback(end, rank.process)
        os.sched_setaffinity(0, set(cores.clients))
        result = measure(tested.servers["Score"], rank, options)
    print(table_of(result))
    if not options.no_history:
        append_history("ranking", run_of(options) | result)


if __name__ == "__main__":
    main()
