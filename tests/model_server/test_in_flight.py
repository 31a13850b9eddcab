"""What is being answered is waited for, and counted however it ends."""

from __future__ import annotations

import asyncio

import pytest

from model_server.in_flight import InFlight


async def test_idle_waits_for_the_last_one() -> None:
    """Not for the first; and at once where there is nothing."""
    in_flight = InFlight()
    await in_flight.idle()
    with in_flight:
        with in_flight:
            assert in_flight.count == 2
        waiting = asyncio.create_task(in_flight.idle())
        await asyncio.sleep(0.01)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 10)


async def test_what_fails_is_no_longer_in_flight() -> None:
    """A drain does not wait for ever for a call that raised."""
    in_flight = InFlight()
    with pytest.raises(ValueError, match="no"), in_flight:
        raise ValueError("no")
    assert in_flight.count == 0
    await asyncio.wait_for(in_flight.idle(), 10)


async def test_an_end_is_told_to_those_who_answer() -> None:
    """Each task is cancelled and can see why; what was taken out before is left alone."""
    in_flight = InFlight()
    why: list[bool] = []

    async def answer() -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            why.append(in_flight.ended)

    first, second, done = (asyncio.create_task(answer()) for _ in range(3))
    in_flight.tasks |= {first, second, done}
    in_flight.tasks.discard(done)
    await asyncio.sleep(0)
    in_flight.end()
    await asyncio.wait_for(asyncio.gather(first, second), 10)
    assert why == [True, True]
    assert not done.done()
    done.cancel()
