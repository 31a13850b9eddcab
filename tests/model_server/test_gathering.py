"""What comes together is ready together; what comes alone, or cannot wait, at once; and nothing waits for ever."""

from __future__ import annotations

import asyncio

from model_server.gathering import ALONE_S, GATHER_S, QUIET_TURNS, Gathering


class Rows:
    """Rows that wait, and how many there were each time they were said to be all."""

    def __init__(self) -> None:
        self.waiting = 0
        self.now_s = 100.0
        self.taken: list[int] = []
        self.gathering = Gathering(lambda: self.waiting, self._ready, clock_s=lambda: self.now_s)

    def come(self, *, urgent: bool = False) -> None:
        """One more row waits."""
        self.waiting += 1
        self.gathering.row_came(urgent=urgent)

    def _ready(self) -> None:
        self.taken.append(self.waiting)
        self.waiting = 0


async def turns(count: int) -> None:
    """Lets the event loop turn so often."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_row_alone_waits_for_nobody() -> None:
    """Not one turn: however often one comes, as long as none came just before it."""
    rows = Rows()
    for _ in range(3):
        rows.come()
        assert rows.waiting == 0
        rows.now_s += 2 * ALONE_S
        await turns(1)
    assert rows.taken == [1, 1, 1]


async def test_what_many_turns_bring_is_taken_together() -> None:
    """The first finds nobody; the others are one batch, once a few turns brought nothing more."""
    rows = Rows()
    for _ in range(20):
        rows.come()
        await turns(QUIET_TURNS // 2)
    await turns(2 * QUIET_TURNS)
    assert rows.taken == [1, 19]


async def test_an_urgent_row_takes_the_others_with_it() -> None:
    """Its batch is what waits at that moment."""
    rows = Rows()
    for _ in range(3):
        rows.come()
    rows.come(urgent=True)
    assert rows.taken == [1, 3]


async def test_an_event_loop_that_is_never_quiet_is_not_waited_for() -> None:
    """Rows that come in every turn are taken some milliseconds after the first of them."""
    rows = Rows()
    for _ in range(10_000):
        rows.come()
        rows.now_s += GATHER_S / 100
        await turns(1)
    first, *others = rows.taken
    assert first == 1
    assert len(others) >= 99
    assert max(others) <= 102


async def test_what_waited_behind_a_batch_is_watched_without_a_new_row() -> None:
    """What came while a batch ran is taken after it, when the loop is quiet."""
    rows = Rows()
    rows.waiting = 5
    rows.gathering.watch()
    rows.gathering.watch()
    await turns(2 * QUIET_TURNS)
    assert rows.taken == [5]
