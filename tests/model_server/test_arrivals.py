"""Calls that come together are read together, each as itself: its context, its error, its end."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import pytest

from model_server import arrivals
from model_server.arrivals import UNREAD_LIMIT, Arrivals, came_s
from model_server.in_flight import InFlight
from model_server.quiet import QUIET_TURNS

_name: ContextVar[str] = ContextVar("name", default="")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine must not end the waiting for more calls."""
    monkeypatch.setattr(arrivals, "UNREAD_S", 60.0)


class Calls:
    """Calls whose work waits until it is told to end, and in which order they were begun."""

    def __init__(self) -> None:
        self.in_flight = InFlight()
        self.arrivals = Arrivals(self.in_flight)
        self.begun: list[bytes] = []
        self.end = asyncio.Event()

    def come(self, name: bytes, work: Callable[[], Awaitable[bytes]] | None = None) -> asyncio.Task[bytes]:
        """One more call."""

        async def waiting() -> bytes:
            self.begun.append(name)
            await self.end.wait()
            return name

        return asyncio.create_task(self.arrivals.answer(work or waiting))


async def turns(count: int) -> None:
    """Lets the event loop turn so often."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_call_alone_is_read_at_once() -> None:
    """While nothing is under way it waits for nobody, however many came before it, one after the other."""
    calls = Calls()
    calls.end.set()
    for _ in range(3):
        call = calls.come(b"a")
        await turns(2)
        assert calls.arrivals.unread() == 0
        assert await call == b"a"
    assert calls.begun == [b"a"] * 3


async def test_calls_that_come_together_are_read_together() -> None:
    """None while more come, then all of them in their order; how many are unread is known meanwhile."""
    calls = Calls()
    first = calls.come(b"0")
    await turns(2)
    others = []
    for number in range(1, 6):
        others.append(calls.come(b"%d" % number))
        await turns(QUIET_TURNS // 2)
    assert calls.begun == [b"0"]
    assert calls.arrivals.unread() == 5
    await turns(3 * QUIET_TURNS)
    assert calls.begun == [b"0", b"1", b"2", b"3", b"4", b"5"]
    calls.end.set()
    assert await asyncio.gather(first, *others) == calls.begun


async def test_no_more_are_read_together_than_the_limit() -> None:
    """So many are read whether or not more come."""
    calls = Calls()
    first = calls.come(b"0")
    await turns(2)
    others = [calls.come(b"x") for _ in range(UNREAD_LIMIT)]
    await turns(3)
    assert len(calls.begun) == 1 + UNREAD_LIMIT
    calls.end.set()
    await asyncio.gather(first, *others)


async def test_each_has_its_own_context_and_time() -> None:
    """What was set before is seen by the call's work alone, and the time is that at which it came."""
    calls = Calls()
    held = calls.come(b"held")
    await turns(2)
    seen: list[tuple[str, float]] = []

    async def come(name: str) -> bytes:
        async def look() -> bytes:
            seen.append((_name.get(), came_s()))
            return b""

        _name.set(name)
        return await calls.arrivals.answer(look)

    before_s = time.monotonic()
    both = [asyncio.create_task(come("a")), asyncio.create_task(come("b"))]
    await turns(1)
    came_by_s = time.monotonic()
    await asyncio.gather(*both)
    assert [name for name, _ in seen] == ["a", "b"]
    assert all(before_s <= at_s <= came_by_s for _, at_s in seen)
    assert _name.get() == ""
    calls.end.set()
    await held


async def test_an_error_is_its_callers_alone() -> None:
    """The others of the same reading are answered."""
    calls = Calls()
    held = calls.come(b"held")
    await turns(2)

    async def fail() -> bytes:
        raise ValueError("this one")

    failing, other = calls.come(b"", fail), calls.come(b"other")
    with pytest.raises(ValueError, match="this one"):
        await failing
    calls.end.set()
    assert await other == b"other"
    await held


async def test_who_goes_away_is_worked_for_no_longer() -> None:
    """Neither before the call was read nor while it is answered; and it is in flight no more."""
    calls = Calls()
    held = calls.come(b"held")
    await turns(2)
    unread = calls.come(b"unread")
    await turns(1)
    unread.cancel()
    cancelled = asyncio.Event()

    async def work() -> bytes:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return b""

    begun = calls.come(b"begun", work)
    await turns(4 * QUIET_TURNS)
    begun.cancel()
    await asyncio.wait_for(cancelled.wait(), 10)
    assert calls.begun == [b"held"]
    calls.end.set()
    await held
    await asyncio.gather(unread, begun, return_exceptions=True)
    assert calls.in_flight.count == 0


async def test_nobody_is_read_later_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many come: what is to be refused must hear so soon."""
    monkeypatch.setattr(arrivals, "UNREAD_S", 0.0)
    calls = Calls()
    first = calls.come(b"0")
    await turns(2)
    second = calls.come(b"1")
    await turns(3)
    assert calls.begun == [b"0", b"1"]
    calls.end.set()
    await asyncio.gather(first, second)


async def test_a_refusal_leaves_nothing_for_the_collector() -> None:
    """Thousands a second are refused under overload: each is gone as soon as its caller has heard it."""
    calls = Calls()

    class RefusedError(Exception):
        pass

    async def refuse() -> bytes:
        raise RefusedError

    async def ask() -> weakref.ref[BaseException]:
        try:
            await calls.arrivals.answer(refuse)
        except RefusedError as error:
            return weakref.ref(error)
        raise AssertionError

    gc.disable()
    try:
        seen = await asyncio.create_task(ask())
        await turns(2)
        assert seen() is None
    finally:
        gc.enable()
