"""From what was asked to its neighborhoods: the one place where serving and batch prediction enter the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from graph_transformer.target import Target
from online_sampler.neighborhood import Neighborhood
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.schema import KeyType, Table
from temporal_graph.view import Key

# Where no business counts from.
INT64_MIN = int(np.iinfo(np.int64).min)


class Seed(Protocol):
    """What a question starts from, private parts hashed."""

    @property
    def event(self) -> bytes:
        """The row of a task about events: a serialized RowEvent."""

    @property
    def key(self) -> Key | None:
        """The entity of a task about entities; None of a task about events."""

    @property
    def cutoff_time_us(self) -> int:
        """What the question may know."""


class Asks(Protocol):
    """What is asked: a `Sampler`, or what answers as it does."""

    def sample_keys(self, table: str, keys: Sequence[Key], cutoff_time_us: NDArray[np.int64]) -> Neighborhood:
        """Around entities as of their cut-offs."""

    def sample_events(self, events: Sequence[bytes], cutoff_time_us: NDArray[np.int64]) -> Neighborhood:
        """Around rows that are not in the graph."""


def sample(sampler: Asks, target: Target, seeds: Sequence[Seed]) -> Neighborhood:
    """Returns the neighborhoods of B seeds, in order: of rows that are not in the graph, or of entities by key.

    An entity that nobody knows is a seed alone. Raises SeedError for an event that is none; the request reader lets
    none through.
    """
    cutoff_time_us = np.fromiter((seed.cutoff_time_us for seed in seeds), np.int64, len(seeds))
    if target.event_level:
        return sampler.sample_events([seed.event for seed in seeds], cutoff_time_us)
    keys = [seed.key for seed in seeds if seed.key is not None]
    return sampler.sample_keys(target.table, keys, cutoff_time_us)


def key_of(key: row_event_pb2.Key) -> Key | None:
    """Returns a key as the graph takes it: None without parts, the part itself for one, a tuple for several."""
    parts = tuple(part.integer if part.WhichOneof("part") == "integer" else part.text for part in key.parts)
    return None if not parts else parts[0] if len(parts) == 1 else parts


def write_key(target: row_event_pb2.Key, key: Key | None) -> None:
    """Writes a key of the graph into the wire's form, which has no parts yet; None has none."""
    parts = () if key is None else key if isinstance(key, tuple) else (key,)
    for part in parts:
        if isinstance(part, str):
            target.parts.add(text=part)
        else:
            target.parts.add(integer=part)


def unknown_key(table: Table, number: int = 0) -> row_event_pb2.Key:
    """Returns a key that no row has: of somebody who does not exist, or of the number-th row that was given none."""
    parts = [
        row_event_pb2.KeyPart(integer=INT64_MIN + number)
        if column.type is KeyType.INTEGER
        else row_event_pb2.KeyPart(text=f"\x00{number}")
        for column in table.primary_key
    ]
    return row_event_pb2.Key(parts=parts)
