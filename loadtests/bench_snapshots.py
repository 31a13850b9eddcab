"""`make bench-snapshots`: what a snapshot costs the writer, and how fast it comes back, beside what the disk can do.

log: two graphs take the same encoded events as the updater does, step by step, as fast as they go, one of them from a
    snapshot's begin to its end; then they change places. Only who is measured has a source open, from its own position,
    and has read a while before: a client that waits would fetch ahead meanwhile, beside the other and for itself
full speed: the same with columns of integers, which no log delivers: the harder case
50,000 events/s: batches due every 5 ms ─► from when they were due until they are seen, alone and during a snapshot
image on disk ─► in turn: read past the page cache, restored into a shared arena; at last restored from the page cache

In the case of the log the records lie in memory, or in one partition of an Apache Kafka that shares the machine. The
memory that a graph grows into is touched before: a virtual machine gives it out more slowly than appends would fill it,
and each time at another speed.

python loadtests/bench_snapshots.py [--events 10e6] [--rounds 3] [--restores 5] [--parts usual log full]
    [--apache-kafka [HOST:PORT]] [--folder DIR] [--no-history]
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import numpy.typing as npt

sys.path.append(str(Path(__file__).resolve().parents[1]))  # after the installed packages, which are what is measured

from graph_updater.settings import UpdaterSettings
from graph_updater.snapshotter import give_way
from graph_updater.updater import Updater
from loadtests.bench_graph import BATCH, Events, append, bench_schema, powerlaw_events
from loadtests.bench_log import TOPIC, WARM_UP, MemoryLog, Sources, logged, publish
from loadtests.bench_visible import NoDeadLetters, apache_kafka
from loadtests.load.places import forget_pages, memory_folder
from loadtests.load.report import append_history
from stream.decode import Decoder
from stream.kafka_source import KafkaSource
from stream.producer import EventProducer
from temporal_graph.graph import TemporalGraph
from temporal_graph.image import Settled

PAGE_BYTES = 4 << 10
READ_BYTES = 4 << 20
DRAWN = 2_000_000
ARENA_BYTES = 24 << 30  # addresses: memory only where something is written
MADV_POPULATE_WRITE = 23
FULL_ROOM_BYTES = 5 << 29  # what a graph comes to in a round at full speed, and in one of the log
LOG_ROOM_BYTES = 5 << 28
LOGGED_IN_MEMORY, LOGGED_IN_KAFKA = 30_000_000, 10_000_000  # more than are applied while two snapshots are made
USUAL_PER_S = 50_000
USUAL_BATCH = 250
PARTS = ("usual", "log", "full")
FAST_SHARE = 10  # of the events: what is appended this fast while a snapshot is made is many times what there was


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

    @contextmanager
    def ready(self) -> Iterator[None]:
        """While it is measured."""
        yield

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


class Follower(Writer):
    """Applies a log as the updater does, from where another writer came to."""

    def __init__(self, writer: Writer, sources: Sources) -> None:
        self.graph, self.applied, self._sources = writer.graph, writer.applied, sources

    @contextmanager
    def ready(self) -> Iterator[None]:
        """With a source of its own, that has been read a while."""
        source = self._sources(positions=self.graph.positions)
        self._updater = Updater(self.graph, [source], Decoder(bench_schema(), None), NoDeadLetters())
        try:
            self.reach(self.applied + WARM_UP)
            yield
        finally:
            self._updater.close()

    def append(self, count: int) -> None:  # noqa: ARG002 - a poll has its own bound
        """What one poll of the log gives."""
        self.applied += self._updater.step()


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
        settings, started_s = UpdaterSettings(), time.perf_counter()
        give_way(settings.snapshot_niceness)
        self._image.copy(bytes_per_s=settings.snapshot_bytes_per_s)
        self.copied_s = time.perf_counter() - started_s

    def _finish(self) -> None:
        give_way(UpdaterSettings().snapshot_niceness)
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


def grown(events: Events, count: int, room_bytes: int = 0) -> Writer:
    """A graph of its own that has so many events, and memory that was touched."""
    graph = TemporalGraph.create(bench_schema(), arena_bytes=ARENA_BYTES)
    if room_bytes:
        touch_arena(room_bytes)
    writer = Writer(graph, events)
    writer.reach(count)
    return writer


def touch_arena(room_bytes: int) -> None:
    """Takes so much memory from the machine for the arena that was made last, where the kernel knows how (5.14)."""
    mapped = (line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines())
    arenas = [int(start, 16) for start, end in mapped if int(end, 16) - int(start, 16) >= ARENA_BYTES]
    # Mappings are placed from the top down.
    ctypes.CDLL(None).madvise(ctypes.c_void_p(min(arenas)), ctypes.c_size_t(room_bytes), MADV_POPULATE_WRITE)


@dataclass
class Costs:
    """What snapshots of one kind cost, a number each."""

    losses: list[float]
    with_s: list[float]
    alone_per_s: list[float]
    rests_s: list[float]

    def measure(self, writer: Writer, other: Writer, path: Path) -> None:
        """A snapshot of the writer's graph beside what it appends; then the other appends as much."""
        with writer.ready():
            before = writer.applied
            making = Making(writer.graph, path)
            with_s = writer.until(making.done)
        with other.ready():
            other_before = other.applied
            alone_s = other.reach(writer.applied)
        assert making.settled is not None
        alone_per_s = (other.applied - other_before) / alone_s
        self.losses.append(1 - (writer.applied - before) / with_s / alone_per_s)
        self.with_s.append(with_s)
        self.alone_per_s.append(alone_per_s)
        self.rests_s.append(making.settled.pause_s)
        path.unlink()

    def figures(self, name: str) -> dict[str, float]:
        """Medians; of the loss also each one, in order."""
        print(f"{name}: losses {', '.join(f'{loss:.1%}' for loss in self.losses)}")
        return {
            f"{name}_alone_per_s": statistics.median(self.alone_per_s),
            f"{name}_loss": statistics.median(self.losses),
            f"{name}_loss_min": min(self.losses),
            f"{name}_loss_max": max(self.losses),
            f"{name}_whole_s": statistics.median(self.with_s),
            f"{name}_rest_s": statistics.median(self.rests_s),
        }


