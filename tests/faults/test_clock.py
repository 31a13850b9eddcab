"""A wall clock that somebody sets, while an updater lives by it."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from temporal_graph.view import GraphView

pytestmark = [pytest.mark.integration, pytest.mark.kafka, pytest.mark.faults]

SEED = 300
STEP_S = 300


def test_the_clock_is_stepped_by_five_minutes(
    apache_kafka: str, make_world: Callable[..., Any], make_updaters: Callable[..., Any], clock: Any
) -> None:
    """Forward and back, the updater killed in between: the graph is that of the log, every life goes on from the
    snapshot that was made last, and soon after a step the graph says by the clock as it is now how complete it is.
    """
    updaters = make_updaters(clock.variables)
    chance = random.Random(SEED)
    steps = [chance.choice([-2, -1, 1, 2]) * STEP_S for _ in range(8)]
    world = make_world(apache_kafka, seed=SEED, count=800)
    updaters.start(world, UPDATER_LAG_INTERVAL_S="0.2")
    now_s = 0
    for number, step_s in enumerate(steps):
        world.tell(number, len(steps))
        updaters.until(partial(world.holds, number + 1, len(steps)))
        now_s += step_s
        clock.step(now_s)
        updaters.until(partial(complete_now, world, now_s))
        if number % 2 == 0:
            updaters.send(signal.SIGKILL)
            assert updaters.ended() == -signal.SIGKILL
            updaters.start(world, UPDATER_LAG_INTERVAL_S="0.2")
    updaters.finish(world)
    world.check()


def complete_now(world: Any, ahead_s: int) -> bool:
    """Whether the graph that serves says that it is complete as of now, by a clock that is so far ahead.

    An updater makes snapshots before its graph serves: until then it is that of the one before, which has ended.
    """
    with closing(GraphView.attach(world.schema, world.arena)) as view:
        return abs((view.complete_time_us or 0) / 1e6 - ahead_s - time.time()) < 2
