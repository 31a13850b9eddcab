"""When the event loop has read all that had come: after some of its turns brought nothing more.

begin ─► turn ─► more came: count anew
            └► nothing: one turn less ─► none left, or the time is over ─► then
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

# So many turns without anything more: whatever had come is read.
QUIET_TURNS = 8
# gRPC's own threads read the connections. Where they share a core with this one, turns that leave them no time are
# quiet whatever has come: batches of forty were of six. A yield in every turn gains no more, and leaves more time to
# other processes on the core.
YIELD_EVERY = 4


class Quiet:
    """Counts the event loop's turns; belongs to it."""

    def __init__(
        self,
        count: Callable[[], int],
        then: Callable[[], None],
        *,
        limit_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`count` says how much has come, `then` is called when it is all, or `limit_s` after `begin`."""
        self._count = count
        self._then = then
        self._limit_s = limit_s
        self._clock_s = clock_s
        self._loop = asyncio.get_running_loop()
        self._until_s: float | None = None

    @property
    def counting(self) -> bool:
        """Whether `then` will be called."""
        return self._until_s is not None

    def begin(self) -> None:
        """Counts from now on, unless it does already."""
        if self._until_s is None:
            self._until_s = self._clock_s() + self._limit_s
            self._loop.call_soon(self._turn, self._count(), QUIET_TURNS)

    def _turn(self, before: int, left: int) -> None:
        assert self._until_s is not None
        if left % YIELD_EVERY == 0:
            os.sched_yield()
        count = self._count()
        left = QUIET_TURNS if count > before else left - 1
        if left and self._clock_s() < self._until_s:
            self._loop.call_soon(self._turn, count, left)
            return
        self._until_s = None
        self._then()
