"""The write face of the graph in Redis: RowEvents in, rows and lists out, by any number of fenced writers.

    events ─► judged by the native core ─► frames appended to rows ─► entries added to lists ─► positions

Each step is over on all shards before the next begins: a list never names a row that is not there, and a position never
stands for an event that is not. A step done twice changes nothing, so a batch that was cut off is applied again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Self

import numpy as np
import structlog
from numpy.typing import NDArray

from temporal_graph.errors import ArenaFullError
from temporal_graph.graph import Applied, TemporalGraph
from temporal_graph.redis.account import NAMESPACE, Account, Place, Positions, State, field_of
from temporal_graph.redis.erasing import Erasing, Removed, own_items
from temporal_graph.redis.erasure_scripts import OWN
from temporal_graph.redis.errors import RecordsLostError, StoreLostError
from temporal_graph.redis.frames import ERASE, openings, pack, unpack
from temporal_graph.redis.keys import SLICES, time_bytes
from temporal_graph.redis.lock import Lock
from temporal_graph.redis.row_event import Change, EventReader
from temporal_graph.redis.scripts import ADD_CHILDREN, APPEND_VERSIONS, CLAIM, NEXT_TOKEN, SET_FIELDS
from temporal_graph.redis.shards import Item, Shards
from temporal_graph.redis.tombstones import NEVER_US, Tombstones
from temporal_graph.schema import Schema
from temporal_graph.time_rule import ALWAYS_US
from temporal_graph.view import Erased

log = structlog.get_logger(__name__)

Int64 = NDArray[np.int64]

_JUDGE_BYTES: Final = 1 << 30
_JUDGED_BYTES_MAX: Final = 32 << 20
"""Bytes of events after which the judge begins anew: it keeps what it has judged, and only its verdicts are wanted."""


class RedisGraph:
    """A graph in Redis and a writer's right to its partitions. One thread; close it, or use it as a context manager.

    A partition belongs to the writer that claimed it last. One that never claimed it does so with its first batch; one
    that was overtaken is refused with StaleWriterError, whatever it tries to write.
    """

    def __init__(self, schema: Schema, shards: Shards, account: Account, state: State) -> None:
        self.schema: Final = schema
        self._shards = shards
        self._account = account
        self._graph = state.graph
        self._names = account.names(state.graph)
        self._reader = EventReader(schema)
        self._parents = [schema.table_index(link.parent) for link in schema.links]
        self._links_of = [
            tuple(number for number, link in enumerate(schema.links) if link.child == table.name)
            for table in schema.tables
        ]
        self._tombstones = Tombstones(schema, shards, self._names, self._reader)
        self._lock = Lock(shards, account, state.graph, state.erasures)
        self._removed = Removed()
        self._tokens: dict[Place, int] = {}
        self._judge = TemporalGraph.create(schema, arena_bytes=_JUDGE_BYTES)
        self._judged = 0
        self.watermark_us = ALWAYS_US
        self.erasures = 0
        """Counts how often this writer erased something: one look tells whether `erased` has changed."""

    @classmethod
    def open(cls, url: str, schema: Schema, *, namespace: str = NAMESPACE, replicas: int | None = None) -> Self:
        """Go on with the graph that Redis holds; begin one where it holds none, or has lost a part of it.

        Args:
            url: redis://host:port, of one Redis or of any node of a cluster.
            schema: its tables and links, none with a retention.
            namespace: begins every key; graphs of several schemas can stand side by side.
            replicas: how many replicas of each shard must have a write before positions pass it; None: one, where every
            shard has any, so that one that takes over lacks nothing that positions stand for.

        Raises:
            SchemaMismatchError: Redis holds a graph of another schema.
            StoreError: Redis cannot be reached or used; which and why.
        """
        shards = Shards(url, replicas=replicas)
        try:
            account = Account(shards, schema, namespace)
            state = account.state()
            if state is None or not state.current or not account.whole(state.graph):
                if state is not None and not state.current:
                    log.warning("the graph in Redis is laid out by another version: it is built anew")
                elif state is not None:
                    log.warning("Redis has lost a part of the graph: it is built anew", positions=len(state.positions))
                state = account.begin(state)
            return cls(schema, shards, account, state)
        except BaseException:
            shards.close()
            raise

    @property
    def graph(self) -> str:
        """The letters of this building of the graph; another has others."""
        return self._graph

    @property
    def positions(self) -> dict[Place, int]:
        """The next offset of every partition that the graph contains; raises StoreLostError where it was replaced."""
        return self._state().positions

    def expect(self, ends: Positions) -> None:
        """Let the graph serve once its positions have reached these; only the first word counts."""
        self._account.expect(self._graph, ends)

    def keep_topic(self, topic: str, topic_id: str) -> str:
        """Keep which topic the positions are of, unless that is known; return the id that is kept."""
        return self._account.keep_topic(self._graph, topic, topic_id)

    def set_complete_time(self, time_us: int) -> None:
        """Say up to which wall-clock time all that the log held of this writer's partitions is in the graph."""
        self._account.complete(self._graph, self._tokens, time_us)

    def hold(self, places: Iterable[Place], begin_of: Callable[[Place], int]) -> dict[Place, int]:
        """Take these partitions over, let go of all others, and return where each of them goes on.

        One that the graph does not know goes on where the log has its first record, by `begin_of`. That is kept at
        once: who takes it over next, after retention has passed it, is told of the loss and does not begin later.

        Raises:
            StaleWriterError: another has claimed one of them meanwhile.
            RecordsLostError: the log has lost the begin of a partition that came after the graph was begun.
        """
        wanted = list(places)
        self.claim(wanted)
        self._tokens = {place: self._tokens[place] for place in wanted}
        state = self._state()
        begun = {place: begin_of(place) for place in wanted if place not in state.positions}
        at_first = state.until or {}
        topics = {topic for topic, _ in at_first}
        for (topic, number), at in begun.items():
            if at > 0 and topic in topics and (topic, number) not in at_first:
                raise RecordsLostError(f"{topic}[{number}]: it came after the graph was begun, and lost its first {at}")
        if begun:
            self.settle(begun)
        return {place: begun.get(place, state.positions.get(place, 0)) for place in wanted}

    def claim(self, places: Iterable[Place]) -> None:
        """Take partitions over: from here on no earlier writer of them can write.

        Raises:
            StaleWriterError: another has claimed one of them meanwhile.
        """
        wanted = list(places)
        if not wanted:
            return
        [token] = self._shards.run(NEXT_TOKEN, [(0, (self._account.key, self._graph.encode()))])
        fields = [field_of(place) for place in wanted]
        items: list[Item] = [
            (number, (self._names.fence(number), field, token)) for number in range(SLICES) for field in fields
        ]
        self._shards.run(CLAIM, items)
        self._tokens.update(dict.fromkeys(wanted, int(token)))

    def apply(
        self,
        events: Sequence[bytes],
        *,
        broker_time_us: Int64 | None = None,
        topic: str = "",
        partition: NDArray[np.int32] | None = None,
        offset: Int64 | None = None,
        backfill: bool = False,
        positions: Mapping[Place, int] | None = None,
    ) -> Applied:
        """Apply serialized RowEvents and then publish their positions; arguments as `TemporalGraph.apply`.

        Positions of a batch of which some is rejected wait for `settle`: they would outlive a writer that dies before
        it has put what was rejected somewhere safe.
        A batch without positions is written in the name of all partitions that were claimed. A duplicate that says the
        same in other bytes counts as applied; readers see one version.

        Raises:
            StaleWriterError: another writer has claimed a partition of the batch.
            StoreLostError: a part of the graph is gone: open it again, which begins it anew.
            StoreUnavailableError: a shard is away; apply the batch again.
        """
        places = list(positions) if positions else list(self._tokens)
        self.claim(place for place in places if place not in self._tokens)
        if not places:
            raise ValueError("expected positions, or a partition that was claimed")
        known = broker_time_us, partition, offset
        verdict = self._judged_as(list(events), known, topic=topic, backfill=backfill)
        rejected = {one.index: one for one in verdict.rejected}
        changes = []
        for index, event in enumerate(events):
            if index not in rejected:
                place = None
                if partition is not None and offset is not None:
                    place = topic, int(partition[index]), int(offset[index])
                at_us = ALWAYS_US if broker_time_us is None else int(broker_time_us[index])
                changes.append(self._reader.read(event, place=place, broker_time_us=at_us, backfill=backfill))
        applied, erased = self._lock.patiently(lambda: self._write(changes, places))
        if positions and not rejected:
            self.settle(positions)
        self.watermark_us = max([self.watermark_us, *(change.event_time_us for change in changes)])
        duplicate = len(changes) - applied - erased
        return Applied(applied, duplicate, tuple(rejected[index] for index in sorted(rejected)), erased)

    def settle(self, positions: Mapping[Place, int]) -> None:
        """Publish the positions of a batch of which some was rejected: what was rejected is safe elsewhere by now."""
        fields = [(self._names.positions, field_of(place), at) for place, at in positions.items()]
        items: list[Item] = [(0, field) for field in fields]
        self._lock.patiently(lambda: self._shards.run(SET_FIELDS, items, head=self._head(positions)))

    def bytes_used(self) -> int:
        """The memory of all shards, replicas not counted, with whatever else they hold."""
        return self._shards.bytes_used()

    def close(self) -> None:
        """Close the connections; claims stay until another writer makes them."""
        self._judge.close()
        self._shards.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _state(self) -> State:
        state = self._account.state()
        if state is None or state.graph != self._graph:
            raise StoreLostError("the graph was begun anew")
        return state

    def _judged_as(
        self,
        events: list[bytes],
        known: tuple[Int64 | None, NDArray[np.int32] | None, Int64 | None],
        *,
        topic: str,
        backfill: bool,
    ) -> Applied:
        """What the native core says of a batch; only what it refuses is of interest."""
        broker_time_us, partition, offset = known
        for fresh in (False, True):
            if fresh or self._judged > _JUDGED_BYTES_MAX:
                self._judge.close()
                self._judge, self._judged = TemporalGraph.create(self.schema, arena_bytes=_JUDGE_BYTES), 0
            self._judged += sum(map(len, events))
            try:
                return self._judge.apply(
                    events,
                    broker_time_us=broker_time_us,
                    topic=topic,
                    partition=partition,
                    offset=offset,
                    backfill=backfill,
                )
            except ArenaFullError:
                if fresh:
                    raise
        raise AssertionError("unreachable")

    def _head(self, places: Iterable[Place]) -> list[bytes | int]:
        """What guarded scripts are told: each partition, and this writer's token."""
        told = [word for place in places for word in (field_of(place), self._tokens[place])]
        return [self._lock.erasures, len(told) // 2, *told]

    def erased(self, table: str) -> Erased:
        """Return what this writer's erasures have removed of a table."""
        index, removed = self.schema.table_index(table), self._removed
        return Erased(removed.rows[index], removed.versions[index], max(removed.links[index], 0), 0)

    def _write(self, changes: Sequence[Change], places: Sequence[Place]) -> tuple[int, int]:
        """Erasures first, then what is left; returns how many changed something, and how many are of what is erased."""
        asked = [change for change in changes if change.version.operation == ERASE]
        rest = [change for change in changes if change.version.operation != ERASE]
        applied = self._erase_asked(asked, places) if asked else 0
        if not self._lock.erasures:  # nothing was ever erased
            return applied + self._append(rest, self._head(places)), 0
        around = [(change.entity, change.version) for change in rest]
        while raised := self._tombstones.raised(rest, found := self._tombstones.around(around)):
            self._erase(raised, places)
        judged, head = self._tombstones.judge(rest, found), self._head(places)
        self._shards.run(OWN, own_items(self._names, judged.owned), head=head)
        graves = [(self._names.tombstone(ref), named) for ref, named in judged.named.items()]
        self._shards.run(SET_FIELDS, [(number, (key, b"row", named)) for (number, key), named in graves], head=head)
        return applied + self._append(judged.kept, head), judged.dropped

    def _erase_asked(self, asked: Sequence[Change], places: Sequence[Place]) -> int:
        """Does the erasures that events ask for, unless they were done; returns how many said more than others."""
        refs = [self._tombstones.ref(change.entity) for change in asked]
        done_us = {ref: tombstone.asked_us for ref, tombstone in self._tombstones.look(refs).items()}
        until_us: dict[bytes, int] = {}
        more = 0
        for ref, change in zip(refs, asked, strict=True):
            if change.event_time_us > done_us.get(ref, NEVER_US):
                done_us[ref] = until_us[change.entity] = change.event_time_us
                more += 1
        if until_us:
            self._erase(until_us, places)
            marks = [(self._names.tombstone(self._tombstones.ref(named)), at) for named, at in until_us.items()]
            items: list[Item] = [(number, (key, b"asked", time_bytes(at))) for (number, key), at in marks]
            self._shards.run(SET_FIELDS, items, head=self._head(places))
        return more

    def _erase(self, until_us: Mapping[bytes, int], places: Sequence[Place]) -> None:
        with self._lock.held() as lock:
            erasing = Erasing(
                self.schema,
                self._shards,
                self._names,
                self._tombstones,
                head=self._head(places),
                removed=self._removed,
                beat=lock.beat,
            )
            erasing.run(until_us)
        self.erasures += 1
        self._judged = _JUDGED_BYTES_MAX + 1  # it may hold what was erased: the next batch begins it anew

    def _append(self, changes: Sequence[Change], head: Sequence[bytes | int]) -> int:
        """Rows first, then the lists that name them; returns how many versions were new."""
        frames = [pack(change.version, change.stored) for change in changes]
        rows: list[Item] = []
        for change, frame in zip(changes, frames, strict=True):
            number, key = self._names.row(change.entity)
            rows.append((number, (key, frame)))
        replies = self._shards.run(APPEND_VERSIONS, rows, head=head)
        applied = 0
        entries: dict[tuple[bytes, bytes], Item] = {}
        for change, (new, before) in zip(changes, replies, strict=True):
            applied += new
            table = change.entity[0]
            if not self._links_of[table]:
                continue
            versions = [version for version, _ in unpack(before)] + [change.version]
            for link, parent, time_us in openings(versions, self._links_of[table]):
                named = bytes((self._parents[link],)) + parent
                number, key = self._names.children(named, link)
                member = time_bytes(time_us) + change.entity[1:]
                entries[key, member] = number, (key, member)
        self._shards.run(ADD_CHILDREN, list(entries.values()), head=head)
        return applied
