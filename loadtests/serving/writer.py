"""The writer's process of the bench: fills an arena, and applies events at a constant rate between `start` and `stop`.

Commands come on standard input, one a line, and each is answered by a line on standard output.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the bench's own modules; the interpreter runs with a safe path

import payments

from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema

BATCH_S = 0.01
ARENA_BYTES = 4 << 30


class Writer:
    """Applies prepared events, a batch each BATCH_S, in a thread."""

    def __init__(self, graph: TemporalGraph, first: int, rate_per_s: int) -> None:
        self._graph = graph
        self._next = first
        self._rate_per_s = rate_per_s
        self._events: list[bytes] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._applied = 0
        self._started_s = 0.0

    def prepare(self, seconds: float) -> None:
        """Makes the events of the next run, so that making them is not part of it."""
        count = int(self._rate_per_s * seconds)
        self._events = payments.events(self._next, count)
        self._next += count

    def start(self) -> None:
        """Begins to apply."""
        self._stopping.clear()
        self._applied = 0
        self._started_s = time.perf_counter()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> float:
        """Ends the run; returns the events per second that were applied."""
        self._stopping.set()
        assert self._thread is not None
        self._thread.join()
        return self._applied / (time.perf_counter() - self._started_s)

    def _run(self) -> None:
        while not self._stopping.is_set() and self._applied < len(self._events):
            due = int((time.perf_counter() - self._started_s) * self._rate_per_s)
            batch = self._events[self._applied : due]
            if batch:
                self._graph.apply(batch, backfill=True)
                self._applied += len(batch)
            time.sleep(BATCH_S)


def main() -> None:
    """Fills the arena, saves the model, says ready, and obeys."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schema", type=Path, required=True)
    parser.add_argument("--task", type=Path, required=True)
    parser.add_argument("--arena", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--history", type=int, required=True)
    parser.add_argument("--rate", type=int, required=True)
    parser.add_argument("--core", type=int, required=True)
    options = parser.parse_args()
    os.sched_setaffinity(0, {options.core})
    schema = load_schema(options.schema)
    with TemporalGraph.create(schema, arena=options.arena, arena_bytes=ARENA_BYTES) as graph:
        for first in range(0, options.history, 50_000):
            graph.apply(payments.events(first, min(50_000, options.history - first)), backfill=True)
        payments.save_model(graph, schema, options.task, options.checkpoint)
        writer = Writer(graph, options.history, options.rate)
        print("ready", flush=True)
        for line in sys.stdin:
            command, *arguments = line.split()
            if command == "prepare":
                writer.prepare(float(arguments[0]))
                print("prepared", flush=True)
            elif command == "start":
                writer.start()
                print("started", flush=True)
            elif command == "stop":
                print(writer.stop(), flush=True)


if __name__ == "__main__":
    main()
