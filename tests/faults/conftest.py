"""What the fault tests share: worlds whose log is on a real Kafka, and updaters that live and die over it."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import confluent_kafka
import confluent_kafka.admin
import pytest

from graph_updater.settings import UpdaterSettings
from graph_updater.updater import Updater
from stream.batch import DeadLetter
from stream.bounded_source import BoundedSource
from stream.dead_letters import list_dead_letters
from stream.decode import Decoder
from stream.kafka_source import KafkaSource
from stream.producer import EventProducer
from stream.settings import StreamSettings
from temporal_graph.errors import ArenaError
from temporal_graph.generations import CurrentGeneration
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema
from temporal_graph.snapshots import Snapshots

HERE = Path(__file__).parent
ARENA_BYTES = 1 << 28
FOREVER_S = 1e9
TIMEOUT_S = 60.0
TOPIC = {"retention.ms": "-1", "max.message.bytes": str(32 << 20)}

Place = tuple[str, int, int]


class Clock:
    """How far the wall clock of processes with its `variables` runs ahead of ours."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("needs a C compiler")
        library = folder / "clock_ahead.so"
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, HERE / "clock_ahead.c"], check=True)
        self._file = folder / "ahead"
        self._file.write_bytes(struct.pack("<q", 0))
        self.variables = {"LD_PRELOAD": str(library), "CLOCK_AHEAD": str(self._file)}

    def step(self, seconds: int) -> None:
        """From now on it runs so far ahead."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("<q", seconds * 10**9))


class Letters:
    """Dead letters of a replay; nothing is sent."""

    def __init__(self) -> None:
        self.places: set[Place] = set()

    def append(self, letters: list[DeadLetter]) -> None:
        self.places |= {(letter.topic, letter.partition, letter.offset) for letter in letters}

    def flush(self, timeout_s: float) -> None:
        pass


class World:
    """A log with topics of its own on a real Kafka, told piece by piece, and the graph that is to come of it.

    A record of the log has `value`, `time_us` (the broker's) and `poison`, where the graph must not take it.
    """

    def __init__(
        self, bootstrap: str, folder: Path, *, schema: str, log: Mapping[tuple[str, int], Sequence[Any]]
    ) -> None:
        self.bootstrap, self.tag = bootstrap, uuid.uuid4().hex[:8]
        self.log = {(f"{topic}-{self.tag}", partition): [*records] for (topic, partition), records in log.items()}
        self.topics = {topic: 1 + max(part for name, part in self.log if name == topic) for topic, _ in self.log}
        self.schema_path = folder / f"schema-{self.tag}.yaml"
        self.write_schema(schema)
        self.settings = StreamSettings(
            kafka_bootstrap=bootstrap, dead_letter_topic=f"dead-{self.tag}", delivery_timeout_s=120
        )
        self.snapshots = folder / f"snapshots-{self.tag}"
        self.arena = folder / f"arena-{self.tag}"

    def write_schema(self, text: str) -> None:
        """Takes a schema, with the log's own names of its topics."""
        self.schema_path.write_text(re.sub(r"topic: (\w+)", rf"topic: \1-{self.tag}", text))
        self.schema = load_schema(self.schema_path)

    def create_topics(self) -> None:
        """On every broker; they keep their records, of whatever time and size they are."""
        admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        wanted = {**self.topics, self.settings.dead_letter_topic: 1}
        new = [
            confluent_kafka.admin.NewTopic(name, partitions, -1, config=TOPIC) for name, partitions in wanted.items()
        ]
        for made in admin.create_topics(new).values():
            made.result(30)

    def tell(self, piece: int, pieces: int) -> None:
        """Publishes one of so many pieces of every partition."""
        self.send(
            {
                place: records[len(records) * piece // pieces : len(records) * (piece + 1) // pieces]
                for place, records in self.log.items()
            }
        )

    def send(self, log: Mapping[tuple[str, int], Sequence[Any]]) -> None:
        """Publishes records, and returns once the broker has them."""
        with EventProducer(self.settings) as producer:
            for (topic, partition), records in log.items():
                for record in records:
                    producer.send(topic, value=record.value, partition=partition, timestamp_us=record.time_us)
            assert producer.flush(120) == 0
            assert producer.failed == 0

    @property
    def ends(self) -> dict[tuple[str, int], int]:
        return {place: len(records) for place, records in self.log.items() if records}

    @property
    def poison(self) -> set[Place]:
        """The places of the records that must become dead letters."""
        return {
            (topic, partition, offset)
            for (topic, partition), records in self.log.items()
            for offset, record in enumerate(records)
            if record.poison
        }

    def dead(self) -> list[Place]:
        """The places of the records that are dead letters; their bytes must be the log's."""
        found = [stored.letter for stored in list_dead_letters(self.settings)]
        for letter in found:
            assert letter.value == self.log[letter.topic, letter.partition][letter.offset].value
        return [(letter.topic, letter.partition, letter.offset) for letter in found]

    def replay(self, *, poll_records_max: int = 10_000) -> tuple[str, set[Place]]:
        """The hash and the dead letters of the log read once, without a fault."""
        letters = Letters()
        with TemporalGraph.create(self.schema, arena_bytes=ARENA_BYTES) as graph:
            source = BoundedSource(KafkaSource(list(self.topics), settings=self.settings), self.ends)
            limits = UpdaterSettings(poll_records_max=poll_records_max, evict_interval_s=FOREVER_S)
            updater = Updater(graph, [source], Decoder(self.schema, settings=self.settings), letters, settings=limits)
            updater.run()
            updater.close()
            graph.evict()
            return graph.canonical_hash(), letters.places

    def offsets(self) -> dict[tuple[str, int], int]:
        """Those of the newest snapshot."""
        found, _ = Snapshots(self.snapshots).inventory()
        return dict(found[0].offsets) if found else {}

    def holds(self, piece: int, pieces: int) -> bool:
        """Whether the newest snapshot holds the first so many of so many pieces, and no more."""
        held = self.offsets()
        return all(held.get(place, 0) == len(records) * piece // pieces for place, records in self.log.items())

    @property
    def generation(self) -> int:
        """The one that serves, 0 before the first: an updater is ready once it is its own."""
        with suppress(ArenaError), closing(CurrentGeneration(self.arena)) as current:
            return current.get()
        return 0

    def restored(self) -> str:
        """The hash of the newest snapshot."""
        restored = Snapshots(self.snapshots).restore(self.schema, arena_bytes=ARENA_BYTES)
        assert restored is not None
        assert restored.refused == ()
        with restored.graph as graph:
            graph.evict()
            return graph.canonical_hash()

    def check(self) -> None:
        """The newest snapshot holds all of the log, and it is the graph of the log; no poison is missing or twice."""
        assert {place: self.offsets().get(place) for place in self.ends} == self.ends
        whole, dead = self.replay()
        assert self.restored() == whole
        assert self.poison <= dead
        found = self.dead()
        assert set(found) == dead
        assert len(found) == len(dead)


class Updaters:
    """`nowgraph update` as a process of its own, one after the other: see updaters.py."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.output = folder / "updaters.log"
        self._parent = subprocess.Popen(
            [sys.executable, str(HERE / "updaters.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip
        self._pid: int | None = None

    def start(
        self,
        world: World,
        *,
        die: tuple[str, str, int] | None = None,
        bootstrap: str | None = None,
        every: str = "20ms",
        **environment: str,
    ) -> None:
        """Starts one over the world's log, with snapshots; `environment` are settings without NOWGRAPH_."""
        options = {
            "schema": str(world.schema_path),
            "arena": str(world.arena),
            "arena_bytes": ARENA_BYTES,
            "bootstrap_servers": bootstrap or world.bootstrap,
            "metrics_port": 0,
            "snapshots": str(world.snapshots),
            "snapshot_every": every,
            "quiet": True,
        }
        settings = {"DEAD_LETTER_TOPIC": world.settings.dead_letter_topic, **environment}
        order = {
            "options": options,
            "environment": {f"NOWGRAPH_{name}": value for name, value in settings.items()},
            "output": str(self.output),
            "die": die,
        }
        assert self._parent.stdin is not None
        self._parent.stdin.write(json.dumps(order).encode() + b"\n")
        self._pid = self._line()

    def send(self, number: signal.Signals) -> None:
        assert self._pid is not None
        os.kill(self._pid, number)

    def ended(self) -> int:
        """Waits for its end; the exit code, or the signal as a negative number."""
        ended = self._line()
        self._pid = None
        return ended

    def finish(self, world: World, *, timeout_s: float = TIMEOUT_S, **options: str) -> None:
        """Returns once the newest snapshot holds all of the log; the updater, started if none is running, has ended."""
        if self._pid is None:
            before = world.generation
            self.start(world, **options)
            self.until(lambda: world.generation > before, timeout_s=timeout_s)
        self.until(lambda: world.holds(1, 1), timeout_s=timeout_s)
        self.send(signal.SIGTERM)
        assert self.ended() == 0, self.said()

    def until(self, holds: Callable[[], bool], *, timeout_s: float = TIMEOUT_S) -> None:
        """Waits for it."""
        deadline_s = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline_s, self.said()
            time.sleep(0.02)

    def said(self) -> str:
        """What the updaters wrote last."""
        return self.output.read_text()[-3000:] if self.output.exists() else ""

    def close(self) -> None:
        if self._pid is not None:
            with suppress(ProcessLookupError):  # it may have ended by itself
                self.send(signal.SIGKILL)
            self._line()
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        self._parent.wait(20)

    def _line(self) -> int:
        assert self._parent.stdout is not None
        ready, _, _ = select.select([self._parent.stdout], [], [], TIMEOUT_S)
        assert ready, self.said()
        return int(self._parent.stdout.readline())


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """A wall clock to be stepped."""
    return Clock(tmp_path)


@pytest.fixture(scope="session")
def simulated() -> ModuleType:
    """tests/faults/simulated_log.py."""
    spec = importlib.util.spec_from_file_location("nowgraph_tests_simulated_log", HERE / "simulated_log.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def world_of(tmp_path: Path) -> Callable[..., World]:
    """Makes a world of a schema and a log: `world_of(bootstrap, schema=, log=)`, its topics on that Kafka."""

    def make(bootstrap: str, *, schema: str, log: Mapping[tuple[str, int], Sequence[Any]]) -> World:
        world = World(bootstrap, tmp_path, schema=schema, log=log)
        world.create_topics()
        return world

    return make


@pytest.fixture
def make_world(simulated: ModuleType, world_of: Callable[..., World]) -> Callable[..., World]:
    """Makes a simulated world: `make_world(bootstrap, seed=, count=)`, with `count` payments and visits."""

    def make(bootstrap: str, *, seed: int, count: int) -> World:
        log = simulated.make_log(random.Random(seed), count=count)
        return world_of(bootstrap, schema=simulated.SCHEMA_YAML, log=log)

    return make


@pytest.fixture
def make_updaters(tmp_path: Path) -> Iterator[Callable[..., Updaters]]:
    """Starts what starts updaters: `make_updaters({})`, with these variables of the environment."""
    with ExitStack() as stack:

        def make(environment: Mapping[str, str]) -> Updaters:
            made = Updaters(tmp_path, environment)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def updaters(make_updaters: Callable[..., Updaters]) -> Updaters:
    """Starts updaters."""
    return make_updaters({})
