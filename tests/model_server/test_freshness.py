from __future__ import annotations

import asyncio
import time

import pytest

from model_server.errors import NotFreshError
from model_server.freshness import Freshness, Token
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

TOKEN = Token("events", 1, 41)


class Position:
    """A graph's offsets that the test moves, and how often they were read."""

    def __init__(self) -> None:
        self.offsets: dict[tuple[str, int], int] = {}
        self.reads = 0

    def read(self) -> dict[tuple[str, int], int]:
        """What a view would say."""
        self.reads += 1
        return dict(self.offsets)


def test_a_token_is_reached_when_its_own_offset_is_applied() -> None:
    """The next offset must be beyond the event's: being about to apply it is not enough, and partitions differ."""
    assert not TOKEN.reached_by({("events", 1): 41})
    assert TOKEN.reached_by({("events", 1): 42})
    assert not TOKEN.reached_by({("events", 0): 100, ("other", 1): 100})


async def test_a_fresh_graph_waits_for_nothing() -> None:
    """When the token is reached already, there is one look and no wait."""
    position = Position()
    position.offsets["events", 1] = 42
    assert await Freshness(position.read, poll_s=10.0).wait(TOKEN, time.monotonic() + 1) == 0.0
    assert position.reads == 1


async def test_a_waiter_goes_on_when_the_event_is_applied() -> None:
    """The wait ends soon after the offset is applied and says how long it was."""
    position = Position()
    waiting = asyncio.create_task(Freshness(position.read, poll_s=0.001).wait(TOKEN, time.monotonic() + 5))
    await asyncio.sleep(0.03)
    assert not waiting.done()
    position.offsets["events", 1] = 42
    waited_s = await asyncio.wait_for(waiting, 1)
    assert 0.03 <= waited_s < 1


async def test_the_deadline_ends_the_wait() -> None:
    """A token that is not reached in time is refused, with what was reached in the message."""
    position = Position()
    position.offsets["events", 1] = 40
    freshness = Freshness(position.read, poll_s=0.001)
    with pytest.raises(NotFreshError, match=r"below 40.*offset 41 of events\[1\]"):
        await freshness.wait(TOKEN, time.monotonic() + 0.02)


async def test_many_waiters_share_one_poller() -> None:
    """A hundred waiting requests read the position as often as one does, and nobody polls when nobody waits."""
    position = Position()
    freshness = Freshness(position.read, poll_s=0.005)
    waiting = [asyncio.create_task(freshness.wait(TOKEN, time.monotonic() + 5)) for _ in range(100)]
    await asyncio.sleep(0.05)
    assert freshness.polls <= 15
    position.offsets["events", 1] = 42
    await asyncio.gather(*waiting)
    polls = freshness.polls
    await asyncio.sleep(0.03)
    assert freshness.polls <= polls + 1


async def test_a_cancelled_waiter_is_forgotten() -> None:
    """A caller that goes away leaves nothing behind, and the others still get their answer."""
    position = Position()
    freshness = Freshness(position.read, poll_s=0.001)
    gone = asyncio.create_task(freshness.wait(TOKEN, time.monotonic() + 5))
    stays = asyncio.create_task(freshness.wait(TOKEN, time.monotonic() + 5))
    await asyncio.sleep(0.01)
    gone.cancel()
    await asyncio.sleep(0.01)
    position.offsets["events", 1] = 42
    await asyncio.wait_for(stays, 1)
    assert gone.cancelled()


async def test_an_unreadable_position_is_everyones_error() -> None:
    """Nobody waits for ever when the graph cannot be read."""
    reads = 0

    def read() -> dict[tuple[str, int], int]:
        nonlocal reads
        reads += 1
        if reads > 1:
            raise OSError("the arena is gone")
        return {}

    with pytest.raises(OSError, match="the arena is gone"):
        await asyncio.wait_for(Freshness(read, poll_s=0.001).wait(TOKEN, time.monotonic() + 5), 1)


def test_an_answer_without_the_event_is_refused() -> None:
    """What was seen while waiting does not count: another graph may have been begun, and answered, since."""
    request = service_pb2.ScoreRequest()
    Freshness.hold(request, {})  # asks for nothing
    request.freshness_token.topic, request.freshness_token.partition, request.freshness_token.offset = "events", 1, 41
    Freshness.hold(request, {("events", 1): 42})
    with pytest.raises(NotFreshError, match="offsets below 41, the token asks for offset 41"):
        Freshness.hold(request, {("events", 1): 41})
