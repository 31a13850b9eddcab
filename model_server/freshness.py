"""Waiting for the graph to reach a position: read your own writes, within the deadline.

All waiters share one task that reads the graph's position every poll interval and ends when nobody waits: a thousand
waiting requests cost one read per interval.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from model_server.errors import NotFreshError
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

Offsets = Mapping[tuple[str, int], int]


@dataclass(frozen=True, slots=True)
class Token:
    """An event's place in the log: the graph is fresh enough once it has applied this offset."""

    topic: str
    partition: int
    offset: int

    def reached_by(self, offsets: Offsets) -> bool:
        """Whether a graph whose first offsets not applied are `offsets` contains the event."""
        return offsets.get((self.topic, self.partition), -1) > self.offset


def _token_of(request: service_pb2.ScoreRequest | service_pb2.RankRequest) -> Token:
    token = request.freshness_token
    return Token(token.topic, token.partition, token.offset)


def _not_fresh(token: Token, offsets: Offsets) -> NotFreshError:
    at = offsets.get((token.topic, token.partition))
    seen = "nothing of that partition" if at is None else f"offsets below {at}"
    wanted = f"offset {token.offset} of {token.topic}[{token.partition}]"
    return NotFreshError(f"the graph has applied {seen}, the token asks for {wanted}")


@dataclass(slots=True, eq=False)
class _Waiter:
    token: Token
    deadline_s: float
    future: asyncio.Future[bool]


class Freshness:
    """Holds requests back until the graph has applied their tokens. Belongs to one event loop."""

    def __init__(self, offsets: Callable[[], Offsets], *, poll_s: float, reserve_s: float = 0.0) -> None:
        """`reserve_s` is kept back from every deadline, so that the refusal reaches the caller before it passes."""
        self._offsets = offsets
        self._poll_s = poll_s
        self._reserve_s = reserve_s
        self._waiters: set[_Waiter] = set()
        self._poller: asyncio.Task[None] | None = None
        self.polls = 0

    async def wait_for(self, request: service_pb2.ScoreRequest | service_pb2.RankRequest, deadline_s: float) -> float:
        """As `wait`, for the request's token if it has one; without one it returns 0 at once."""
        if not request.HasField("freshness_token"):
            return 0.0
        return await self.wait(_token_of(request), deadline_s)

    async def wait(self, token: Token, deadline_s: float) -> float:
        """Returns the seconds waited once the graph has applied `token`.

        `deadline_s` is a time.monotonic instant. Raises NotFreshError when it comes first.
        """
        start_s = time.monotonic()
        if token.reached_by(self._offsets()):
            return 0.0
        waiter = _Waiter(token, deadline_s - self._reserve_s, asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            fresh = await waiter.future
        finally:
            self._waiters.discard(waiter)
        if not fresh:
            raise _not_fresh(token, self._offsets())
        return time.monotonic() - start_s

    @staticmethod
    def hold(request: service_pb2.ScoreRequest, offsets: Offsets) -> None:
        """Raises NotFreshError for an answer at `offsets` that lacks the request's token.

        What was waited for was seen of one graph; another may have been begun in its place before the answer was made.
        """
        if request.HasField("freshness_token"):
            token = _token_of(request)
            if not token.reached_by(offsets):
                raise _not_fresh(token, offsets)

    async def _poll(self) -> None:
        try:
            while self._waiters:
                await asyncio.sleep(self._poll_s)
                self.polls += 1
                self._look(self._offsets(), time.monotonic())
        except Exception as error:  # noqa: BLE001 - see below
            # The position cannot be read: everyone who waits hears it, and the next waiter starts a new poller.
            for waiter in self._waiters:
                if not waiter.future.done():
                    waiter.future.set_exception(error)

    def _look(self, offsets: Offsets, now_s: float) -> None:
        for waiter in self._waiters:
            if waiter.future.done():
                continue
            if waiter.token.reached_by(offsets):
                waiter.future.set_result(True)
            elif now_s >= waiter.deadline_s:
                waiter.future.set_result(False)
