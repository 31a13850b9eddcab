"""Rows of files as a source: at full speed, or as they happened, at a multiple of real time.

    file 0 ─┐
    file 1 ─┼─► merged by event time ─► (paced) ─► Batch, decoded, declared as a backfill
    file 2 ─┘

The position of a file is (topic, index of the file) -> next row, so a restart goes on at the row it stopped at. The
files and their order belong to the topic's name: reading others under the same name would mix their positions up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stream.batch import FILE_TOPIC_PREFIX, NO_TIMESTAMP_US, Batch, DeadLetter, Decoded, Positions, empty_batch
from stream.errors import ConfigurationError
from stream.file_rows import FileRows, FileTable, count_rows, read_rows
from stream.privacy import Privacy
from stream.values import RowError
from temporal_graph.schema import Schema
from temporal_graph.time_rule import ALWAYS_US


class FileSource:
    """Reads Parquet, CSV and JSONL files, several merged by event time, each in its own order.

    Rows of tables without time come first. `speed` None reads as fast as it is polled; 1.0 lets rows out as far apart
    as they happened, 60.0 an hour in a minute. Every row is a backfill: known when it happened unless its own column
    says otherwise. Rows that do not fit the schema are dead letters of the batch (from Parquet as JSON).
    """

    def __init__(
        self,
        schema: Schema,
        files: Sequence[FileTable],
        *,
        name: str | None = None,
        positions: Mapping[tuple[str, int], int] | None = None,
        speed: float | None = None,
        privacy: Privacy | None = None,
    ) -> None:
        if not files:
            raise ConfigurationError("expected at least one file")
        if speed is not None and speed <= 0:
            raise ConfigurationError(f"speed: expected more than 0, found {speed}")
        self.topic = FILE_TOPIC_PREFIX + (name or "+".join(file.path.stem for file in files))
        self._ends = [count_rows(file.path) for file in files]
        known = dict(positions or {})
        starts = [known.get((self.topic, index), 0) for index in range(len(files))]
        for file, start, end in zip(files, starts, self._ends, strict=True):
            if start > end:
                raise ConfigurationError(f"{file.path}: the graph has {start} rows of it, the file only {end}")
        self._next = list(starts)
        self._merge = _Merge(
            [read_rows(schema, file, start, privacy) for file, start in zip(files, starts, strict=True)]
        )
        self._pace = _Pace(speed) if speed is not None else None
        self._buffer: _Merged | None = None
        self._at = 0

    def poll(self, max_records: int, timeout_s: float) -> Batch:
        """Return the next rows that are due; see `Source.poll`. A file that cannot be read raises SourceError."""
        buffer = self._fill()
        if buffer is None:
            return empty_batch()
        end = min(self._at + max_records, len(buffer.values))
        if self._pace is not None:
            end = self._pace.wait_due(buffer.event_time_us, self._at, end, timeout_s)
            if end == self._at:
                return empty_batch()
        batch = buffer.batch(self.topic, self._at, end)
        self._at = end
        for (_, index), row in batch.next_positions().items():
            self._next[index] = row
        return batch

    @property
    def exhausted(self) -> bool:
        """Whether every file has been read to its end."""
        return self._fill() is None

    @property
    def positions(self) -> Positions:
        """The next row to be polled of every file."""
        return {(self.topic, index): row for index, row in enumerate(self._next)}

    def end_positions(self) -> Positions:
        """Return the rows of every file, as they were when it was opened."""
        return {(self.topic, index): rows for index, rows in enumerate(self._ends)}

    def lag_records(self) -> int:
        """Return the rows that were not polled yet."""
        return sum(max(0, end - row) for end, row in zip(self._ends, self._next, strict=True))

    def close(self) -> None:
        """Close the files."""
        self._merge.close()
        self._buffer = None

    def _fill(self) -> _Merged | None:
        while self._buffer is None or self._at >= len(self._buffer.values):
            self._buffer, self._at = self._merge.next(), 0
            if self._buffer is None:
                return None
        return self._buffer


class _Merged:
    """Rows of several files in event time; `file` int32 [N], the others as in FileRows."""

    def __init__(self, parts: list[tuple[int, FileRows, int, int]], order_us: NDArray[np.int64]) -> None:
        order = np.argsort(order_us, kind="stable")
        values = [value for _, rows, start, end in parts for value in rows.values[start:end]]
        files = [np.full(end - start, index, np.int32) for index, _, start, end in parts]
        self.values = values if len(parts) == 1 else [values[i] for i in order.tolist()]
        self.file = np.concatenate(files)[order]
        self.row = np.concatenate([rows.row[start:end] for _, rows, start, end in parts])[order]
        self.event_time_us = np.concatenate([rows.event_time_us[start:end] for _, rows, start, end in parts])[order]
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        self.refused: dict[int, RowError] = {}
        base = 0
        for _, rows, start, end in parts:
            for index, error in rows.refused.items():
                if start <= index < end:
                    self.refused[int(place[base + index - start])] = error
            base += end - start

    def batch(self, topic: str, start: int, end: int) -> Batch:
        values = self.values[start:end]
        batch = Batch(
            topic=topic,
            partition=self.file[start:end],
            offset=self.row[start:end],
            timestamp_us=np.full(end - start, NO_TIMESTAMP_US, np.int64),
            keys=[None] * (end - start),
            values=values,
            backfill=True,
        )
        times = self.event_time_us[start:end]
        index = np.arange(end - start, dtype=np.int32)
        dead: list[DeadLetter] = []
        refused = [at for at in self.refused if start <= at < end] if self.refused else []
        if refused:
            dead = [batch.dead_letter(at - start, self.refused[at].reason, self.refused[at].detail) for at in refused]
            index = np.delete(index, [at - start for at in refused])
            values = [values[i] for i in index.tolist()]
        decoded = Decoded(values, index, batch.timestamp_us[index], dead, times[index])
        return replace(batch, decoded=decoded)


class _Merge:
    """Merges chunks of files by event time without holding more than one chunk of each.

    Rows up to the earliest of the chunks' last times can be let out: no later chunk of a file in time order holds an
    earlier one. Files that are not in order keep their own order, and are merged by the newest time seen so far.
    """

    def __init__(self, files: Sequence[Iterator[FileRows]]) -> None:
        self._files = list(files)
        self._chunks: list[FileRows | None] = [None] * len(files)
        self._order_us: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * len(files)
        self._starts = [0] * len(files)
        self._newest_us = [ALWAYS_US] * len(files)

    def next(self) -> _Merged | None:
        """Return the next merged rows, or None at the end of all files."""
        for index, chunk in enumerate(self._chunks):
            if chunk is None or self._starts[index] >= len(chunk):
                self._load(index)
        live = [index for index, chunk in enumerate(self._chunks) if chunk is not None]
        if not live:
            return None
        bound_us = min(int(self._order_us[index][-1]) for index in live)
        parts, orders = [], []
        for index in live:
            chunk, start = self._chunks[index], self._starts[index]
            assert chunk is not None
            end = int(np.searchsorted(self._order_us[index], bound_us, side="right"))
            if end > start:
                parts.append((index, chunk, start, end))
                orders.append(self._order_us[index][start:end])
                self._starts[index] = end
        return _Merged(parts, np.concatenate(orders))

    def close(self) -> None:
        for file in self._files:
            close = getattr(file, "close", None)
            if close is not None:
                close()
        self._files = [iter(()) for _ in self._files]
        self._chunks = [None] * len(self._files)

    def _load(self, index: int) -> None:
        chunk = next(self._files[index], None)
        self._chunks[index], self._starts[index] = chunk, 0
        if chunk is not None:
            order_us = np.maximum.accumulate(np.maximum(chunk.event_time_us, self._newest_us[index]))
            self._order_us[index], self._newest_us[index] = order_us, int(order_us[-1])


class _Pace:
    """Lets rows out when they are due: their distance from the first row, divided by the speed."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._start_s: float | None = None
        self._first_us = 0

    def wait_due(self, times_us: NDArray[np.int64], at: int, end: int, timeout_s: float) -> int:
        """Return how far rows `at` to `end` are due, waiting for the first of them up to `timeout_s`."""
        timed = times_us[at:end]
        if self._start_s is None:
            known = timed[timed != ALWAYS_US]
            if not known.size:
                return end  # rows without time are due at once
            self._start_s, self._first_us = time.monotonic(), int(known[0])
        start_s = self._start_s
        # Rows keep their order, so one is due only when those before it are.
        due_us = np.maximum.accumulate(np.maximum(timed, self._first_us)) - self._first_us
        first_due_s = start_s + int(due_us[0]) / 1e6 / self._speed
        wait_s = min(first_due_s - time.monotonic(), timeout_s)
        if wait_s > 0:
            time.sleep(wait_s)
        passed_us = (time.monotonic() - start_s) * 1e6 * self._speed
        return at + int(np.searchsorted(due_us, passed_us, side="right"))
