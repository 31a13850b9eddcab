"""SIGKILL of `nowgraph update` over a real Kafka: at any moment, and at the places where state and its safety part."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.kafka]

SEED = 20_261_121
LIFE_MOST_S = 6.0

DEAD_LETTERS, GRAPH = "stream.dead_letters:DeadLetters", "temporal_graph.graph:TemporalGraph"
IMAGE, SNAPSHOTS = "temporal_graph.image:GraphImage", "temporal_graph.snapshots:Snapshots"
LATER = pytest.mark.faults
PLACES = [
    pytest.param("before", f"{GRAPH}.apply", 2, id="dead letters safe, batch not applied"),
    pytest.param("after", f"{GRAPH}.apply", 2, id="batch applied, its dead letters not safe"),
    pytest.param("before", f"{DEAD_LETTERS}.flush", 2, id="dead letters sent, not known to be safe", marks=LATER),
    pytest.param("after", f"{DEAD_LETTERS}.flush", 2, id="dead letters safe", marks=LATER),
    pytest.param("before", f"{IMAGE}.settle", 1, id="image copied, not settled", marks=LATER),
    pytest.param("after", f"{IMAGE}.settle", 1, id="image settled, not whole", marks=LATER),
    pytest.param("before", f"{SNAPSHOTS}.add", 1, id="image whole, no snapshot"),
    pytest.param("after", f"{SNAPSHOTS}.add", 1, id="snapshot made, older ones not removed"),
    pytest.param("after", f"{SNAPSHOTS}.keep", 1, id="older ones removed", marks=LATER),
]


@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=[pytest.mark.faults, pytest.mark.timeout(3_000)])])
def test_an_updater_killed_at_random_moments_ends_with_the_graph_of_its_log(
    apache_kafka: str, make_world: Callable[..., Any], updaters: Any, kills: int
) -> None:
    """Whatever it was doing: equal hash, every poison record a dead letter once, nothing left of what it was making;
    and `nowgraph verify` agrees.
    """
    chance = random.Random(SEED)
    pieces = kills + 1
    world = make_world(apache_kafka, seed=SEED, count=30 * pieces)
    world.tell(0, pieces)
    begun_s = time.monotonic()
    updaters.start(world)
    updaters.until(lambda: world.holds(1, pieces))
    # Until all that there is was applied and is safe. A topic that was just made may take half a minute to be seen, and
    # later lives do not wait for one.
    life_s = min(time.monotonic() - begun_s, LIFE_MOST_S)
    updaters.send(signal.SIGKILL)
    assert updaters.ended() == -signal.SIGKILL
    stood = set()
    for piece in range(1, pieces):
        early = chance.random() < 0.5
        if early:
            world.tell(piece, pieces)
        updaters.start(world, UPDATER_POLL_RECORDS_MAX=str(chance.choice([1, 5, 20, 1_000])))
        if not early:
            world.tell(piece, pieces)
        time.sleep(chance.uniform(0.0, 1.5 * life_s))
        updaters.send(signal.SIGKILL)
        assert updaters.ended() == -signal.SIGKILL, updaters.said()
        stood.add(sum(world.offsets().values()))
    updaters.finish(world)
    assert len(stood) > kills / 4, "hardly any life left a snapshot of its own"
    world.check()
    assert list(world.snapshots.glob(".making-*")) == []
    command = [
        sys.executable, "-m", "nowgraph.cli", "verify", "--schema", world.schema_path, "--snapshots", world.snapshots,
        "--bootstrap-servers", world.bootstrap, "--json", "--quiet",
    ]  # fmt: skip
    verified = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert json.loads(verified.stdout)["equal"]


@pytest.mark.parametrize(("when", "place", "calls"), PLACES)
def test_an_updater_killed_between_state_and_its_safety(
    apache_kafka: str, make_world: Callable[..., Any], updaters: Any, when: str, place: str, calls: int
) -> None:
    """In both orders, twice: the next life applies what the log still has to give, and misses and repeats nothing."""
    world = make_world(apache_kafka, seed=SEED, count=90)
    for life in range(2):
        world.tell(life, 3)
        updaters.start(world, die=(when, place, calls), UPDATER_POLL_RECORDS_MAX="10")
        assert updaters.ended() == -signal.SIGKILL, updaters.said()
    world.tell(2, 3)
    updaters.finish(world)
    world.check()
