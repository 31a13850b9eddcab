"""`make bench-capacity`: is the capacity model right? What it predicts beside what graphs of three sizes take and do.

    counts ─► the model ─► bytes of each part
    events ─► a graph   ─► bytes that the allocator counts, events applied a second, scores a second of one process

Two worlds: rows without cells by columns, with hubs by a power law; payments as RowEvents with cells, customers and
terminals drawn evenly, one in a hundred reported as a fraud later. Rates are of CPU time.

    python loadtests/bench_capacity.py [--events 1e6 5e6 20e6] [--no-history]
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))  # after the installed packages, which are what is measured

from graph_transformer.predictor import Predictor
from loadtests.bench_graph import bench_schema, build, powerlaw_events
from loadtests.load.events import KEY_FIRST, payment_events
from loadtests.load.report import append_history
from loadtests.serving import payments
from online_sampler.sampler import Sampler
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.capacity import Counts, graph_bytes
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, load_schema

EXAMPLE = Path(__file__).resolve().parents[1] / "examples/payments"
BATCH = 50_000
REPORTED_EVERY = 100
SCORED = 64
SCORE_BATCHES = 20
ROOM_BYTES = 1 << 30


def compared(schema: Schema, graph: TemporalGraph, *, even: bool) -> dict[str, float]:
    """Of the graph's own counts: the predicted bytes beside the counted ones."""
    memory = graph.memory()
    rows = {table.name: table.rows for table in memory.tables}
    changed = {table.name: memory.versions for table in schema.tables if table.outcome is not None}
    predicted = graph_bytes(schema, Counts(rows, changes=changed, even=even))
    return {
        "predicted_bytes": predicted.total,
        "bytes": memory.used_bytes,
        "predicted_over_bytes": predicted.total / memory.used_bytes,
        "predicted_over_list_bytes": sum(table.lists for table in predicted.tables) / memory.adjacency_bytes,
        "idle_over_list_bytes": memory.idle_bytes / memory.adjacency_bytes,
        "predicted_idle_over_list_bytes": predicted.idle / memory.adjacency_bytes,
        "bytes_per_event": memory.used_bytes / max(rows.values()),
    }


def bench_columns(count: int) -> dict[str, float]:
    """Rows without cells, by columns."""
    graph, seconds = build(powerlaw_events(count), 0)
    with graph:
        return {"events": count, "applied_per_s": count / seconds, **compared(bench_schema(), graph, even=False)}


def bench_payments(count: int, folder: Path) -> dict[str, float]:
    """Payments with cells as RowEvents, some reported later; then scores of the newest in batches."""
    schema, events = load_schema(EXAMPLE / "schema.yaml"), payment_events()
    expected = graph_bytes(
        schema,
        Counts({"customers": payments.CUSTOMERS, "terminals": payments.TERMINALS, "transactions": count}, even=True),
    )
    with TemporalGraph.create(schema, arena_bytes=2 * expected.total + ROOM_BYTES) as graph:
        seconds = 0.0
        for first in range(0, count, BATCH):
            batch = events.take(min(BATCH, count - first))
            started_s = time.process_time()
            graph.apply(batch, backfill=True)
            seconds += time.process_time() - started_s
        for first in range(0, count, BATCH * REPORTED_EVERY):
            graph.apply(
                [report(number) for number in range(first, min(count, first + BATCH * REPORTED_EVERY), REPORTED_EVERY)]
            )
        figures = {"events": count, "applied_per_s": count / seconds, **compared(schema, graph, even=True)}
        payments.save_model(graph, schema, EXAMPLE / "task.yaml", folder)
        return {**figures, "scores_per_s": scores_per_s(graph, folder, count)}


def report(number: int) -> bytes:
    """A payment that was generated under this number turned out to be a fraud."""
    time_us = payments.START_US + 10**12
    event = row_event_pb2.RowEvent(
        table="transactions", operation=row_event_pb2.OPERATION_UPSERT, event_time_us=time_us
    )
    event.key.parts.add(integer=KEY_FIRST + number)
    event.cells.add(column="tx_fraud", boolean=True)
    return event.SerializeToString()


def scores_per_s(graph: TemporalGraph, folder: Path, count: int) -> float:
    """Of CPU time: neighborhoods sampled and the model run, on one thread, without a server."""
    view = graph.view()
    predictor = Predictor.load(folder, view, threads=1)
    sampler, random = Sampler(view, predictor.sampling_plan), np.random.default_rng(0)
    times_us = view.times("transactions")[0]
    taken = []
    for _ in range(SCORE_BATCHES):
        rows = random.integers(count // 2, count, SCORED)
        started_s = time.process_time()
        predictor.predict(sampler.sample_rows("transactions", rows, times_us[rows] - 1))
        taken.append(time.process_time() - started_s)
    return SCORED / float(np.median(taken))


def main() -> None:
    """Measures every size of both worlds, prints a table and keeps a row of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=float, nargs="+", default=[1e6, 5e6, 20e6])
    parser.add_argument("--no-history", action="store_true", help="do not append to loadtests/history.ndjson")
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = ("world", "events", "bytes", "predicted", "lists", "idle", "predicted", "an event", "events/s", "scores/s")
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for world in ("columns", "payments"):
        for size in map(int, options.events):
            with TemporaryDirectory() as folder:
                found = bench_columns(size) if world == "columns" else bench_payments(size, Path(folder) / "model")
            cells = (
                f"{world} | {size:,} | {found['bytes']:,} | {found['predicted_over_bytes'] - 1:+.1%}",
                f"{found['predicted_over_list_bytes'] - 1:+.1%} | {found['idle_over_list_bytes']:.1%}",
                f"{found['predicted_idle_over_list_bytes']:.1%} | {found['bytes_per_event']:.1f}",
                f"{found['applied_per_s']:,.0f} | {found.get('scores_per_s', math.nan):,.0f}",
            )
            print("| " + " | ".join(cells) + " |", flush=True)
            if not options.no_history:
                append_history(f"capacity {world}", found)


if __name__ == "__main__":
    main()
