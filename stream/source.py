"""Where records come from: one protocol for Kafka and files, and the chain of both.

history in files ─► ChainSource ─► Batch, Batch, ... ─► the updater
Kafka from given offsets ─┘
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from stream.batch import Batch, Positions


class Source(Protocol):
    """Records in batches. One thread polls; positions of what was applied are kept by the graph, not here."""

    def poll(self, max_records: int, timeout_s: float) -> Batch:
        """Return up to `max_records` of one topic: at once when there are any, empty when `timeout_s` passed.

        Raises:
            SourceError: the source cannot be read any more; GapError where records are lost.
        """

    def lag_records(self) -> int:
        """Return how many records are known to wait beyond those polled."""

    @property
    def exhausted(self) -> bool:
        """Whether no record will ever come again: true of files read to their end, never of Kafka."""

    def close(self) -> None:
        """Release connections and files; poll no more."""


@runtime_checkable
class HasEnds(Protocol):
    """A source that knows where its log ends."""

    def end_positions(self) -> Positions:
        """Return the offset that the next record of each partition will get."""


class Hysteresis:
    """A switch with two thresholds: on at `high` or above, off at `low` or below, in between as it was."""

    def __init__(self, high: int, low: int) -> None:
        if not 0 <= low < high:
            raise ValueError(f"expected 0 <= low < high, found low {low}, high {high}")
        self._high = high
        self._low = low
        self.on = False

    def update(self, value: int) -> bool:
        """Take the present value and return whether the switch is on."""
        if value >= self._high:
            self.on = True
        elif value <= self._low:
            self.on = False
        return self.on


class ChainSource:
    """Sources one after another: each is read to its end before the next begins. The bootstrap is files, then Kafka.

    Nothing is missing and nothing comes twice as long as the Kafka source starts at the offsets the files end at: each
    source resumes from the graph's positions by itself, so a restart in any part goes on there.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        if not sources:
            raise ValueError("expected at least one source")
        self._sources = list(sources)

    def poll(self, max_records: int, timeout_s: float) -> Batch:
        """Poll the first source that is not exhausted; see `Source.poll`."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            while len(self._sources) > 1 and self._sources[0].exhausted:
                self._sources.pop(0).close()
            remaining_s = max(0.0, deadline_s - time.monotonic())
            batch = self._sources[0].poll(max_records, remaining_s)
            if len(batch) or len(self._sources) == 1 or not self._sources[0].exhausted:
                return batch

    def lag_records(self) -> int:
        """Return the lag of all sources that are not yet read to their end."""
        return sum(source.lag_records() for source in self._sources)

    def end_positions(self) -> Positions:
        """Return where the logs of all remaining sources end, of those that know it."""
        ends: Positions = {}
        for source in self._sources:
            if isinstance(source, HasEnds):
                ends.update(source.end_positions())
        return ends

    @property
    def exhausted(self) -> bool:
        """Whether the last source is exhausted."""
        return len(self._sources) == 1 and self._sources[0].exhausted

    def close(self) -> None:
        """Close every source that is still open."""
        for source in self._sources:
            source.close()
