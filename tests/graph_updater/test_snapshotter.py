"""Snapshots beside the writer: due when they are due, and never in its way."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from graph_updater.metrics import UpdaterMetrics
from graph_updater.settings import UpdaterSettings
from graph_updater.snapshotter import PAUSE_SHARE_MAX, Snapshotter
from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.graph import TemporalGraph
from temporal_graph.image import GraphImage
from temporal_graph.schema import Schema, parse_schema
from temporal_graph.snapshots import MAKING, Snapshots

ARENA_BYTES = 64 << 20
SCHEMA = "version: 1\nname: visits\ntables: {visits: {primary_key: {visit_id: integer}, time_column: at}}\n"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def schema() -> Schema:
    """Visits, and nothing else."""
    return parse_schema(SCHEMA)


def visit(graph: TemporalGraph, number: int) -> None:
    """One visit is applied."""
    event = pb.RowEvent(table="visits", operation=pb.OPERATION_INSERT, event_time_us=number)
    event.key.parts.add(integer=number)
    graph.apply([event.SerializeToString()], positions={("visits", 0): number + 1})


def until(snapshotter: Snapshotter, done: Callable[[], bool]) -> None:
    """Steps as the updater does between batches."""
    end_s = time.monotonic() + 20
    while not done():
        snapshotter.step()
        assert time.monotonic() < end_s
        time.sleep(0.002)


def count(metrics: UpdaterMetrics, outcome: str) -> float:
    """How many snapshots ended so."""
    return metrics.registry.get_sample_value("nowgraph_snapshots_total", {"outcome": outcome}) or 0.0


def test_one_is_made_every_interval_and_only_of_what_is_new(schema: Schema, tmp_path: Path) -> None:
    """Not before it is due; not again while nothing came; the newest few are kept."""
    clock, metrics, snapshots = Clock(), UpdaterMetrics(), Snapshots(tmp_path)
    settings = UpdaterSettings(snapshot_interval_s=60, snapshot_keep=2)
    with TemporalGraph.create(schema, arena_bytes=ARENA_BYTES) as graph:
        visit(graph, 0)
        snapshotter = Snapshotter(graph, snapshots, settings, metrics, clock_s=clock)
        clock.now_s += 59
        snapshotter.step()
        assert not snapshotter.busy
        for number in range(1, 4):
            visit(graph, number)
            clock.now_s += 60
            until(snapshotter, lambda number=number: count(metrics, "made") == number)  # type: ignore[misc]
            assert not snapshotter.busy
        found, _ = snapshots.inventory()
        assert [each.offsets for each in found] == [{("visits", 0): 4}, {("visits", 0): 3}]
        clock.now_s += 60
        for _ in range(3):
            snapshotter.step()
        assert not snapshotter.busy
        assert metrics.registry.get_sample_value("nowgraph_snapshot_bytes") == graph.memory().used_bytes
        snapshotter.close()


def test_what_makes_them_gives_way(schema: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread beside the writer is as nice as the settings say; the writer's own stays as it was."""
    niceness: list[int] = []
    copy = GraphImage.copy

    def seen(image: GraphImage, **options: Any) -> None:
        niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        copy(image, **options)

    monkeypatch.setattr(GraphImage, "copy", seen)
    clock, metrics, before = Clock(), UpdaterMetrics(), os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    settings = UpdaterSettings(snapshot_niceness=min(19, before + 7))
    with TemporalGraph.create(schema, arena_bytes=ARENA_BYTES) as graph:
        visit(graph, 0)
        snapshotter = Snapshotter(graph, Snapshots(tmp_path), settings, metrics, clock_s=clock)
        clock.now_s += settings.snapshot_interval_s
        until(snapshotter, lambda: count(metrics, "made") == 1)
        snapshotter.close()
    assert niceness == [settings.snapshot_niceness]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_a_long_rest_puts_the_next_one_off(schema: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resting takes no more than its share of the time, whatever the interval says."""
    clock, metrics = Clock(), UpdaterMetrics()
    with TemporalGraph.create(schema, arena_bytes=ARENA_BYTES) as graph:
        visit(graph, 0)
        snapshotter = Snapshotter(
            graph, Snapshots(tmp_path), UpdaterSettings(snapshot_interval_s=1), metrics, clock_s=clock
        )
        took_s = iter([0.0, 5.0])
        monkeypatch.setattr("temporal_graph.image.time.perf_counter", lambda: next(took_s))
        clock.now_s += 1
        until(snapshotter, lambda: count(metrics, "made") == 1)
        visit(graph, 1)
        clock.now_s += 5 / PAUSE_SHARE_MAX - 2
        snapshotter.step()
        assert not snapshotter.busy
        clock.now_s += 2
        snapshotter.step()
        assert snapshotter.busy
        snapshotter.close()


def test_one_that_waits_for_a_reader_says_so_once(
    schema: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that stands still where something was erased keeps snapshots from being made, and nobody would know.

    What changed meanwhile is copied beside the writer too: it would rest for all of that.
    """
    clock, metrics = Clock(), UpdaterMetrics()
    copies: list[GraphImage] = []
    copy = GraphImage.copy

    def counted(image: GraphImage, *, bytes_per_s: int = 0) -> None:
        copies.append(image)
        copy(image, bytes_per_s=bytes_per_s)

    monkeypatch.setattr(GraphImage, "copy", counted)
    with TemporalGraph.create(schema, arena_bytes=ARENA_BYTES) as graph, capture_logs() as logs:
        visit(graph, 0)
        settings = UpdaterSettings(snapshot_interval_s=1)
        snapshotter = Snapshotter(graph, Snapshots(tmp_path), settings, metrics, clock_s=clock)
        with monkeypatch.context() as held:
            held.setattr(type(graph.view()), "overwrites_due", 3)
            clock.now_s += 1
            snapshotter.step()
            assert snapshotter.busy
            clock.now_s += 2
            until(snapshotter, lambda: bool(logs))
            clock.now_s += 2
            for _ in range(3):
                snapshotter.step()
        until(snapshotter, lambda: count(metrics, "made") == 1)
        snapshotter.close()
    waits = [entry for entry in logs if entry["event"] == "snapshot_waits_for_a_reader"]
    assert [entry["overwrites_due"] for entry in waits] == [3]
    assert len(copies) == 2


def test_what_cannot_be_written_is_counted_and_tried_again(schema: Schema, tmp_path: Path) -> None:
    """The graph goes on; when there is room again, the next one is made."""
    clock, metrics = Clock(), UpdaterMetrics()
    place = tmp_path / "snapshots"
    place.write_text("no folder")
    with TemporalGraph.create(schema, arena_bytes=ARENA_BYTES) as graph:
        visit(graph, 0)
        snapshotter = Snapshotter(
            graph, Snapshots(place), UpdaterSettings(snapshot_interval_s=1), metrics, clock_s=clock
        )
        clock.now_s += 1
        until(snapshotter, lambda: count(metrics, "failed") == 1)
        place.unlink()
        visit(graph, 1)
        clock.now_s += 1
        until(snapshotter, lambda: count(metrics, "made") == 1)
        snapshotter.close()


def test_what_could_not_be_added_does_not_keep_its_room(
    schema: Schema, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the last step, when the image is there: the image goes, or no later one would find room."""
    clock, metrics = Clock(), UpdaterMetrics()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "manifest.json")

    monkeypatch.setattr(Snapshots, "add", full)
    with TemporalGraph.create(schema, arena_bytes=ARENA_BYTES) as graph:
        visit(graph, 0)
        settings = UpdaterSettings(snapshot_interval_s=1)
        snapshotter = Snapshotter(graph, Snapshots(tmp_path), settings, metrics, clock_s=clock)
        clock.now_s += 1
        until(snapshotter, lambda: count(metrics, "failed") == 1)
        assert list(tmp_path.iterdir()) == []
        snapshotter.close()


def test_closing_gives_up_what_is_being_made(schema: Schema, tmp_path: Path) -> None:
    """Soon, although the copy would take minutes, and without leaving anything."""
    clock, metrics = Clock(), UpdaterMetrics()
    settings = UpdaterSettings(snapshot_interval_s=1, snapshot_bytes_per_s=1 << 20)
    with TemporalGraph.create(schema, arena_bytes=1 << 30) as graph:
        for number in range(20):
            visit(graph, number)
        keys = np.arange(100, 1_500_000)
        graph.append("visits", keys, event_time_us=keys)
        snapshotter = Snapshotter(graph, Snapshots(tmp_path), settings, metrics, clock_s=clock)
        clock.now_s += 1
        snapshotter.step()
        time.sleep(0.3)
        begun_s = time.monotonic()
        snapshotter.close()
        assert time.monotonic() - begun_s < 20
    assert not list(tmp_path.glob(f"{MAKING}*"))
    assert Snapshots(tmp_path).inventory() == ([], [])
