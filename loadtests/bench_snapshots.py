"""`make bench-snapshots`: what a snapshot costs the writer, and how fast it comes back, beside what the disk can do.

full speed: two graphs take the same batches, one of them from a snapshot's begin to its end; then they change places
50,000 events/s: batches due every 5 ms ─► from when they were due until they are seen, alone and during a snapshot
image on disk ─► read past the page cache ─► restored into a shared arena, from the disk and from the page cache

python loadtests/bench_snapshots.py [--events 10e6] [--rounds 3] [--folder DIR] [--no-history]
"""

from __future__ import annotations

import argparse
import mmap
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import numpy.typing as npt

sys.path.append(str(Path(__file__).resolve().parents[1]))  # after the installed packages, which are what is measured

from graph_updater.settings import UpdaterSettings
from loadtests.bench_graph import BATCH, Events, append, bench_schema, powerlaw_events
from loadtests.load.places import forget_pages, memory_folder
from loadtests.load.report import append_history
from temporal_graph.graph import TemporalGraph
from temporal_graph.image import Settled

PAGE_BYTES = 4 << 10
READ_BYTES = 4 << 20
DRAWN = 2_000_000
ARENA_BYTES = 24 << 30  # addresses: memory only where something is written
USUAL_PER_S = 50_000
USUAL_BATCH = 250


class Writer:
    """Appends one draw of events again and again, under new keys and later times."""

    def __init__(self, graph: TemporalGraph, events: Events) -> None:
        self.graph = graph
        self._events = events
        self._span_us = int(events.event_time_us[-1] - events.event_time_us[0]) + 1
        self.applied = 0

    def append(self, count: int) -> None:
        """The next so many, or as many as the draw's turn still has."""
        events = self._events
        turn, low = divmod(self.applied, len(events))
        count = min(count, len(events) - low)
        part = slice(low, low + count)
        batch = events.batch(part)
        later = replace(batch, event_time_us=batch.event_time_us + turn * self._span_us)
        append(self.graph, np.arange(self.applied, self.applied + count), later)
        self.applied += count

    def reach(self, count: int) -> float:
        """Appends batches as fast as they go until so many events were applied; returns the seconds."""
        started_s = time.perf_counter()
        while self.applied < count:
            self.append(min(BATCH, count - self.applied))
        return time.perf_counter() - started_s

    def until(self, done: Callable[[], bool]) -> float:
        """Appends batches as fast as they go until it is done; returns the seconds."""
        started_s = time.perf_counter()
        while not done():
            self.append(BATCH)
        return time.perf_counter() - started_s


class Making:
    """A snapshot's image from begin to end, beside a writer that asks `done` between its batches."""

    def __init__(self, graph: TemporalGraph, path: Path) -> None:
        self._image: Final = graph.image(path)
        self.bytes_before: Final = graph.memory().used_bytes
        self.copied_s = self.bytes = 0.0
        self.settled: Settled | None = None
        self._beside = threading.Thread(target=self._copy)
        self._beside.start()

    def _copy(self) -> None:
        started_s = time.perf_counter()
        self._image.copy(bytes_per_s=UpdaterSettings().snapshot_bytes_per_s)
        self.copied_s = time.perf_counter() - started_s

    def _finish(self) -> None:
        self.bytes = self._image.finish()

    def done(self) -> bool:
        """Whether it is whole; settles it as soon as it is copied."""
        if self._beside.is_alive():
            return False
        if self.settled is not None:
            return True
        self.settled = self._image.settle()
        self._beside = threading.Thread(target=self._finish)
        self._beside.start()
        return False


def bench_full_speed(writers: Sequence[Writer], folder: Path, rounds: int) -> dict[str, float]:
    """A snapshot of either graph in turn; what the same batches take with it, from its begin to its end, and alone."""
    with_s = alone_s = events = 0.0
    rests_s: list[float] = []
    for number in range(2 * rounds):
        writer, other = writers[number % 2], writers[1 - number % 2]
        path, before = folder / f"full-{number}", writer.applied
        making = Making(writer.graph, path)
        with_s += writer.until(making.done)
        alone_s += other.reach(writer.applied)
        events += writer.applied - before
        assert making.settled is not None
        rests_s.append(making.settled.pause_s)
        path.unlink()
    return {
        "alone_per_s": events / alone_s,
        "beside_per_s": events / with_s,
        "loss": 1 - alone_s / with_s,
        "whole_s": with_s / len(rests_s),
        "full_rest_s": statistics.mean(rests_s),
    }


