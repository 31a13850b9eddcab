"""Snapshots while events are applied: copied beside the writer, settled between two of its batches.

    due ─► copy (its thread) ─► settle (the writer's step: what changed last) ─► finish, add, keep (its thread) ─► due

The writer rests only to settle. The next snapshot begins so much later that resting takes at most PAUSE_SHARE_MAX of
the time, however large the graph is.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import structlog

from graph_updater.metrics import UpdaterMetrics
from graph_updater.settings import UpdaterSettings
from temporal_graph.graph import TemporalGraph
from temporal_graph.image import GraphImage, Settled
from temporal_graph.snapshots import IMAGE, Snapshots

log = structlog.get_logger(__name__)

PAUSE_SHARE_MAX: Final = 0.02
"""Of the writer's time, at most so much is rest for snapshots; copying takes the rest of what ingest may lose."""


def give_way(niceness: int) -> None:
    """Let others have the cores first: this thread alone, the process stays as it is."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


class Snapshotter:
    """Makes a snapshot of one graph every interval. `step` is the writer's; it raises nothing."""

    def __init__(
        self,
        graph: TemporalGraph,
        snapshots: Snapshots,
        settings: UpdaterSettings,
        metrics: UpdaterMetrics,
        *,
        clock_s: Callable[[], float] = time.monotonic,
        executor: Executor | None = None,
    ) -> None:
        """What is done beside the writer is done by `executor`, by default a thread of its own."""
        self._graph = graph
        self._snapshots = snapshots
        self._settings = settings
        self._metrics = metrics
        self._clock_s = clock_s
        self._view = graph.view()
        self._beside = executor or ThreadPoolExecutor(1, "nowgraph-snapshot", give_way, (settings.snapshot_niceness,))
        self._next_s = clock_s() + settings.snapshot_interval_s
        self._begun_s = 0.0
        self._waits = False
        self._late = False
        self._sequence = -1
        self._image: GraphImage | None = None
        self._copied: Future[None] | None = None
        self._added: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a snapshot is being made."""
        return self._copied is not None or self._added is not None

    def step(self) -> None:
        """Do what is due; to be called between two batches, when all that was applied is safe to be restored."""
        if self._added is not None:
            if self._added.done():
                self._end(self._added)
        elif self._copied is not None:
            if self._copied.done():
                self._settle(self._copied)
        elif self._clock_s() >= self._next_s:
            self._begin()

    def close(self) -> None:
        """Give up what is being made and wait for its thread."""
        if self._image is not None:
            self._image.cancel()
        self._beside.shutdown(wait=True)
        if self._added is not None:
            self._end(self._added)
        self._drop()

    def _begin(self) -> None:
        self._begun_s = self._clock_s()
        if self._view.position().sequence == self._sequence:  # nothing came: the last one still holds all
            self._later(0.0)
            return
        self._copied = self._beside.submit(self._copy)

    def _copy(self) -> None:
        folder = self._snapshots.making()
        try:
            self._image = self._graph.image(folder / IMAGE)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._copy_on()

    def _copy_on(self) -> None:
        assert self._image is not None
        self._image.copy(bytes_per_s=self._settings.snapshot_bytes_per_s)  # where it fails, `_drop` removes the folder

    def _settle(self, copied: Future[None]) -> None:
        if self._view.overwrites_due and copied.exception() is None:
            # Some reader is still where something was erased: its bytes must not be in the image.
            self._late = True
            if not self._waits and self._clock_s() - self._begun_s > self._settings.snapshot_interval_s:
                self._waits = True
                log.warning("snapshot_waits_for_a_reader", overwrites_due=self._view.overwrites_due)
            return
        if self._late and self._image is not None and copied.exception() is None:
            # What changed while it waited is copied beside the writer too.
            self._late = False
            self._copied = self._beside.submit(self._copy_on)
            return
        self._copied, self._waits, self._late = None, False, False
        try:
            copied.result()
            assert self._image is not None
            settled = self._image.settle()
        except Exception as error:  # noqa: BLE001 - the graph goes on without a snapshot, and says so
            self._failed(error)
            return
        self._metrics.snapshot_pause_seconds.set(settled.pause_s)
        self._sequence = settled.position.sequence
        self._later(settled.pause_s / PAUSE_SHARE_MAX)
        self._added = self._beside.submit(self._add, self._image, settled)

    def _add(self, image: GraphImage, settled: Settled) -> None:
        size = image.finish()
        fingerprint = self._graph.schema.fingerprint()
        snapshot = self._snapshots.add(
            image.path.parent, settled, size=size, fingerprint=fingerprint, topic_ids=self._graph.topic_ids
        )
        self._metrics.snapshot_bytes.set(snapshot.bytes)
        self._metrics.snapshot_timestamp.set(snapshot.made_time_us / 1e6)
        log.info("snapshot_made", name=snapshot.name, bytes=size, pages_settled=settled.pages, pause_s=settled.pause_s)
        self._snapshots.keep(self._settings.snapshot_keep)

    def _end(self, added: Future[None]) -> None:
        self._added = None
        error = added.exception()
        if error is not None:
            self._failed(error)
            return
        self._image = None
        self._metrics.snapshots.labels(outcome="made").inc()
        self._metrics.snapshot_seconds.set(self._clock_s() - self._begun_s)

    def _failed(self, error: BaseException) -> None:
        log.error("snapshot_failed", reason=str(error))
        self._metrics.snapshots.labels(outcome="failed").inc()
        self._sequence = -1
        self._drop()
        self._later(0.0)

    def _later(self, at_least_s: float) -> None:
        self._next_s = self._clock_s() + max(self._settings.snapshot_interval_s, at_least_s)

    def _drop(self) -> None:
        """Remove what is no snapshot yet."""
        if self._image is not None:
            folder: Path = self._image.path.parent
            shutil.rmtree(folder, ignore_errors=True)
            self._image = None
