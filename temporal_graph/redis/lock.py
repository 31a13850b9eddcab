"""Erasures have a graph to themselves: while one is at work nobody else writes, and after it all look anew.

    idle at k ─► account, then all fences say -n ─► rows are purged ─► account, then all fences say n ─► idle at n

Every guarded script is told which erasure its writer has seen the end of, and refuses where the fence says another. So
what a writer has found of tombstones is true when it writes, without any order between its steps and the eraser's. One
that is dead holds the lock until another writer has waited long enough without a sign of life; what it began is done
by whoever applies its batch again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Self, TypeVar

import structlog

from temporal_graph.redis.account import Account
from temporal_graph.redis.erasure_scripts import BEAT, LOCK, SET_ERASURES
from temporal_graph.redis.errors import ErasingError, StoreError
from temporal_graph.redis.keys import SLICES
from temporal_graph.redis.scripts import NEXT_TOKEN
from temporal_graph.redis.shards import Shards

log = structlog.get_logger(__name__)
T = TypeVar("T")

PATIENCE_S: Final = 15.0
"""Without a sign of life for so long an eraser is taken for dead; longer than a shard may be away within its steps."""
_PAUSE_S = 0.02


class Lock:
    """One writer's view of a graph's erasures: `erasures` is the last that it knows, less than 0 at work."""

    def __init__(self, shards: Shards, account: Account, graph: str, erasures: int) -> None:
        self._shards, self._account, self._graph = shards, account, graph
        self.erasures = erasures

    def patiently(self, step: Callable[[], T]) -> T:
        """Does a step that guarded scripts may refuse, from its begin again after each erasure of another writer."""
        told, since_s = None, time.monotonic()
        while True:
            with suppress(ErasingError):
                if self.erasures >= 0:
                    return step()
            [(erasures, beats)] = self._shards.run(BEAT, [(0, (self._account.key, 0))])
            if told != (erasures, beats):
                told, since_s = (erasures, beats), time.monotonic()
            elif time.monotonic() - since_s > PATIENCE_S:
                log.warning("an erasure stands still: its batch must be applied again", erasure=int(erasures))
                with suppress(ErasingError), self.held(by_force=True):
                    pass
                continue
            self.erasures = int(erasures)
            time.sleep(_PAUSE_S)

    @contextmanager
    def held(self, *, by_force: bool = False) -> Iterator[Self]:
        """Keeps all others from writing; raises ErasingError where another has erased since, or is at it."""
        if self.erasures < 0 and not by_force:
            raise ErasingError("another writer erases")
        before = b"" if by_force else self.erasures
        [number] = self._shards.run(NEXT_TOKEN, [(0, (self._account.key, self._graph.encode()))])
        self._say(before, -number)
        try:
            yield self
        except StoreError:
            with suppress(StoreError):  # another takes it, after a while
                self._say(-number, number)
            raise
        self._say(-number, number)

    def beat(self) -> None:
        """Gives a sign of life."""
        self._shards.run(BEAT, [(0, (self._account.key, 1))])

    def _say(self, before: bytes | int, now: int) -> None:
        self._shards.run(SET_ERASURES, [(0, (self._account.key, self._graph.encode(), before, now))])
        names = self._account.names(self._graph)
        self._shards.run(LOCK, [(number, (names.fence(number), before, now)) for number in range(SLICES)])
        self.erasures = now
