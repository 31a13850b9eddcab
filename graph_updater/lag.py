"""How far the graph is behind its log.

    broker's end offsets - graph's positions ─► lag of each partition ─► behind or not, caught up or not
    end offsets at a time ─► all of them applied ─► the graph is complete up to that time

The broker is asked on the updater's own thread, between two polls: a Kafka consumer that is polled on one thread keeps
another that asks it something waiting for as long as it is polled.
"""

from __future__ import annotations

import time
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
    """Knows the lag of all logs as of the last look. `look` is the updater's; the rest may be read from any thread.

    A broker that does not answer leaves the last known lag standing, and the updater goes on.
    """

    def __init__(
        self,
        applied: Callable[[], Positions],
        logs: Sequence[HasEnds],
        settings: UpdaterSettings,
        metrics: UpdaterMetrics,
        *,
        complete: Callable[[int], None] = lambda _: None,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        """`complete` hears up to which time of the wall clock the graph holds all that the logs held."""
        self._applied = applied
        self._logs = list(logs)
        # A partition that gives nothing has no position in the graph: it stands where its source began.
        self._started_at = {place: offset for log_ in logs for place, offset in log_.positions.items()}
        self._interval_s = settings.lag_interval_s
        self._metrics = metrics
        self._behind = Hysteresis(settings.behind_enter_records, settings.behind_leave_records)
        self._next_s = 0.0
        self._target: Positions | None = None
        self._anew = False
        self._ends: Positions | None = None
        self._complete = complete
        self._clock_us = clock_us
        self._looked: tuple[int, Positions] | None = None
        self._told: set[tuple[str, int]] = set()

    @property
    def behind(self) -> bool:
        """Whether the graph is behind its log, with hysteresis."""
        return self._behind.on

    def look_anew(self) -> None:
        """Make the next look, which is due at once, the one that `caught_up` is about; from any thread."""
        self._anew = True

    def moved(self) -> None:
        """Forget what was asked of other partitions than are read from now on; the next look is due at once.

        Their records are no longer applied here, so they would be waited for in vain, and what a look has found says
        nothing of those that came.
        """
        self._looked = self._ends = None
        self._anew = True

    def caught_up(self) -> bool:
        """Whether everything is applied that the logs held at the first look, or the one anew; False before it."""
        return not self._anew and self._target is not None and not self._beyond(self._target)

    @property
    def knows_ends(self) -> bool:
        """Whether there is a log that can be asked for its end."""
        return bool(self._logs)

    def waiting(self) -> list[tuple[str, int]] | None:
        """The partitions with records that were not applied at the last look; None before the first."""
        return None if self._ends is None else self._beyond(self._ends)

    def look(self, *, now_s: float | None = None) -> None:
        """Asks every log for its end when it is time to; ``now_s`` is time.monotonic's."""
        now_s = time.monotonic() if now_s is None else now_s
        self._settle()
        if now_s < self._next_s and not self._anew:
            return
        self._next_s = now_s + self._interval_s
        anew = self._anew  # as it was before the logs are asked
        looked_us = self._clock_us()
        try:
            ends = {place: end for log_ in self._logs for place, end in log_.end_positions().items()}
        except StreamError as error:
            log.warning("the broker did not say how far behind the graph is", error=str(error))
            return
        applied = self._applied()
        beyond = [place for place, end in ends.items() if self._at(place, applied) > end]
        if beyond:  # a topic that was made anew, or has lost its end: nobody has caught up with that; reading it raises
            log.error("the log ends before what the graph holds of it", partitions=beyond)
            return
        self._ends = ends
        if self._target is None or anew:
            self._target = ends
        if anew:  # after its target stands: caught_up is asked by other threads
            self._anew = False
        if self._looked is None:  # an older look is waited for: what is always behind is complete now and then
            self._looked = looked_us, ends
            self._settle()
        for topic, partition in self._told - ends.keys():
            self._metrics.lag.remove(topic, str(partition))  # another updater reads it, and tells
        self._told = set(ends)
        total = 0
        for (topic, partition), end in ends.items():
            lag = max(0, end - self._at((topic, partition), applied))
            self._metrics.lag.labels(topic=topic, partition=str(partition)).set(lag)
            total += lag
        self._metrics.behind.set(self._behind.update(total))

    def _settle(self) -> None:
        """Says that the graph is complete up to the last look once all is applied that the logs held then."""
        if self._looked is None:
            return
        looked_us, ends = self._looked
        if ends and not self._beyond(ends):
            self._complete(looked_us)
            self._looked = None

    def _beyond(self, ends: Positions) -> list[tuple[str, int]]:
        """The partitions that are not applied up to these ends."""
        applied = self._applied()
        return [place for place, end in ends.items() if self._at(place, applied) < end]

    def _at(self, place: tuple[str, int], applied: Positions) -> int:
        return applied.get(place, self._started_at.get(place, 0))
