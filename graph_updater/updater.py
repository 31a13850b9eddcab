"""The one writer of the live graph.

    sources ─► poll ─► decode ─┬─► graph.apply(events, positions) ─► visible
                               └─► dead letters ─► flushed

What the caller promises: one updater for each graph, run by one thread; `stop`, `applied` and `behind` may be called
from any other. What we guarantee: a record's position is in the graph only once the record is applied or its dead
letter is confirmed, so that going on from the graph's positions misses nothing, and applying twice changes nothing.
How: dead letters of the decoder are flushed before the batch is applied; those of the graph, which are known only
afterwards, before anything else happens, and should that fail they are kept and flushed before the next batch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import structlog

from graph_updater.erasures import ErasureReport
from graph_updater.lag import HasEnds, LagWatch
from graph_updater.metrics import UpdaterMetrics, memory_parts
from graph_updater.progress import Progress
from graph_updater.settings import UpdaterSettings
from graph_updater.snapshotter import Snapshotter
from graph_updater.tracing import ApplyTraces
from stream.batch import NO_TIMESTAMP_US, Batch, DeadLetter, Decoded
from stream.source import Source
from temporal_graph.graph import TemporalGraph
from temporal_graph.time_rule import ALWAYS_US
from temporal_graph.view import GraphView

if TYPE_CHECKING:
    from temporal_graph.redis.graph import RedisGraph

log = structlog.get_logger(__name__)


class Decoder(Protocol):
    """Makes row events of records; what it cannot use it returns as dead letters and never raises for."""

    def decode(self, batch: Batch) -> Decoded:
        """The events of the batch, in its order."""


class DeadLetters(Protocol):
    """Where records go that cannot enter the graph."""

    def append(self, letters: Sequence[DeadLetter]) -> None:
        """Queues the letters."""

    def flush(self, timeout_s: float) -> None:
        """Returns once all of them are confirmed; raises StreamError when they are not in time."""


class Updater:
    """Applies what the sources give to the graph, until it is stopped or every source is read to its end."""

    def __init__(
        self,
        graph: TemporalGraph | RedisGraph,
        sources: Sequence[Source],
        decoder: Decoder,
        dead_letters: DeadLetters,
        *,
        settings: UpdaterSettings | None = None,
        metrics: UpdaterMetrics | None = None,
        logs: Sequence[HasEnds] | None = None,
        traces: ApplyTraces | None = None,
        snapshots: Snapshotter | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """``logs`` say how far there is to go; None stands for those of the sources that know their end.

        ``traces`` follow records that are traced; None stands for the process's OpenTelemetry. ``snapshots``
        makes them between batches; the updater closes it. ``clock_s`` says when retention and accounts are due.
        """
        if not sources:
            raise ValueError("expected at least one source")
        self._graph = graph
        self._sources = list(sources)
        self._decoder = decoder
        self._dead_letters = dead_letters
        self._settings = settings if settings is not None else UpdaterSettings()
        self.metrics = metrics if metrics is not None else UpdaterMetrics()
        # A graph in Redis has no retention and counts no rows, and its memory is Redis's to tell.
        self._arena = graph if isinstance(graph, TemporalGraph) else None
        self._view = graph.view() if isinstance(graph, TemporalGraph) else graph
        self._positions = graph.positions
        ends = logs if logs is not None else [source for source in sources if isinstance(source, HasEnds)]
        self._begin(ends)
        self._lag = LagWatch(
            lambda: self._positions, ends, self._settings, self.metrics, complete=graph.set_complete_time
        )
        self._traces = traces if traces is not None else ApplyTraces()
        self._snapshots = snapshots
        self._clock_s = clock_s
        self._progress = Progress()
        self._erasures = ErasureReport(self._view, self.metrics)
        self._unconfirmed: list[DeadLetter] = []
        self._stopping = threading.Event()
        self._next_evict_s = self._next_account_s = 0.0

    def _begin(self, logs: Sequence[HasEnds]) -> None:
        """Keeps where each partition is begun: read again from there, it is found out if the log lost records since."""
        begun = {place: at for log_ in logs for place, at in log_.positions.items() if place not in self._positions}
        if begun and self._arena is not None:
            self._graph.apply([], positions=begun)
            self._positions = {**self._positions, **begun}

    @property
    def behind(self) -> bool:
        """Whether the graph is behind its log, with hysteresis."""
        return self._lag.behind

    def caught_up(self) -> bool:
        """Whether everything is applied that the logs held when it began, or took a place; False before it knows."""
        return self._lag.caught_up()

    def take_place(self, snapshots: Snapshotter | None) -> None:
        """Goes on as the writer that it stood by for: catches up with the logs as they are now, and makes snapshots.

        May be called from any thread; `caught_up` is False until it has.
        """
        self._lag.look_anew()
        self._snapshots = snapshots

    def moved(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Takes note of the partitions that a group has given to this updater, and of where they stand; on its thread.

        They are all that it reads from now on.
        """
        self._positions = {**self._positions, **positions}
        self._lag.moved()

    @property
    def exhausted(self) -> bool:
        """Whether every source has been read to its end."""
        return all(source.exhausted for source in self._sources)

    def applied(self, topic: str, partition: int) -> int:
        """The first offset of the partition that is not in the graph; 0 before the first."""
        return self._positions.get((topic, partition), 0)

    def run(self) -> None:
        """Applies events until `stop` is called or every source is exhausted.

        Raises whatever stops a source, the decoder, the graph or the dead letters; positions then are those of what
        was applied, and running again goes on from there. Not after ArenaFullError: an event may be applied in part, so
        the process has to end, and the next one to begin from a snapshot or the log.
        """
        while not self._stopping.is_set() and not self.exhausted:
            self.step()
        self._account()

    def stop(self) -> None:
        """Asks `run` to return once the batch in hand is applied; may be called from a signal handler."""
        self._stopping.set()

    def close(self) -> None:
        """Closes the sources, and gives up a snapshot in the making; call it after `run` has returned."""
        if self._snapshots is not None:
            self._snapshots.close()
        for source in self._sources:
            source.close()

    def step(self) -> int:
        """Polls every source once, applies what came and does what is due; returns the number of records."""
        settings = self._settings
        self._lag.look()
        timeout_s = settings.poll_timeout_s if len(self._sources) == 1 else settings.poll_timeout_shared_s
        records = 0
        for source in self._sources:
            if source.exhausted:
                continue
            batch = source.poll(settings.poll_records_max, timeout_s)
            if len(batch):
                self._apply(batch)
                records += len(batch)
            elif batch.passed:
                self._pass(batch)
        now_s = self._clock_s()
        if now_s >= self._next_evict_s:
            self._next_evict_s = now_s + settings.evict_interval_s
            self._evict()
        if now_s >= self._next_account_s:
            self._next_account_s = now_s + settings.account_interval_s
            self._account()
        if self._snapshots is not None:
            self._snapshots.step()
        return records

    def _apply(self, batch: Batch) -> None:
        start_ns = time.time_ns()
        self._send(self._unconfirmed)
        decoded = batch.decoded if batch.decoded is not None else self._decoder.decode(batch)
        self._send(decoded.dead)
        index = decoded.record_index
        positions = batch.next_positions()
        start_s = time.perf_counter()
        applied = self._graph.apply(
            decoded.events,
            broker_time_us=decoded.broker_time_us,
            topic=batch.topic,
            partition=batch.partition[index],
            offset=batch.offset[index],
            backfill=batch.backfill,
            positions=positions,
        )
        visible_ns = time.time_ns()
        # Replaced as a whole, so that other threads read one state or the other.
        self._positions = {**self._positions, **positions}
        metrics = self.metrics
        metrics.apply_seconds.observe(np.asarray([time.perf_counter() - start_s]))
        # A record may give two events; it is one dead letter, for the first that was refused.
        refused = {int(index[one.index]): one for one in reversed(applied.rejected)}
        self._unconfirmed = [
            batch.dead_letter(record, one.reason, one.detail) for record, one in sorted(refused.items())
        ]
        self._send(self._unconfirmed)
        if refused and not isinstance(self._graph, TemporalGraph):  # its positions outlive this process
            self._graph.settle(positions)
        self._progress.read(batch)
        metrics.records.labels(topic=batch.topic).inc(len(batch))
        metrics.applied.inc(applied.applied)
        metrics.duplicate.inc(applied.duplicate)
        metrics.erased.inc(applied.erased)
        self._erasures.look()
        if not batch.backfill:
            stamped = batch.timestamp_us[batch.timestamp_us != NO_TIMESTAMP_US]
            # Clocks of two machines may disagree; an event is not visible before it was sent.
            metrics.visible_seconds.observe(np.maximum(visible_ns // 1000 - stamped, 0) / 1e6)
        self._traces.applied(batch, start_ns=start_ns, end_ns=visible_ns)

    def _pass(self, batch: Batch) -> None:
        """Goes on where the log has offsets without a record."""
        self._send(self._unconfirmed)
        positions = batch.next_positions()
        self._graph.apply([], positions=positions)
        self._positions = {**self._positions, **positions}

    def _send(self, letters: Sequence[DeadLetter]) -> None:
        """Hands dead letters over and waits until they are safe; no record is passed over before that."""
        if not letters:
            return
        self._dead_letters.append(letters)
        self._dead_letters.flush(self._settings.dead_letter_timeout_s)
        for letter in letters:
            self.metrics.rejected.labels(reason=letter.reason).inc()
        if letters is self._unconfirmed:
            self._unconfirmed = []

    def _evict(self) -> None:
        if self._arena is None:
            return
        waiting = self._lag.waiting()
        if waiting is None and self._lag.knows_ends:  # no log has said yet how far there is to go
            return
        evicted = self._arena.evict(as_of_us=self._progress.as_of_us(waiting or ()))
        if evicted.rows:
            self.metrics.evicted.inc(evicted.rows)
            log.info("retention forgot rows", rows=evicted.rows)

    def _account(self) -> None:
        watermark_us = self._view.watermark_us
        if watermark_us != ALWAYS_US:
            self.metrics.watermark.set(watermark_us / 1e6)
        if self._arena is None or not isinstance(self._view, GraphView):
            return
        self.metrics.set_memory(memory_parts(self._arena.memory()))
        for table in self._arena.schema.tables:
            self.metrics.rows.labels(table=table.name).set(self._view.row_count(table.name))