def seen_ms(writer: Writer, done: Callable[[], bool]) -> npt.NDArray[np.float64]:
    """How long after it was due each batch of an open loop was in the graph, until it is done."""
    late_ms: list[float] = []
    started_s = time.perf_counter()
    while not done():
        due_s = started_s + (len(late_ms) + 1) * USUAL_BATCH / USUAL_PER_S
        time.sleep(max(0.0, due_s - time.perf_counter()))
        writer.append(USUAL_BATCH)
        late_ms.append((time.perf_counter() - due_s) * 1e3)
    return np.asarray(late_ms)


def bench_usual(writer: Writer, path: Path, seconds: float) -> dict[str, float]:
    """Event to visible alone and during a snapshot, which it leaves at the path."""
    alone_ms = np.concatenate([seen_ms(writer, after(seconds)), seen_ms(writer, after(seconds))])
    making = Making(writer.graph, path)
    beside_ms = seen_ms(writer, making.done)
    assert making.settled is not None
    return {
        "seen_ms_p99": float(np.percentile(alone_ms, 99)),
        "seen_beside_ms_p99": float(np.percentile(beside_ms, 99)),
        "seen_beside_ms_max": float(beside_ms.max()),
        "rest_s": making.settled.pause_s,
        "pages": making.settled.pages,
        "pages_all": -(-int(making.bytes) // PAGE_BYTES),
        "copied_bytes_per_s": making.bytes_before / making.copied_s,
        "bytes": making.bytes,
    }


def after(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have passed since now."""
    end_s = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= end_s


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
    parser.add_argument("--events", type=float, default=10e6, help="in each graph before anything is measured")
    parser.add_argument("--rounds", type=int, default=1, help="snapshots of each graph; three fill 24 GiB")
    parser.add_argument("--seconds", type=float, default=4.0, help="of the usual load alone, twice")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk that keeps snapshots")
    parser.add_argument("--no-history", action="store_true", help="do not append to loadtests/history.ndjson")
    options = parser.parse_args()
    count = max(1, round(options.events / BATCH)) * BATCH
    events = powerlaw_events(count).part(min(DRAWN, count))
    with TemporaryDirectory(dir=options.folder, prefix="bench-snapshots-") as place, ExitStack() as graphs:
        folder = Path(place)
        made = [graphs.enter_context(TemporalGraph.create(bench_schema(), arena_bytes=ARENA_BYTES)) for _ in range(2)]
        writers = [Writer(graph, events) for graph in made]
        for writer in writers:
            writer.reach(count)
        figures: dict[str, float] = {"events": count}
        figures |= bench_usual(writers[0], folder / "graph.image", options.seconds)
        writers[1].reach(writers[0].applied)
        figures |= bench_full_speed(writers, folder, options.rounds)
        graphs.close()
        path = folder / "graph.image"
        forget_pages(path)
        figures["disk_bytes_per_s"] = read_bytes_per_s(path)
        forget_pages(path)
        for name in ("restore_cold_bytes_per_s", "restore_warm_bytes_per_s"):
            figures[name] = restore_bytes_per_s(path, int(figures["bytes"]) + (64 << 20))
    print(
        f"full speed: {figures['alone_per_s']:,.0f} events/s alone, {figures['beside_per_s']:,.0f} from a snapshot's "
        f"begin to its end, {figures['whole_s']:.1f} s: {figures['loss']:.1%} less, a rest of "
        f"{figures['full_rest_s']:.2f} s among it\n"
        f"{USUAL_PER_S:,} events/s: seen within {figures['seen_ms_p99']:.1f} ms (p99), "
        f"{figures['seen_beside_ms_p99']:.1f} during a snapshot (longest {figures['seen_beside_ms_max']:.1f}); "
        f"rest {figures['rest_s'] * 1e3:.1f} ms: {figures['pages']:,} of {figures['pages_all']:,} pages; "
        f"copied at {figures['copied_bytes_per_s'] / 1e6:,.0f} MB/s\n"
        f"restored at {figures['restore_cold_bytes_per_s'] / 1e9:.2f} GB/s from the disk, "
        f"{figures['restore_warm_bytes_per_s'] / 1e9:.2f} from the page cache; "
        f"the disk reads {figures['disk_bytes_per_s'] / 1e9:.2f} GB/s"
    )
    if not options.no_history:
        append_history("snapshots", figures)


if __name__ == "__main__":
    main()
