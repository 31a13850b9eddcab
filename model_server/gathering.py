"""When what came together may be answered together: once the event loop has read it all.

    row ─► came alone: now
        └► others came a moment ago ─► turns of the event loop until no more come ─► now

Between a row's bytes and the backlog lie some turns of the event loop, each of which brings more rows where many came
at once. A batch that is taken before costs its base and two changes of threads for a few of them, and takes the time
in which the loop would have read the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

# So many turns without a new row: whatever had come is read.
QUIET_TURNS = 8
# A row that comes so long after the one before it is alone.
ALONE_S = 0.001
# No row waits longer for others.
GATHER_S = 0.005


class Gathering:
    """Counts the event loop's turns; all of it belongs to the event loop."""

    def __init__(
        self, waiting: Callable[[], int], ready: Callable[[], None], *, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        """`waiting` says how many rows wait, `ready` is called when they are all that had come."""
        self._waiting = waiting
        self._ready = ready
        self._clock_s = clock_s
        self._loop = asyncio.get_running_loop()
        self._until_s: float | None = None
        self._last_s = 0.0

    def row_came(self, *, urgent: bool) -> None:
        """Notes a row that waits now; an `urgent` one waits for nobody."""
        now_s = self._clock_s()
        alone = now_s - self._last_s > ALONE_S
        self._last_s = now_s
        if alone or urgent:
            self._ready()
        else:
            self.watch()

    def watch(self) -> None:
        """Waits for quiet, as rows are waiting and what else came with them is still to be read."""
        if self._until_s is None:
            self._until_s = self._clock_s() + GATHER_S
            self._loop.call_soon(self._turn, self._waiting(), QUIET_TURNS)

    def _turn(self, rows: int, left: int) -> None:
        assert self._until_s is not None
        waiting = self._waiting()
        left = QUIET_TURNS if waiting > rows else left - 1
        if left and self._clock_s() < self._until_s:
            self._loop.call_soon(self._turn, waiting, left)
            return
        self._until_s = None
        self._ready()
