"""What comes together is ready together; what comes alone, or cannot wait, at once; and nothing waits for ever."""

from __future__ import annotations

import asyncio

from model_server.gathering import GATHER_S, Gathering
from model_server.quiet import QUIET_TURNS


class Rows:
    """Rows that wait, and how many there were each time a batch was taken."""

    def __init__(self) -> None:
        self.waiting = 0
        self.now_s = 100.0
        self.taken: list[int] = []
        self.gathering = Gathering(lambda: self.waiting, self._take, clock_s=lambda: self.now_s)

    def come(self, *, urgent: bool = False) -> None:
        """One more row waits."""
        self.waiting += 1
        self.gathering.row_came(urgent=urgent)

    def answer(self) -> None:
        """The batch that was taken last is answered."""
        self.gathering.answered(self.taken[-1])

    def _take(self) -> None:
        self.taken.append(self.waiting)
        self.waiting = 0


async def turns(count: int) -> None:
    """Lets the event loop turn so often."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_row_alone_waits_for_nobody() -> None:
    """Not one turn: however fast one caller asks, as long as each batch was of one row."""
    rows = Rows()
    for _ in range(3):
        rows.come()
        assert rows.waiting == 0
        rows.answer()
    assert rows.taken == [1, 1, 1]


async def test_what_comes_while_a_batch_runs_waits_for_its_end() -> None:
    """And for what the loop has still to read by then."""
    rows = Rows()
    rows.come()
    for _ in range(5):
        rows.come()
        await turns(2 * QUIET_TURNS)
    assert rows.taken == [1]
    rows.answer()
    rows.come()
    await turns(2 * QUIET_TURNS)
    assert rows.taken == [1, 6]


async def test_after_a_batch_of_many_what_many_turns_bring_is_taken_together() -> None:
    """Once a few turns brought nothing more."""
    rows = Rows()
    rows.come()
    rows.come()
    rows.answer()
    await turns(2 * QUIET_TURNS)
    rows.come()
    rows.answer()
    await turns(2 * QUIET_TURNS)
    rows.gathering.answered(2)
    for _ in range(20):
        rows.come()
        await turns(QUIET_TURNS // 2)
    await turns(2 * QUIET_TURNS)
    assert rows.taken == [1, 1, 1, 20]


async def test_an_urgent_row_takes_the_others_with_it() -> None:
    """Its batch is what waits at that moment, and no other is taken for those rows."""
    rows = Rows()
    rows.gathering.answered(2)
    for _ in range(3):
        rows.come()
    rows.come(urgent=True)
    assert rows.taken == [4]
    await turns(2 * QUIET_TURNS)
    assert rows.taken == [4]


async def test_an_event_loop_that_is_never_quiet_is_not_waited_for() -> None:
    """Rows that come in every turn are taken some milliseconds after the first of them."""
    rows = Rows()
    rows.gathering.answered(2)
    for _ in range(10_000):
        rows.come()
        rows.now_s += GATHER_S / 100
        await turns(1)
        if rows.taken and not rows.waiting:
            rows.gathering.answered(2)
    assert len(rows.taken) >= 99
    assert max(rows.taken) <= 102


async def test_calls_that_are_not_read_yet_may_bring_more_rows() -> None:
    """While more of them come the rows that are there wait for those."""
    rows = Rows()
    unread = [0]
    rows.gathering = Gathering(lambda: rows.waiting, rows._take, unread=lambda: unread[0])
    rows.gathering.answered(2)
    rows.come()
    for _ in range(5):
        await turns(QUIET_TURNS - 2)
        unread[0] += 1
    assert rows.taken == []
    rows.waiting, unread[0] = rows.waiting + unread[0], 0
    await turns(3 * QUIET_TURNS)
    assert rows.taken == [6]
