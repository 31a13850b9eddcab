"""`make bench-snapshots`: what a snapshot costs the writer, and how fast it comes back, beside what the disk can do.

writer: events by columns, as fast as they go ─┬─ alone, before and after the rest: a larger graph is slower
                                               ├─ while the image is copied at the updater's rate
                                               └─ rest: the image is settled
image on disk ─► read past the page cache ─► restored into a shared arena, from the disk and from the page cache

python loadtests/bench_snapshots.py [--events 20e6] [--seconds 4] [--folder DIR] [--no-history]
"""

from __future__ import annotations

import argparse
import mmap
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))  # after the installed packages, which are what is measured

from graph_updater.settings import UpdaterSettings
from loadtests.bench_graph import ARENA_BYTES_PER_EVENT, BATCH, Events, append, bench_schema, powerlaw_events
from loadtests.load.places import forget_pages, memory_folder
from loadtests.load.report import append_history
from temporal_graph.graph import TemporalGraph

PAGE_BYTES = 64 << 10
READ_BYTES = 4 << 20
DRAWN = 2_000_000
INGEST_PER_S_MAX = 8_000_000


class Writer:
    """Appends one draw of events again and again, under new keys and later times."""

    def __init__(self, graph: TemporalGraph, events: Events) -> None:
        self._graph = graph
        self._events = events
        self._span_us = int(events.event_time_us[-1] - events.event_time_us[0]) + 1
        self.applied = 0

    def until(self, done: Callable[[], bool]) -> float:
        """Appends batches until it is done; returns events a second of the wall clock."""
        events, before, started_s = self._events, self.applied, time.perf_counter()
        while not done():
            turn, low = divmod(self.applied, len(events))
            part = slice(low, low + BATCH)
            batch = events.batch(part)
            later = replace(batch, event_time_us=batch.event_time_us + turn * self._span_us)
            append(self._graph, np.arange(self.applied, self.applied + BATCH), later)
            self.applied += BATCH
        return (self.applied - before) / (time.perf_counter() - started_s)


def after(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have passed since now."""
    end_s = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= end_s


def bench_writer(graph: TemporalGraph, path: Path, count: int, seconds: float) -> dict[str, float]:
    """Ingest alone and beside the copy, and the rest; leaves a whole image at the path."""
    writer = Writer(graph, powerlaw_events(count).part(min(DRAWN, count)))
    writer.until(lambda: writer.applied >= count)
    before_per_s = writer.until(after(seconds))
    figures: dict[str, float] = {"events": writer.applied}
    image, took_s = graph.image(path), [0.0]

    def copy() -> None:
        started_s = time.perf_counter()
        image.copy(bytes_per_s=UpdaterSettings().snapshot_bytes_per_s)
        took_s[0] = time.perf_counter() - started_s

    copying = threading.Thread(target=copy)
    bytes_before = graph.memory().used_bytes
    copying.start()
    figures["beside_copy_per_s"] = writer.until(lambda: not copying.is_alive())
    copying.join()
    settled = image.settle()
    started_s = time.perf_counter()
    figures |= {"copied_bytes_per_s": bytes_before / took_s[0], "rest_s": settled.pause_s, "pages": settled.pages}
    figures |= {"bytes": image.finish(), "finish_s": time.perf_counter() - started_s}
    figures["alone_per_s"] = statistics.mean([before_per_s, writer.until(after(seconds))])
    figures["pages_all"] = -(-int(figures["bytes"]) // PAGE_BYTES)
    return figures


def read_bytes_per_s(path: Path) -> float:
    """How fast the disk gives the file, in order, past the page cache."""
    file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, READ_BYTES)  # aligned, as a direct read wants it
    started_s, read = time.perf_counter(), 0
    try:
        while (got := os.preadv(file, [buffer], read)) > 0:
            read += got
            if got % mmap.PAGESIZE:  # the file's end
                break
    finally:
        os.close(file)
    return read / (time.perf_counter() - started_s)


def restore_bytes_per_s(path: Path, arena_bytes: int) -> float:
    """How fast an image becomes a graph in a shared arena, bytes of the graph a second."""
    with TemporaryDirectory(dir=memory_folder()) as arena:
        started_s = time.perf_counter()
        with TemporalGraph.create(bench_schema(), arena=Path(arena), arena_bytes=arena_bytes, image=path) as graph:
            return graph.memory().used_bytes / (time.perf_counter() - started_s)


def main() -> None:
    """Measures, prints and keeps a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=float, default=20e6, help="in the graph before anything is measured")
    parser.add_argument("--seconds", type=float, default=4.0, help="of ingest alone, each time")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk that keeps snapshots")
    parser.add_argument("--no-history", action="store_true", help="do not append to loadtests/history.ndjson")
    options = parser.parse_args()
    count = max(1, round(options.events / BATCH)) * BATCH
    copy_s = 2 * count * ARENA_BYTES_PER_EVENT / UpdaterSettings().snapshot_bytes_per_s + options.seconds
    arena_bytes = int((count + INGEST_PER_S_MAX * (2 * options.seconds + copy_s)) * ARENA_BYTES_PER_EVENT)
    with TemporaryDirectory(dir=options.folder, prefix="bench-snapshots-") as folder:
        path = Path(folder) / "graph.image"
        with TemporalGraph.create(bench_schema(), arena_bytes=arena_bytes) as graph:
            figures = bench_writer(graph, path, count, options.seconds)
        forget_pages(path)
        figures["disk_bytes_per_s"] = read_bytes_per_s(path)
        forget_pages(path)
        for name in ("restore_cold_bytes_per_s", "restore_warm_bytes_per_s"):
            figures[name] = restore_bytes_per_s(path, int(figures["bytes"]) + (64 << 20))
    print(
        f"ingest {figures['alone_per_s']:,.0f} events/s alone, {figures['beside_copy_per_s']:,.0f} while "
        f"{figures['bytes']:,} bytes are copied at {figures['copied_bytes_per_s'] / 1e6:,.0f} MB/s\n"
        f"rest {figures['rest_s']:.2f} s: {figures['pages']:,} of {figures['pages_all']:,} pages written anew\n"
        f"restored at {figures['restore_cold_bytes_per_s'] / 1e9:.2f} GB/s from the disk, "
        f"{figures['restore_warm_bytes_per_s'] / 1e9:.2f} from the page cache; "
        f"the disk reads {figures['disk_bytes_per_s'] / 1e9:.2f} GB/s"
    )
    if not options.no_history:
        append_history("snapshots", figures)


if __name__ == "__main__":
    main()
