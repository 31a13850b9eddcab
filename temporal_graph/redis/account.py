"""Which graph a namespace holds: its letters, its schema, its stream positions, and whether it serves yet.

A graph that has lost a slice is not mended: another is begun, with letters of its own in every key, so that nothing
of the two can mix, and it serves once it holds what its log held when it was begun.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from temporal_graph.errors import SchemaMismatchError
from temporal_graph.redis.errors import StoreError, StoreNotReadyError
from temporal_graph.redis.keys import FENCE, LINKS_MAX, ROW_TABLES_MAX, SLICES, Names
from temporal_graph.redis.scripts import ACCOUNT, BEGIN, COUNT_FENCES, EXPECT, KEEP_TOPIC, RAISE_FENCES, SET_COMPLETE
from temporal_graph.redis.shards import Shards
from temporal_graph.schema import Schema

Place = tuple[str, int]
Positions = Mapping[Place, int]

NAMESPACE: Final = "ng"
"""Short, because it begins every key."""
_LETTERS_BYTES = 3
_LAYOUT = ":2"
"""Stands behind the schema's fingerprint. A version that lays graphs out otherwise takes them for another schema's;
this one begins anew what has no such mark."""


@dataclass(frozen=True, slots=True)
class State:
    """What a namespace holds; `until` are the positions from which on it serves, None before anyone has said.

    `complete_us` is, of each partition, up to which wall-clock time the graph holds all that its log held. `erasures`
    is the last erasure's number, less than 0 while it is at work. `current` is whether it is laid out as this version
    of the program lays it out; another's is not read.
    """

    graph: str
    positions: dict[Place, int]
    until: dict[Place, int] | None
    complete_us: dict[Place, int] = field(default_factory=dict)
    erasures: int = 0
    current: bool = True

    @property
    def serves(self) -> bool:
        """Whether the graph holds what its log held when it was begun."""
        return self.until is not None and all(self.positions.get(place, 0) >= at for place, at in self.until.items())

    @property
    def complete_time_us(self) -> int | None:
        """Up to when the graph holds all that its log held; None while a partition's writer has not said so."""
        places = {*(self.until or ()), *self.positions}  # those too that topics got later
        if not places or not places <= self.complete_us.keys():
            return None
        return min(self.complete_us[place] for place in places)


def field_of(place: Place) -> bytes:
    """Return how a partition is named in fences and positions."""
    return f"{place[0]}/{place[1]}".encode()


def place_of(field: bytes) -> Place:
    """Return the partition that is named so."""
    topic, _, number = field.decode().rpartition("/")
    return topic, int(number)


def _by_place(flat: list[bytes]) -> dict[Place, int]:
    return {place_of(name): int(number) for name, number in zip(flat[::2], flat[1::2], strict=True)}


