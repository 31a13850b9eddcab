"""How far the graph is behind its log: asked of the broker beside the updater, never in its way.

broker's end offsets - graph's positions ─► lag of each partition ─► behind or not
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import structlog

from graph_updater.metrics import UpdaterMetrics
from graph_updater.settings import UpdaterSettings
from stream.errors import StreamError
from stream.source import Hysteresis

log = structlog.get_logger(__name__)

Positions = Mapping[tuple[str, int], int]


@runtime_checkable
class HasEnds(Protocol):
    """A source whose log has an end that can be asked for, such as Kafka."""

    @property
    def positions(self) -> dict[tuple[str, int], int]:
        """The next offset of each partition that it will give."""

    def end_positions(self) -> dict[tuple[str, int], int]:
        """The offset that the next record of each partition will get."""


class LagWatch:
    """Watches the lag of all sources on a thread of its own, between `start` and `stop`.

    The broker may take seconds to answer or be away: the last known lag then stands, and the updater goes on.
    """

    def __init__(
        self,
        applied: Callable[[], Positions],
        sources: Sequence[HasEnds],
        settings: UpdaterSettings,
        metrics: UpdaterMetrics,
    ) -> None:
        self._applied = applied
        self._sources = list(sources)
        # A partition that gives nothing has no position in the graph: it stands where its source began.
        self._started_at = {place: offset for source in sources for place, offset in source.positions.items()}
        self._target: dict[tuple[str, int], int] | None = None
        self._interval_s = settings.lag_interval_s
        self._metrics = metrics
        self._behind = Hysteresis(settings.behind_enter_records, settings.behind_leave_records)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def behind(self) -> bool:
        """Whether the graph is behind its log, with hysteresis."""
        return self._behind.on

    def caught_up(self) -> bool:
        """Whether everything is applied that the logs held when this was first asked; raises StreamError as they do."""
        if self._target is None:
            self._target = {place: end for source in self._sources for place, end in source.end_positions().items()}
        applied = self._applied()
        return all(self._at(place, applied) >= end for place, end in self._target.items())

    def start(self) -> None:
        """Begins to watch; without a source that knows its end there is nothing to watch."""
        if self._sources and self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._watch, name="nowgraph-lag", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends the watching and waits for it."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def look(self) -> int:
        """Asks once and returns the records that all partitions are behind; raises StreamError as the source does."""
        total = 0
        for source in self._sources:
            ends = source.end_positions()
            applied = self._applied()
            for (topic, partition), end in ends.items():
                lag = max(0, end - self._at((topic, partition), applied))
                self._metrics.lag.labels(topic=topic, partition=str(partition)).set(lag)
                total += lag
        self._metrics.behind.set(self._behind.update(total))
        return total

    def _at(self, place: tuple[str, int], applied: Positions) -> int:
        return applied.get(place, self._started_at.get(place, 0))

    def _watch(self) -> None:
        while not self._stopping.wait(self._interval_s):
            try:
                self.look()
            except StreamError as error:
                log.warning("the broker did not say how far behind the graph is", error=str(error))