def bench_full_speed(events: Events, count: int, folder: Path, rounds: int) -> dict[str, float]:
    """In each round a snapshot of either of two graphs in turn; what the same batches take with it, and alone.

    Each round begins with graphs of so many events: at full speed they grow by more in a round than that.
    """
    costs = Costs([], [], [], [])
    for _ in range(rounds):
        writers = [grown(events, count, FULL_ROOM_BYTES) for _ in range(2)]
        for writer, other in (writers, writers[::-1]):
            costs.measure(writer, other, folder / "full")
        for writer in writers:
            writer.graph.close()
    return costs.figures("full")


def bench_log(events: Events, count: int, path: Path, rounds: int, sources: Sources) -> dict[str, float]:
    """The same with a log that the updater's own step applies; `sources` gives the log from a graph's positions on.

    The path's name is that of the figures.
    """
    costs = Costs([], [], [], [])
    for _ in range(rounds):
        writers = [Follower(grown(events, count, LOG_ROOM_BYTES), sources) for _ in range(2)]
        for writer, other in (writers, writers[::-1]):
            costs.measure(writer, other, path)
        for writer in writers:
            writer.graph.close()
    return costs.figures(path.name)


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


def restore_bytes_per_s(path: Path, graph_bytes: int) -> float:
    """How fast an image becomes a graph in a shared arena, bytes of the graph a second."""
    arena_bytes = graph_bytes + (64 << 20)
    with TemporaryDirectory(dir=memory_folder()) as arena:
        started_s = time.perf_counter()
        with TemporalGraph.create(bench_schema(), arena=Path(arena), arena_bytes=arena_bytes, image=path) as graph:
            return graph.memory().used_bytes / (time.perf_counter() - started_s)


def bench_restore(path: Path, graph_bytes: int, times: int) -> dict[str, float]:
    """The disk and a restore from it in turn: medians, also of each restore's share of the disk's speed before it."""
    disk: list[float] = []
    restored: list[float] = []
    for _ in range(times):
        forget_pages(path)
        disk.append(read_bytes_per_s(path))
        forget_pages(path)
        restored.append(restore_bytes_per_s(path, graph_bytes))
    shares = [own / other for own, other in zip(restored, disk, strict=True)]
    with path.open("rb") as file:
        while file.read(READ_BYTES):  # into the page cache
            pass
    return {
        "disk_bytes_per_s": statistics.median(disk),
        "restore_cold_bytes_per_s": statistics.median(restored),
        "restore_share": statistics.median(shares),
        "restore_share_min": min(shares),
        "restore_share_max": max(shares),
        "restore_warm_bytes_per_s": restore_bytes_per_s(path, graph_bytes),
    }


