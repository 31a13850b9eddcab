"""`make bench-columns`: neighborhoods with their cells from memory, from the page cache, and from a cold disk.

    python loadtests/bench_columns.py [--rows 300e3] [--disk FOLDER] [--json]

The same payments in two graphs, one of which has their columns on disk. A cold call asks for neighborhoods when nothing
of the columns' file is in memory, a warm one when all of it is. Wall-clock time of one thread.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

sys.path.append(str(Path(__file__).resolve().parents[1]))  # after the installed packages, which are what is measured

from loadtests.load.places import forget_pages, memory_folder
from online_sampler import Sampler, SamplingPlan
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.columns import columns_link
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema, parse_schema
from temporal_graph.view import GraphView

NUMBERS, CODES, DIM = 16, 4, 64
CELL_BYTES = 8 * NUMBERS + 4 * CODES + 4 * DIM
_COLUMNS = ", ".join([f"n{i}: numerical" for i in range(NUMBERS)] + [f"c{i}: categorical" for i in range(CODES)])
SCHEMA = f"""
version: 1
name: bench
tables:
  users: {{primary_key: {{user_id: integer}}}}
  payments:
    primary_key: {{payment_id: integer}}
    time_column: at
    columns: {{{_COLUMNS}, vector: {{kind: embedding, dim: {DIM}}}}}
    links: {{user_id: users}}
"""
ROWS_PER_USER = 100
PLAN = {"num_neighbors": [{"hop1": 100}]}
BATCHES = (1, 64)
CALLS = 2_000
COLD_CALLS = {1: 100, 64: 20}
READS = 300
EVENTS_AT_ONCE = 1_000
PAGE_BYTES = 4096

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Latency:
    """One call for `batch` neighborhoods: wall-clock microseconds, and what it read from disk in KiB."""

    columns: str
    batch: int
    p50_us: float
    p99_us: float
    rows: float
    disk_kib: float


def event_batches(rows: int) -> Iterator[list[bytes]]:
    """Payments of random users, so that the rows of one lie far from one another."""
    random = np.random.default_rng(1)
    for low in range(0, rows, EVENTS_AT_ONCE):
        written = []
        for key in range(low, min(low + EVENTS_AT_ONCE, rows)):
            event = row_event_pb2.RowEvent(
                table="payments", operation=row_event_pb2.OPERATION_INSERT, event_time_us=1_000_000 * key
            )
            event.key.parts.add(integer=key)
            event.cells.add(column="user_id", integer=int(random.integers(0, rows // ROWS_PER_USER)))
            for i, number in enumerate(random.random(NUMBERS)):
                event.cells.add(column=f"n{i}", number=number)
            for i, code in enumerate(random.integers(0, 1_000, CODES)):
                event.cells.add(column=f"c{i}", text=f"category {code}")
            event.cells.add(column="vector").vector.values.extend(random.random(DIM))
            written.append(event.SerializeToString())
        yield written


def fill(schema: Schema, rows: int, arena: Path, disk: Path) -> dict[str, float]:
    """Writes the graph into the folder; returns bytes a row and the rate, and lets go of every mapping of it."""
    arena_bytes = rows * (CELL_BYTES + 400) + (1 << 30)
    with TemporalGraph.create(schema, arena=arena, arena_bytes=arena_bytes, columns=disk) as graph:
        seconds = 0.0
        for events in event_batches(rows):
            started = time.process_time()
            graph.apply(events, backfill=True)
            seconds += time.process_time() - started
        memory = graph.memory()
        payments = next(table for table in memory.tables if table.name == "payments")
        figures = {
            "cells_in_memory_bytes_per_row": payments.cell_bytes / rows,
            "cells_on_disk_bytes_per_row": payments.disk_bytes / rows,
            "arena_bytes_per_row": memory.used_bytes / rows,
            "apply_events_per_s": rows / seconds,
        }
    del graph
    gc.collect()
    return figures


@contextmanager
def sampler_of(schema: Schema, arena: Path) -> Iterator[Callable[[Int64], int]]:
    """Samples users' neighborhoods; returns the number of rows. Maps the graph for as long as the block."""
    samplers = [Sampler(GraphView.attach(schema, arena), SamplingPlan.from_dict(PLAN))]

    def sample(users: Int64) -> int:
        return len(samplers[0].sample_keys("users", users.tolist(), np.full(len(users), 2**62)).row)

    yield sample
    samplers.clear()
    gc.collect()


