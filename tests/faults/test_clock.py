"""A wall clock that somebody sets, while an updater lives by it."""

from __future__ import annotations

import random
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from temporal_graph.view import GraphView

pytestmark = [pytest.mark.integration, pytest.mark.kafka, pytest.mark.faults]

SEED = 300
STEP_S = 300


def test_the_clock_is_stepped_by_five_minutes(
    apache_kafka: str, make_world: Callable[..., Any], make_updaters: Callable[..., Any], tmp_path: Path
) -> None:
    """Forward and back, the updater killed in between: the graph is that of the log, every life goes on from the
    snapshot that was made last, and soon after a step the graph says by the clock as it is now how complete it is.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    library, ahead = tmp_path / "clock_ahead.so", tmp_path / "ahead"
    source = Path(__file__).with_name("clock_ahead.c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    ahead.write_bytes(struct.pack("<q", 0))
    updaters = make_updaters({"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(ahead)})

    chance = random.Random(SEED)
    steps = [chance.choice([-2, -1, 1, 2]) * STEP_S for _ in range(8)]
    world = make_world(apache_kafka, seed=SEED, count=800)
    updaters.start(world, UPDATER_LAG_INTERVAL_S="0.2")
    now_s = 0
    for number, step_s in enumerate(steps):
        world.tell(number, len(steps))
        updaters.until(partial(world.holds, number + 1, len(steps)))
        now_s += step_s
        with ahead.open("r+b") as file:
            file.write(struct.pack("<q", now_s * 10**9))
        with closing(GraphView.attach(world.schema, world.arena)) as view:
            updaters.until(partial(complete_now, view, now_s))
        if number % 2 == 0:
            updaters.send(signal.SIGKILL)
            assert updaters.ended() == -signal.SIGKILL
            updaters.start(world, UPDATER_LAG_INTERVAL_S="0.2")
    updaters.finish(world)
    world.check()


def complete_now(view: GraphView, ahead_s: int) -> bool:
    """Whether the graph says that it is complete as of now, by a clock that is so far ahead."""
    return abs((view.complete_time_us or 0) / 1e6 - ahead_s - time.time()) < 2
