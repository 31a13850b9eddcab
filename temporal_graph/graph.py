"""The write face of the graph: serialized row events in, published rows out.

    RowEvent bytes ─► apply (native, GIL released) ─► rows, versions, links ─► publish ─► GraphView

One writer. Readers see whole batches: the rows of an `apply` and the stream positions given with it appear together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from temporal_graph import _native
from temporal_graph.columns import COLUMNS_BYTES, columns_file
from temporal_graph.errors import ArenaError, WriterBusyError
from temporal_graph.generations import CompleteTime, Generation, WriterLock
from temporal_graph.image import GraphImage
from temporal_graph.memory import Memory, memory_of
from temporal_graph.native_errors import translated
from temporal_graph.native_spec import native_links, native_tables
from temporal_graph.schema import Schema
from temporal_graph.time_rule import TIME_MAX_US
from temporal_graph.view import GraphView

ARENA_BYTES: Final = 4 << 30
"""The default size of an arena: address space, not memory; pages are taken as they are written."""

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rejected:
    """An event that is no RowEvent or does not fit the schema: where in the batch, a snake_case reason, the detail."""

    index: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a batch. A duplicate changed nothing; a change of what is erased was dropped."""

    applied: int
    duplicate: int
    rejected: tuple[Rejected, ...]
    erased: int = 0


@dataclass(frozen=True, slots=True)
class Evicted:
    """What a retention pass dropped."""

    rows: int
    entries: int


