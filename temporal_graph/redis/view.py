"""The read face of the graph in Redis: versions of rows and entries of lists, up to a cut-off, in one round.

    wants: rows and lists ─► one call a shard, all at once ─► what of it is visible ─► found

What a reader has of a row is not sent again: it says how much that is, and gets what it lacks.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from temporal_graph.redis.account import NAMESPACE, Account, State
from temporal_graph.redis.keys import Names, time_bytes, time_of
from temporal_graph.redis.scripts import READ
from temporal_graph.redis.shards import PATIENCE_S, TIMEOUT_S, Item, Shards
from temporal_graph.schema import Schema
from temporal_graph.time_rule import ALWAYS_US

_WANT = struct.Struct(">8sI8s")
_LIST = struct.Struct(">BI8s")
_FOUND = struct.Struct(">iI")
_COUNT = struct.Struct(">I")

UNKNOWN: Final = -1
"""The size of a row that nobody has named."""


@dataclass(frozen=True, slots=True)
class ListWant:
    """The newest `count` entries, up to a cut-off, of the children of a row over a link."""

    link: int
    count: int
    cutoff_time_us: int


@dataclass(frozen=True, slots=True)
class Want:
    """A row's versions up to a cut-off, less those of its first `size` bytes up to `had_cutoff_us`; and lists of it."""

    entity: bytes
    cutoff_time_us: int
    size: int = 0
    had_cutoff_us: int = ALWAYS_US
    lists: tuple[ListWant, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What a want has found: a row's size (UNKNOWN: nobody has named it), frames, of each list (time, child's key)."""

    size: int
    frames: bytes
    lists: tuple[tuple[tuple[int, bytes], ...], ...]


class RedisView:
    """A reader of the graph that a namespace of Redis holds. Any number of threads."""

    def __init__(self, schema: Schema, shards: Shards, account: Account) -> None:
        self.schema: Final = schema
        self._shards = shards
        self._account = account

    @classmethod
    def open(
        cls,
        url: str,
        schema: Schema,
        *,
        namespace: str = NAMESPACE,
        timeout_s: float = TIMEOUT_S,
        patience_s: float = PATIENCE_S,
    ) -> Self:
        """Connect to the graph of a namespace, which may be empty yet.

        `timeout_s` bounds the wait for a reply, `patience_s` how long a round is tried again; else arguments and errors
        are those of `RedisGraph.open`.
        """
        shards = Shards(url, timeout_s=timeout_s, patience_s=patience_s)
        try:
            return cls(schema, shards, Account(shards, schema, namespace))
        except BaseException:
            shards.close()
            raise

    def state(self) -> State:
        """Return which graph serves and its stream positions: all before them is in every answer made after this.

        Raises:
            StoreNotReadyError: none serves.
            SchemaMismatchError: it is of another schema.
            StoreUnavailableError: it cannot be asked.
        """
        return self._account.serving()

    def names(self, state: State) -> Names:
        """Return the keys of the graph that serves, for `read`."""
        return self._account.names(state.graph)

    def read(self, names: Names, wants: Sequence[Want], erasures: int | None = None) -> list[Found]:
        """Return what each want finds, from all shards at once.

        `erasures` is that of the state under which all that the reader has was read; None: it has nothing of any row.

        Raises:
            ErasingError: something was erased since, so what the reader has may be what was erased.
            StoreLostError: a slice of the graph is gone.
            StoreUnavailableError: a shard is away.
        """
        items: list[Item] = []
        for want in wants:
            number, key = names.row(want.entity)
            asked = _WANT.pack(time_bytes(want.cutoff_time_us), max(want.size, 0), time_bytes(want.had_cutoff_us))
            for one in want.lists:
                asked += _LIST.pack(one.link, one.count, time_bytes(one.cutoff_time_us))
            items.append((number, (key, asked)))
        head = [b"" if erasures is None else erasures]
        return [
            _found(want, reply) for want, reply in zip(wants, self._shards.run(READ, items, head=head), strict=True)
        ]

    def close(self) -> None:
        """Close the connections."""
        self._shards.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _found(want: Want, reply: bytes) -> Found:
    size, length = _FOUND.unpack_from(reply)
    at = _FOUND.size + length
    frames = reply[_FOUND.size : at]
    lists = []
    for _ in want.lists:
        (count,) = _COUNT.unpack_from(reply, at)
        at += _COUNT.size
        entries = []
        for _ in range(count):
            (length,) = _COUNT.unpack_from(reply, at)
            at += _COUNT.size + length
            entries.append((time_of(reply[at - length : at - length + 8]), reply[at - length + 8 : at]))
        lists.append(tuple(entries))
    return Found(size, frames, tuple(lists))
