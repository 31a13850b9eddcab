"""The writer's process of a load test: fills an arena, saves a model for it, and applies events at a rate.

"rate N" on standard input ─► N events/s from then on ─► "APPLIED SECONDS" of the rate before, on standard output
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

if not __package__:  # run by its path: after the installed packages, which are what is measured
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from loadtests.load.events import Events, click_events, payment_events
from loadtests.serving import payments, shop
from nowgraph.loading import load_files
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema

BATCH_S = 0.01
ROOT = Path(__file__).resolve().parents[2]


class Feed:
    """Applies events, a batch each BATCH_S, in a thread; made as they are needed, so that a run may last."""

    def __init__(self, graph: TemporalGraph, events: Events) -> None:
        self._graph = graph
        self._events = events
        self._rate_per_s = 0
        self._applied = 0
        self._since_s = time.perf_counter()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def rate(self, rate_per_s: int) -> tuple[int, float]:
        """From now on so many events a second; returns what was applied at the rate before, and for how long."""
        with self._lock:
            now_s = time.perf_counter()
            before = self._applied, now_s - self._since_s
            self._rate_per_s, self._applied, self._since_s = rate_per_s, 0, now_s
        return before

    def _run(self) -> None:
        while True:
            with self._lock:
                due = int((time.perf_counter() - self._since_s) * self._rate_per_s) - self._applied
                # What could not be applied in time is not applied all at once later.
                count = min(due, int(self._rate_per_s * BATCH_S * 10))
                if count > 0:
                    self._graph.apply(self._events.take(count), backfill=True)
                    self._applied += count
            time.sleep(BATCH_S)


def payments_world(arena: Path, folder: Path, rows: int, arena_bytes: int) -> tuple[TemporalGraph, Events]:
    """Payments in an arena, and a model of the payments task's shape."""
    example = ROOT / "examples/payments"
    schema = load_schema(example / "schema.yaml")
    graph = TemporalGraph.create(schema, arena=arena, arena_bytes=arena_bytes)
    events = payment_events()
    for first in range(0, rows, 50_000):
        graph.apply(events.take(min(50_000, rows - first)), backfill=True)
    payments.save_model(graph, schema, example / "task.yaml", folder / "model")
    (folder / "model" / "schema.yaml").write_bytes((example / "schema.yaml").read_bytes())
    return graph, events


def shop_world(arena: Path, folder: Path, rows: int, arena_bytes: int) -> tuple[TemporalGraph, Events]:
    """A shop in an arena, and a ranking of the default size."""
    shop.write_tables(folder)
    shop.save_model(folder)
    graph = TemporalGraph.create(load_schema(folder / "schema.yaml"), arena=arena, arena_bytes=arena_bytes)
    load_files(graph, [folder / "history"], quiet=True)
    events = click_events()
    for first in range(0, rows, 50_000):
        graph.apply(events.take(min(50_000, rows - first)), backfill=True)
    return graph, events


WORLDS: dict[str, Callable[[Path, Path, int, int], tuple[TemporalGraph, Events]]] = {
    "payments": payments_world,
    "shop": shop_world,
}


def main() -> None:
    """Fills the arena, saves the model, says ready, and obeys."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", choices=WORLDS, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--arena-bytes", type=int, required=True)
    parser.add_argument("--core", type=int, default=None)
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    options.folder.mkdir(parents=True, exist_ok=True)
    make = WORLDS[options.world]
    graph, events = make(options.folder / "arena", options.folder, options.rows, options.arena_bytes)
    with graph:
        feed = Feed(graph, events)
        print("ready", flush=True)
        for line in sys.stdin:
            applied, seconds = feed.rate(int(line.split()[1]))
            print(applied, seconds, flush=True)


if __name__ == "__main__":
    main()