class TemporalGraph:
    """A live graph and the right to write it. Build it with `create`; close it, or use it as a context manager."""

    def __init__(
        self,
        schema: Schema,
        native: _native.Graph,
        complete: CompleteTime,
        *,
        taken: Generation | None = None,
        lock: WriterLock | None = None,
    ) -> None:
        self.schema: Final = schema
        self.generation: Final = 1 if taken is None else taken.number
        self.topic_ids: Final[dict[str, str]] = {}
        """Which topics the positions are of: each topic's id, by its name, as who reads the log learns it."""
        self._native: _native.Graph | None = native
        self._complete = complete
        self._taken = taken
        self._lock = lock
        self._published = False

    @classmethod
    def create(
        cls,
        schema: Schema,
        *,
        arena: Path | None = None,
        arena_bytes: int = ARENA_BYTES,
        columns: Path | None = None,
        columns_bytes: int = COLUMNS_BYTES,
        publish: bool = True,
        image: Path | None = None,
        standby: bool = False,
    ) -> Self:
        """Make a graph: empty, or as it was when an image was taken of it.

        Args:
            schema: its tables and links.
            arena: a folder (on tmpfs, for speed) whose arenas several processes map; None for memory of this process.
            arena_bytes: the arena's size; a sparse file or address space, never more than the machine maps.
            columns: a folder on disk for the columns of tables whose `storage` it is. With an arena's folder it must be
                given; without one the columns go with the graph, by default from the temporary directory.
            columns_bytes: the size of their file; sparse, too.
            publish: whether readers of the folder are sent to this generation at once. False lets a new writer catch
                up first; `publish_generation` then makes the switch.
            image: a file that `GraphImage` made; bounds and retention are those of `schema`. Of a graph with fewer
                tables, columns or links every row and version is taken over; what it had not is null.
            standby: build beside the folder's writer, unpublished; `take_place` then asks for the right to write.

        Raises:
            WriterBusyError: the folder has another writer.
            ArenaError: the arena can't be made, or `columns` is missing.
            ImageRefusedError: the image is damaged, of another layout, or has a table, column or link that the schema
                lacks or has otherwise, the first of which is named.
            ArenaFullError: the arena is too small for the image.
        """
        lock = None if arena is None or standby else WriterLock(arena)
        taken = None if arena is None else Generation(arena)
        try:
            complete = CompleteTime.create(taken)
            generation = 1 if taken is None else taken.number
            with columns_file(schema.tables_on_disk, columns, arena, generation) as file, translated():
                native = _native.Graph(
                    native_tables(schema),
                    native_links(schema),
                    fingerprint=schema.fingerprint(),
                    generation=generation,
                    bytes=arena_bytes,
                    path=None if taken is None else str(taken.arena),
                    columns=None if file is None else str(file),
                    columns_bytes=columns_bytes,
                    image=None if image is None else str(image),
                )
        except BaseException:
            if taken is not None:
                taken.discard()
                taken.close()
            if lock is not None:
                lock.close()
            raise
        graph = cls(schema, native, complete, taken=taken, lock=lock)
        if publish and not standby:
            graph.publish_generation()
        return graph

    def take_place(self) -> bool:
        """Take the right to write in the folder if nobody has it; whether this graph has it now.

        Raises:
            OvertakenError: another graph took it and serves: this one never will. Close it, and stand by anew.
        """
        if self._lock is not None or self._taken is None:
            return True
        with suppress(WriterBusyError):
            self._lock = WriterLock(self._taken.folder)
        self._taken.check()
        return self._lock is not None

    def publish_generation(self) -> None:
        """Send the readers of the folder to this generation. Without a folder there is nothing to do.

        Raises:
            WriterBusyError: this graph stands by.
        """
        if self._taken is None:
            return
        if self._lock is None:
            raise WriterBusyError(f"{self._taken.folder}: this graph stands by and has not taken the writer's place")
        self._lock.publish(self.generation)
        self._published = True

    def set_complete_time(self, time_us: int) -> None:
        """Tell all views that everything is in the graph that its log held at `time_us` of the wall clock."""
        self._complete.set(time_us)

    def apply(
        self,
        events: Sequence[bytes],
        *,
        broker_time_us: Int64 | None = None,
        topic: str = "",
        partition: NDArray[np.int32] | None = None,
        offset: Int64 | None = None,
        backfill: bool = False,
        positions: Mapping[tuple[str, int], int] | None = None,
    ) -> Applied:
        """Decode and apply serialized `nowgraph.v1.RowEvent`s, then publish them together with the positions.

        Args:
            events: the messages, in the order of the log.
            broker_time_us: int64 [N], the broker's append times, for tables whose known time it is.
            topic: where the batch came from. With partition and offset, the key of rows without a primary key.
            partition: int32 [N].
            offset: int64 [N].
            backfill: history whose known time is the event time; late and future are not judged.
            positions: the next offset of each (topic, partition), published in the same step.

        Raises:
            ArenaFullError: the arena is full. Events applied before stay unpublished; stop the writer.
        """
        places = [(name, number, next_offset) for (name, number), next_offset in (positions or {}).items()]
        batch = events if isinstance(events, list) else list(events)
        with translated():
            result = self._open().apply(
                batch,
                broker_time_us=broker_time_us,
                topic=topic,
                partition=partition,
                offset=offset,
                backfill=backfill,
                positions=places,
            )
        return _applied(result)

    def append(
        self,
        table: str,
        keys: Int64,
        *,
        event_time_us: Int64,
        known_time_us: Int64 | None = None,
        parents: Mapping[str, Int64] | None = None,
    ) -> Applied:
        """Insert whole columns of rows that have an integer key, integer links and no cells; all arrays int64 [N].

        `known_time_us` None says that it is the event time; `parents` maps each link of the table to its keys.
        """
        by_name = parents or {}
        links = [by_name[link.name] for link in self.schema.table(table).links]
        with translated():
            result = self._open().append(self.schema.table_index(table), keys, event_time_us, known_time_us, links)
        return _applied(result)

    def evict(self, *, as_of_us: int = TIME_MAX_US) -> Evicted:
        """Drop what the tables' retention no longer keeps, judged from record times; publishes.

        Age counts back from the newest event time, or from `as_of_us`, up to which time the log was read, where that is
        older: a row is not forgotten before a change of it is read that keeps it.
        """
        with translated():
            evicted = self._open().evict(as_of_us)
        return Evicted(evicted.rows, evicted.entries)

    @property
    def positions(self) -> dict[tuple[str, int], int]:
        """The next offset of every (topic, partition) that the published graph contains."""
        return self.view().position().offsets

    def image(self, path: Path) -> GraphImage:
        """Begin an image of the graph in a new file; raises ArenaError where it can't be made."""
        return GraphImage(self._open(), self.view(), path)

    @property
    def migrated(self) -> bool:
        """Whether the graph was made of an image with fewer tables, columns or links, or with columns elsewhere."""
        return self._open().migrated

    def memory(self) -> Memory:
        """Return the bytes of every part, counted by the allocator that gave them."""
        return memory_of(self._open().memory())

    def canonical_hash(self) -> str:
        """Return 32 hex digits over keys, versions and links: equal graphs, however they arrived, have equal hashes."""
        return self._open().canonical_hash()

    def readers(self) -> int:
        """Return how many reader slots living readers hold, the writer's own among them."""
        return self._open().readers()

    def dump(self) -> dict[str, Any]:
        """Return the whole graph as plain values, in the form of `reference.ReferenceGraph.dump`; for small graphs."""
        view = _native.View(self._open().arena)
        tables: dict[str, Any] = {}
        for index, table in enumerate(self.schema.tables):
            rows = range(view.row_count(index))
            keys = [key_text(key) for key in view.keys(index, np.arange(len(rows), dtype=np.int64))]
            versions: list[Any] = [view.row_versions(index, row) for row in rows]
            tables[table.name] = {
                key: {"versions": [list(version) for version in found]}
                for key, found in zip(keys, versions, strict=True)
                if found is not None
            }
        tables["links"] = {link.backward: self._children(view, i) for i, link in enumerate(self.schema.links)}
        return tables

    def _children(self, view: _native.View, link: int) -> dict[str, list[list[Any]]]:
        parent = self.schema.table_index(self.schema.links[link].parent)
        keys = view.keys(parent, np.arange(view.row_count(parent), dtype=np.int64))
        lists = ((key_text(key), view.row_children(link, row)) for row, key in enumerate(keys))
        return {key: [[time, key_text(child)] for time, child in found] for key, found in lists if found}

    def view(self) -> GraphView:
        """Return a read face of this graph in this process."""
        return GraphView(self.schema, self._open().arena, folder=None, complete=self._complete)

    def close(self) -> None:
        """Let go of the arena and of the right to write; views of this process keep the memory they hold.

        A generation that was never published serves nobody: its arena's file is removed.
        """
        self._native = None
        if self._taken is not None:
            if not self._published:
                self._taken.discard()
            self._taken.close()
            self._taken = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> _native.Graph:
        if self._native is None:
            raise ArenaError("the graph is closed")
        return self._native


def key_text(key: object) -> str:
    """Write a key as compact JSON: a list of its parts."""
    parts = list(key) if isinstance(key, tuple) else [key]
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":"))


def _applied(result: _native.Applied) -> Applied:
    rejected = tuple(Rejected(one.index, one.reason, one.detail) for one in result.rejected)
    return Applied(result.applied, result.duplicate, rejected, result.erased)
