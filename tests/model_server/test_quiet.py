"""Quiet is when turns of the event loop bring nothing more, or the time is over."""

from __future__ import annotations

import asyncio

from model_server.quiet import QUIET_TURNS, Quiet


class Coming:
    """What comes, at a clock that is set, and how much it was each time it was quiet."""

    def __init__(self) -> None:
        self.count = 0
        self.now_s = 100.0
        self.seen: list[int] = []
        self.quiet = Quiet(
            lambda: self.count, lambda: self.seen.append(self.count), limit_s=1.0, clock_s=lambda: self.now_s
        )


async def turns(count: int) -> None:
    """Lets the event loop turn so often."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_it_is_told_once_when_nothing_more_comes() -> None:
    """After so many turns, however often it was begun; and again only when it is begun again."""
    coming = Coming()
    coming.quiet.begin()
    coming.quiet.begin()
    await turns(QUIET_TURNS - 1)
    assert coming.seen == []
    assert coming.quiet.counting
    await turns(3 * QUIET_TURNS)
    assert coming.seen == [0]
    assert not coming.quiet.counting
    coming.quiet.begin()
    await turns(2 * QUIET_TURNS)
    assert coming.seen == [0, 0]


async def test_what_comes_begins_the_count_anew() -> None:
    """One more in every few turns is waited for."""
    coming = Coming()
    coming.quiet.begin()
    for _ in range(5):
        await turns(QUIET_TURNS - 2)
        coming.count += 1
    assert coming.seen == []
    await turns(2 * QUIET_TURNS)
    assert coming.seen == [5]


async def test_its_time_is_bounded() -> None:
    """An event loop that is never quiet is not waited for."""
    coming = Coming()
    coming.quiet.begin()
    for _ in range(200):
        coming.count += 1
        coming.now_s += 0.05
        await turns(1)
        if coming.seen:
            break
    assert coming.seen
    assert coming.count <= 25
