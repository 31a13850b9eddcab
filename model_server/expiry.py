"""Deadlines of everything that is awaited, on one timer: a request costs a place in a heap, not a timer of its own.

watch ─► heap by deadline ─► the timer of the earliest ─► DeadlinePassedError for what is not answered by then
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from typing import Any
from weakref import ReferenceType, ref

from model_server.errors import DeadlinePassedError

# Futures that are done leave the heap at their deadline, or when it has grown to twice what it held; not below this.
PRUNE_FROM = 1_024


class Expiry:
    """Ends futures at their deadlines; belongs to the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # Weak, so that an answer's memory is used for the next one at once, and not only after its deadline.
        self._heap: list[tuple[float, int, ReferenceType[asyncio.Future[Any]]]] = []
        self._number = 0
        self._prune_at = PRUNE_FROM
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = math.inf

    def __len__(self) -> int:
        return len(self._heap)

    def watch(self, future: asyncio.Future[Any], deadline_s: float) -> None:
        """Lets `future` fail with DeadlinePassedError unless it is done by its deadline (time.monotonic)."""
        self._number += 1
        heapq.heappush(self._heap, (deadline_s, self._number, ref(future)))
        if deadline_s < self._timer_s:
            self._arm(deadline_s)
        if len(self._heap) >= self._prune_at:
            self._heap = [entry for entry in self._heap if _waits(entry[2]())]
            heapq.heapify(self._heap)
            self._prune_at = max(PRUNE_FROM, 2 * len(self._heap))

    def close(self) -> None:
        """Stops watching."""
        if self._timer is not None:
            self._timer.cancel()
        self._heap.clear()

    def _arm(self, deadline_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = deadline_s
        self._timer = self._loop.call_later(max(0.0, deadline_s - time.monotonic()), self._expire)

    def _expire(self) -> None:
        self._timer, self._timer_s = None, math.inf
        now_s = time.monotonic()
        while self._heap and (self._heap[0][0] <= now_s or not _waits(self._heap[0][2]())):
            future = heapq.heappop(self._heap)[2]()
            if future is not None and not future.done():
                future.set_exception(DeadlinePassedError("the deadline passed before the answer was there"))
        if self._heap:
            self._arm(self._heap[0][0])


def _waits(future: asyncio.Future[Any] | None) -> bool:
    return future is not None and not future.done()
