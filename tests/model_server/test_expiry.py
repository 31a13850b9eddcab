from __future__ import annotations

import asyncio
import gc
import time
from weakref import ref

import pytest

from model_server.errors import DeadlinePassedError
from model_server.expiry import PRUNE_FROM, Expiry


async def test_what_is_not_done_by_its_deadline_fails() -> None:
    """Each at its own, in whatever order they came; what is answered or cancelled before stays as it is."""
    loop = asyncio.get_running_loop()
    expiry = Expiry(loop)
    start_s = time.monotonic()
    late, later, answered, cancelled, far = (loop.create_future() for _ in range(5))
    for future, after_s in ((far, 30.0), (later, 0.08), (late, 0.03), (answered, 0.05), (cancelled, 0.05)):
        expiry.watch(future, start_s + after_s)
    answered.set_result(1)
    cancelled.cancel()
    with pytest.raises(DeadlinePassedError):
        await late
    assert 0.03 <= time.monotonic() - start_s < 1
    assert not later.done()
    with pytest.raises(DeadlinePassedError):
        await later
    assert time.monotonic() - start_s >= 0.08
    assert await answered == 1
    assert cancelled.cancelled()
    assert not far.done()
    assert len(expiry) == 1
    expiry.close()


async def test_a_deadline_that_has_passed_fails_at_the_next_turn() -> None:
    """Nobody waits for a moment that is over."""
    expiry = Expiry(asyncio.get_running_loop())
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    expiry.watch(future, time.monotonic() - 1)
    with pytest.raises(DeadlinePassedError):
        await asyncio.wait_for(future, 5)


async def test_answered_requests_are_forgotten_before_their_deadlines() -> None:
    """A million answers with a deadline of an hour hold no more than a few thousand places."""
    loop = asyncio.get_running_loop()
    expiry = Expiry(loop)
    for _ in range(10 * PRUNE_FROM):
        future: asyncio.Future[int] = loop.create_future()
        expiry.watch(future, time.monotonic() + 3_600)
        future.set_result(1)
    assert len(expiry) <= PRUNE_FROM
    expiry.close()


async def test_an_answer_is_not_kept_until_its_deadline() -> None:
    """Who has its answer lets go of it, and its memory is free."""
    loop = asyncio.get_running_loop()
    expiry = Expiry(loop)
    future: asyncio.Future[int] = loop.create_future()
    expiry.watch(future, time.monotonic() + 3_600)
    future.set_result(1)
    kept = ref(future)
    del future
    gc.collect()
    assert kept() is None
    expiry.close()