class Account:
    """One namespace of a Redis, for graphs of one schema."""

    def __init__(self, shards: Shards, schema: Schema, namespace: str) -> None:
        """Raises StoreError for a namespace or a schema that a graph in Redis cannot have."""
        if re.fullmatch(r"[A-Za-z0-9_-]+", namespace) is None:
            raise StoreError(f"namespace {namespace!r}: expected letters, digits, - and _")
        if len(schema.tables) > ROW_TABLES_MAX or len(schema.links) > LINKS_MAX:
            raise StoreError(f"schema {schema.name}: at most {ROW_TABLES_MAX} tables and {LINKS_MAX} links")
        for table in schema.tables:
            if table.retention.age_us is not None or table.retention.degree is not None:
                raise StoreError(f"table {table.name!r} has a retention: a graph in Redis forgets nothing")
        self._shards = shards
        self._namespace = namespace
        self._key = f"{namespace}:{{0}}account".encode()
        self._fingerprint = schema.fingerprint()
        letterless = Names("")
        self._behind = letterless.positions, letterless.complete
        self._names: dict[str, Names] = {}

    @property
    def key(self) -> bytes:
        """Its Redis key, in slice 0."""
        return self._key

    def state(self) -> State | None:
        """Return what the namespace holds; None where there is nothing.

        Raises:
            SchemaMismatchError: it is a graph of another schema.
        """
        [found] = self._shards.run(ACCOUNT, [(0, (self._key, f"{self._namespace}:".encode(), *self._behind))])
        if not found:
            return None
        graph, written, until, flat, complete, erasures = found
        fingerprint, _, layout = written.decode().partition(":")
        if fingerprint != self._fingerprint:
            raise SchemaMismatchError(
                f"the graph in Redis was made under schema {fingerprint[:12]}, not under {self._fingerprint[:12]}"
            )
        expected = None if until is None else {(topic, number): at for topic, number, at in json.loads(until)}
        return State(
            graph.decode(),
            _by_place(flat),
            expected,
            _by_place(complete),
            int(erasures),
            f":{layout}" == _LAYOUT,
        )

    def serving(self) -> State:
        """Return the state of a graph that serves; raises StoreNotReadyError where none does."""
        state = self.state()
        if state is None:
            raise StoreNotReadyError("there is no graph in this namespace of Redis")
        if not state.current:
            raise StoreNotReadyError(
                "the graph in Redis is laid out by another version; a writer of this begins it anew"
            )
        if not state.serves:
            raise StoreNotReadyError("the graph in Redis does not yet hold what its log held when it was begun")
        return state

    def names(self, graph: str) -> Names:
        """Return the keys of a graph of this namespace."""
        names = self._names.get(graph)
        if names is None:
            names = Names(f"{self._namespace}:{graph}")
            self._names = {graph: names}  # of the one that serves: making them takes longer than a round
        return names

    def whole(self, graph: str) -> bool:
        """Say whether every slice of a graph is there."""
        names = self.names(graph)
        return all(self._shards.run(COUNT_FENCES, [(number, (names.fence(number),)) for number in range(SLICES)]))

    def begin(self, old: State | None) -> State:
        """Begin an empty graph in place of `old`, unless another has done so first; return the one that is there."""
        letters = secrets.token_hex(_LETTERS_BYTES)
        names = self.names(letters)
        self._shards.run(RAISE_FENCES, [(number, (names.fence(number),)) for number in range(SLICES)])
        replaced = old.graph if old is not None else ""
        arguments = (self._key, replaced.encode(), letters.encode(), (self._fingerprint + _LAYOUT).encode())
        [found] = self._shards.run(BEGIN, [(0, arguments)])
        if found == letters.encode():
            # Older graphs, also one of which the account was lost, and what others raised who came second.
            # Their fences first: a reader that is still in one must not take for empty what was dropped under it.
            # Who was frozen in the middle of it must not drop what was begun since.
            others = f"{self._namespace}:{'?' * len(letters)}{{*".encode()
            for pattern in (others + b"}" + FENCE, others):
                self._shards.drop(pattern, keep=names.prefix.encode(), going_on=lambda: self._holds(letters))
        state = self.state()
        if state is None:
            raise StoreError("the graph that was just begun is gone")
        return state

    def _holds(self, graph: str) -> bool:
        state = self.state()
        return state is not None and state.graph == graph

    def complete(self, graph: str, places: Iterable[Place], time_us: int) -> None:
        """Say up to which wall-clock time a graph holds all that its log held of partitions."""
        key = self.names(graph).complete
        self._shards.run(
            SET_COMPLETE, [(0, (self._key, graph.encode(), key, field_of(one), time_us)) for one in places]
        )

    def keep_topic(self, graph: str, topic: str, topic_id: str) -> str:
        """Keep which topic a graph's positions are of, unless that is known; return the id that is kept."""
        arguments = (self._key, graph.encode(), topic.encode(), topic_id.encode())
        [kept] = self._shards.run(KEEP_TOPIC, [(0, arguments)])
        return str(kept.decode())

    def expect(self, graph: str, ends: Positions) -> None:
        """Say from which positions on a graph serves; the first to say so is heard."""
        until = json.dumps([[topic, number, at] for (topic, number), at in sorted(ends.items())]).encode()
        self._shards.run(EXPECT, [(0, (self._key, graph.encode(), until))])