def timed(sample: Callable[[Int64], int], users: Int64) -> tuple[float, int, int]:
    """Microseconds, rows and KiB read from disk of one call."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_inblock
    started = time.perf_counter_ns()
    rows = sample(users)
    taken = (time.perf_counter_ns() - started) / 1_000
    return taken, rows, (resource.getrusage(resource.RUSAGE_THREAD).ru_inblock - before) // 2


def latency(columns: str, batch: int, found: list[tuple[float, int, int]]) -> Latency:
    """What the calls took."""
    taken, rows, read = (np.array(each, float) for each in zip(*found, strict=True))
    p50, p99 = np.percentile(taken, [50, 99])
    return Latency(columns, batch, float(p50), float(p99), float(rows.mean()), float(read.mean()))


def warm_calls(schema: Schema, arena: Path, users: int, columns: str) -> list[Latency]:
    """With everything in memory, each user asked for once before."""
    results = []
    with sampler_of(schema, arena) as sample:
        everybody = np.arange(users)
        for low in range(0, users, 512):
            sample(everybody[low : low + 512])
        random = np.random.default_rng(2)
        for batch in BATCHES:
            found = [timed(sample, random.integers(0, users, batch)) for _ in range(CALLS // batch + 50)]
            results.append(latency(columns, batch, found))
    return results


def cold_calls(schema: Schema, arena: Path, users: int) -> list[Latency]:
    """With nothing of the columns in memory before each call."""
    random = np.random.default_rng(3)
    path = columns_link(arena, 1)
    results = []
    for batch in BATCHES:
        found = []
        for _ in range(COLD_CALLS[batch]):
            forget_pages(path)
            with sampler_of(schema, arena) as sample:
                found.append(timed(sample, random.integers(0, users, batch)))
        results.append(latency("disk, cold", batch, found))
    return results


def page_read_us(path: Path, written_bytes: int) -> float:
    """The median of reading one page that is not in memory: what a row would cost if each were waited for alone."""
    forget_pages(path)
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    taken = []
    for page in np.random.default_rng(4).integers(1, written_bytes // PAGE_BYTES, READS):
        started = time.perf_counter_ns()
        os.pread(file, PAGE_BYTES, int(page) * PAGE_BYTES)
        taken.append((time.perf_counter_ns() - started) / 1_000)
    os.close(file)
    return float(np.median(taken))


def show(report: dict[str, Any]) -> None:
    """The tables a person reads."""
    console = Console()
    table = Table("columns", "batch", "p50 us", "p99 us", "rows", "us a row", "KiB read")
    for one in report["latency"]:
        cells = (one["p50_us"], one["p99_us"], one["rows"], one["p50_us"] / one["rows"], one["disk_kib"])
        table.add_row(one["columns"], str(one["batch"]), *(f"{cell:,.2f}" for cell in cells))
    console.print(table)
    figures = Table("figure", "memory", "disk")
    for name in report["memory"]:
        figures.add_row(name, f"{report['memory'][name]:,.1f}", f"{report['disk'][name]:,.1f}")
    console.print(figures)
    console.print(f"one page from the disk: {report['page_read_us']:,.0f} us; {report['cpu_count']} cores")


def main() -> None:
    """Runs everything and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, default=300e3, help="payments in the graph (default 300e3)")
    parser.add_argument("--disk", type=Path, help="folder for the columns; default: where temporary files are")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    arguments = parser.parse_args()
    rows = int(arguments.rows)
    users = rows // ROWS_PER_USER
    in_memory = parse_schema(SCHEMA)
    on_disk = replace(in_memory, tables=(in_memory.tables[0], replace(in_memory.tables[1], storage="disk")))
    with (
        tempfile.TemporaryDirectory(dir=memory_folder()) as arenas,
        tempfile.TemporaryDirectory(dir=arguments.disk) as disk,
    ):
        plain, other = Path(arenas) / "plain", Path(arenas) / "other"
        report: dict[str, Any] = {
            "python": platform.python_version(),
            "cpu_count": os.cpu_count(),
            "rows": rows,
            "memory": fill(in_memory, rows, plain, Path(disk)),
            "disk": fill(on_disk, rows, other, Path(disk)),
        }
        found = warm_calls(in_memory, plain, users, "memory")
        found += warm_calls(on_disk, other, users, "disk, warm")
        found += cold_calls(on_disk, other, users)
        report["latency"] = [vars(one) for one in found]
        report["page_read_us"] = page_read_us(columns_link(other, 1), rows * CELL_BYTES)
    if arguments.json:
        print(json.dumps(report))  # the command's result
    else:
        show(report)


if __name__ == "__main__":
    main()
