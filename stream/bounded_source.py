"""A log read up to given offsets and no further: what a rebuild needs that is to end where another graph stands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stream.batch import Batch, Decoded, Positions
from stream.source import Source


class BoundedSource:
    """Gives of a source the records before `ends`, and nothing of partitions that are not named there.

    `begin` is where the source goes on from: a partition that it does not name is read from its beginning.
    """

    def __init__(self, source: Source, ends: Positions, *, begin: Positions | None = None) -> None:
        self._source = source
        self._ends = dict(ends)
        self._passed: Positions = {place: (begin or {}).get(place, 0) for place in self._ends}

    def poll(self, max_records: int, timeout_s: float) -> Batch:
        """As `Source.poll`."""
        batch = self._source.poll(max_records, timeout_s)
        for place, position in batch.next_positions().items():
            if place in self._passed:
                self._passed[place] = max(self._passed[place], position)
        return before(batch, self._ends)

    @property
    def positions(self) -> Positions:
        """The offset of the next record of each partition."""
        return dict(self._passed)

    def end_positions(self) -> Positions:
        """The given ends."""
        return dict(self._ends)

    @property
    def missing(self) -> Positions:
        """The partitions that have not come to their end, with the offset of the next record."""
        return {place: position for place, position in self._passed.items() if position < self._ends[place]}

    def lag_records(self) -> int:
        """How many offsets lie before the ends."""
        return sum(self._ends[place] - position for place, position in self.missing.items())

    @property
    def exhausted(self) -> bool:
        """Whether every partition has come to its end."""
        return not self.missing

    def close(self) -> None:
        """As `Source.close`."""
        self._source.close()


def before(batch: Batch, ends: Positions) -> Batch:
    """Return the records of a batch that lie before the ends of their partitions."""
    end = np.array([ends.get((batch.topic, number), 0) for number in batch.partition.tolist()], dtype=np.int64)
    kept = batch.offset < end
    passed = {place: min(at, ends[place]) for place, at in batch.passed.items() if place in ends}
    if kept.all():
        return batch if passed == batch.passed else replace(batch, passed=passed)
    index = np.flatnonzero(kept)
    return Batch(
        topic=batch.topic,
        partition=batch.partition[index],
        offset=batch.offset[index],
        timestamp_us=batch.timestamp_us[index],
        keys=[batch.keys[at] for at in index.tolist()],
        values=[batch.values[at] for at in index.tolist()],
        headers=lambda at: batch.headers(int(index[at])),
        backfill=batch.backfill,
        passed=passed,
        decoded=None if batch.decoded is None else _decoded(batch.decoded, kept, ends),
    )


def _decoded(decoded: Decoded, kept: np.ndarray, ends: Positions) -> Decoded:
    of_kept = kept[decoded.record_index]
    place = np.cumsum(kept) - 1
    times = decoded.event_time_us
    return Decoded(
        events=[event for event, stays in zip(decoded.events, of_kept.tolist(), strict=True) if stays],
        record_index=place[decoded.record_index[of_kept]].astype(np.int32),
        broker_time_us=decoded.broker_time_us[of_kept],
        dead=[each for each in decoded.dead if each.offset < ends.get((each.topic, each.partition), 0)],
        event_time_us=None if times is None else times[of_kept],
        ignored_fields=decoded.ignored_fields,
        skipped=decoded.skipped,
    )