def shown(figures: dict[str, float]) -> str:
    """The figures in sentences, of the parts that were measured."""
    lines = [
        f"{title}: {figures[f'{name}_alone_per_s']:,.0f} events/s alone; from a snapshot's begin to its end, "
        f"{figures[f'{name}_whole_s']:.1f} s, {figures[f'{name}_loss']:.1%} less ({figures[f'{name}_loss_min']:.1%} to "
        f"{figures[f'{name}_loss_max']:.1%}), a rest of {figures[f'{name}_rest_s'] * 1e3:.0f} ms among it"
        for name, title in (("log", "log"), ("kafka", "Apache Kafka"), ("full", "full speed"))
        if f"{name}_loss" in figures
    ]
    if "rest_s" in figures:
        lines.append(
            f"{USUAL_PER_S:,} events/s: seen within {figures['seen_ms_p99']:.1f} ms (p99), "
            f"{figures['seen_beside_ms_p99']:.1f} during a snapshot (longest {figures['seen_beside_ms_max']:.1f}); "
            f"rest {figures['rest_s'] * 1e3:.1f} ms: {figures['pages']:,} of {figures['pages_all']:,} pages; "
            f"copied at {figures['copied_bytes_per_s'] / 1e6:,.0f} MB/s\n"
            f"restored at {figures['restore_cold_bytes_per_s'] / 1e9:.2f} GB/s from the disk, which reads "
            f"{figures['disk_bytes_per_s'] / 1e9:.2f}: {figures['restore_share']:.0%} "
            f"({figures['restore_share_min']:.0%} to {figures['restore_share_max']:.0%}); "
            f"{figures['restore_warm_bytes_per_s'] / 1e9:.2f} GB/s from the page cache"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures, prints and keeps a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=float, default=10e6, help="in each graph before anything is measured")
    parser.add_argument("--rounds", type=int, default=1, help="of snapshots at full speed, one of each of two graphs")
    parser.add_argument("--restores", type=int, default=5, help="of the image, each after a read of it")
    parser.add_argument("--seconds", type=float, default=4.0, help="of the usual load alone, twice")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="what is measured (default: all)")
    parser.add_argument("--apache-kafka", nargs="?", const="", metavar="HOST:PORT", help="that one, or one of its own")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="on the disk that keeps snapshots")
    parser.add_argument("--no-history", action="store_true", help="do not append to loadtests/history.ndjson")
    options = parser.parse_args()
    count = max(1, round(options.events / BATCH)) * BATCH
    events = powerlaw_events(count).part(min(DRAWN, count))
    figures: dict[str, float] = {"events": count}
    few = max(1, count // FAST_SHARE // BATCH) * BATCH
    with TemporaryDirectory(dir=options.folder, prefix="bench-snapshots-") as place:
        folder = Path(place)
        if "usual" in options.parts:
            writer, path = grown(events, count), folder / "graph.image"
            figures |= bench_usual(writer, path, options.seconds)
            writer.graph.close()
            figures |= bench_restore(path, int(figures["bytes"]), options.restores)
        if "log" in options.parts:
            values = logged(events, few, LOGGED_IN_MEMORY)
            figures |= bench_log(events, few, folder / "log", options.rounds, partial(MemoryLog, values))
            values.clear()  # gigabytes, which the next graphs want
        if options.apache_kafka is not None:
            topic = f"{TOPIC}-{uuid.uuid4().hex[:8]}"
            with apache_kafka([topic], options.apache_kafka, partitions=1) as settings:
                with EventProducer(settings) as producer:
                    publish(logged(events, count, LOGGED_IN_KAFKA), topic, producer, settings)
                read = partial(KafkaSource, [topic], settings=settings)
                figures |= bench_log(events, count, folder / "kafka", options.rounds, read)
        if "full" in options.parts:
            figures |= bench_full_speed(events, few, folder, options.rounds)
    print(shown(figures))
    if not options.no_history:
        append_history("snapshots", figures)


if __name__ == "__main__":
    main()
