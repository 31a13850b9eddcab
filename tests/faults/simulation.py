"""A seeded simulation of the updater: the real code on a virtual clock, with every fault at once.

seed ─► a world's events ─► a log: duplicates, shuffles, late, of the future, poison, deletes, moved rows, erasures
     ─► updater ─► crashes ─► restart from the newest good snapshot, else from the log's begin ─► ... ─► the log's end
        │  the broker goes away, the clock is stepped, snapshots fail, rot and are cut off, retention forgets,
        │  columns move to the disk and back
        └─► readers sample all the while: nothing of the future, one publication at a time
the same log, read once without a fault ─► the same graph, by hash; every poison record a dead letter with its bytes

    python tests/faults/simulation.py --seeds 1000       what CI runs
    python tests/faults/simulation.py --seed 17          one again, told step by step
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import structlog

sys.path.insert(0, str(Path(__file__).parent))  # the simulation's own modules; the interpreter may run with a safe path

from simulated_log import (
    DAY,
    HOUR,
    ON_DISK,
    SCHEMA,
    START_US,
    Clock,
    Crash,
    DeadLetterLog,
    Faults,
    LogSource,
    S,
    WholeLog,
    make_log,
)

from graph_updater.metrics import UpdaterMetrics
from graph_updater.settings import UpdaterSettings
from graph_updater.snapshotter import Snapshotter
from graph_updater.updater import Updater
from online_sampler import Sampler, SamplingPlan
from stream.batch import DeadLetter
from stream.decode import Decoder
from temporal_graph.errors import TemporalGraphError
from temporal_graph.graph import TemporalGraph
from temporal_graph.image import Settled
from temporal_graph.snapshots import IMAGE, MANIFEST, Snapshot, SnapshotError, Snapshots
from temporal_graph.view import GraphView

ARENA_BYTES = 48 << 20
PLAN = SamplingPlan.from_dict(
    {
        "num_neighbors": [{"hop1": {"default": 8}}, {"hop2": {"default": 4}}],
        "strategy": "most_recent",
        "node_limit": 256,
    }
)


class Broken(AssertionError):
    """A promise that did not hold."""


class FailingSnapshots(Snapshots):
    """Snapshots on a disk that fills up, in a process that may die at every step."""

    def __init__(self, folder: Path, clock: Clock, faults: Faults) -> None:
        super().__init__(folder, clock_us=lambda: clock.now_us)
        self._folder, self._faults = folder, faults

    def making(self) -> Path:
        self._faults.crash_at("snapshot, before it begins")
        if self._faults.happens("disk full", 0.1):
            raise SnapshotError("no room")
        return super().making()

    def add(self, folder: Path, settled: Settled, **said: Any) -> Snapshot:
        self._faults.crash_at("snapshot, before it is whole")
        made = super().add(folder, settled, **said)
        self._faults.crash_at("snapshot, once it is whole")
        return made

    def keep(self, count: int) -> list[str]:
        removed = super().keep(count)
        self._faults.crash_at("snapshot, after older ones went")
        return removed

    def rot(self) -> None:
        """Damages some of what is on the disk, while nothing runs."""
        for folder in self._folder.glob("2*"):
            image = folder / IMAGE
            if self._faults.happens("snapshot cut off", 0.1):
                image.open("r+b").truncate(self._faults.chance.randrange(image.stat().st_size))
            elif self._faults.happens("snapshot rotten", 0.15):
                with image.open("r+b") as file:
                    file.seek(self._faults.chance.randrange(image.stat().st_size))
                    was = file.read(1)
                    file.seek(-1, 1)
                    file.write(bytes([was[0] ^ 4]))
            elif self._faults.happens("manifest gone", 0.05):
                (folder / MANIFEST).unlink(missing_ok=True)


class Beside(Executor):
    """Does at once what is to be done beside, and says so only some looks later: batches come in between."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = _Later(self._chance.randint(0, 4))
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - as an executor does
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pass


class _Later(Future[Any]):
    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    def done(self) -> bool:
        self._looks -= 1
        return self._looks < 0 and super().done()


@dataclass(frozen=True)
class Outcome:
    """What came of one seed."""

    seed: int
    records: int
    restarts: int
    restored: int
    samples: int
    faults: dict[str, int]
    cpu_s: float


class World:
    """One seed's world: its log, its faults, and what survives a crash."""

    def __init__(self, seed: int, folder: Path, *, tell: Callable[[str], None] = lambda _: None) -> None:
        self.seed, self.tell = seed, tell
        chance = random.Random(seed)
        self.chance = chance
        self.log = make_log(chance)
        self.faults = Faults(chance, chance.choice([0.0, 0.01, 0.03, 0.08]))
        self.clock = Clock()
        self.dead: list[DeadLetter] = []
        self.snapshots = FailingSnapshots(folder / "snapshots", self.clock, self.faults)
        self.settings = UpdaterSettings(
            snapshot_interval_s=chance.choice([60.0, 3_600.0, 86_400.0]),
            snapshot_keep=chance.randint(1, 3),
            evict_interval_s=chance.choice([1.0, 3_600.0]),
            poll_records_max=chance.randint(1, 500),
        )
        self.restarts = self.restored = self.samples = 0

    def run(self) -> Outcome:
        """Runs until the log is applied, through all crashes; then everything is compared."""
        begun_s = time.process_time()
        while True:
            graph = self._open()
            try:
                self._live(graph)
            except Crash as crash:
                self.tell(f"crash at {crash}")
                self.restarts += 1
                graph.close()
                self.snapshots.rot()
                continue
            break
        with graph:
            self._compare(graph)
        records = sum(len(part) for part in self.log.values())
        seen = self.faults.seen
        return Outcome(
            self.seed, records, self.restarts, self.restored, self.samples, seen, time.process_time() - begun_s
        )

    def _open(self) -> TemporalGraph:
        # Columns in memory and on disk, each for two starts: snapshots are restored as they are, and moved.
        schema = SCHEMA if (self.seed + self.restarts // 2) % 2 == 0 else ON_DISK
        try:
            restored = self.snapshots.restore(schema, arena_bytes=ARENA_BYTES)
        except TemporalGraphError as error:
            raise Broken(f"restore raised {error!r}") from error
        if restored is None:
            self.tell("from the log's begin")
            return TemporalGraph.create(schema, arena_bytes=ARENA_BYTES)
        self.restored += 1
        self.tell(f"from {restored.snapshot.name}, refused {len(restored.refused)}")
        if restored.graph.positions != dict(restored.snapshot.offsets):
            raise Broken("a snapshot's offsets are not its graph's")
        return restored.graph

    def _live(self, graph: TemporalGraph) -> None:
        metrics = UpdaterMetrics()
        snapshotter = Snapshotter(
            graph, self.snapshots, self.settings, metrics, clock_s=self.clock.seconds, executor=Beside(self.chance)
        )
        updater = Updater(
            graph,
            [LogSource(self.log, graph.positions, self.clock, self.faults)],
            Decoder(SCHEMA),
            DeadLetterLog(self.dead, self.faults),
            settings=self.settings,
            metrics=metrics,
            snapshots=snapshotter,
            clock_s=self.clock.seconds,
        )
        view = graph.view()
        sampler = Sampler(view, PLAN)
        while not updater.exhausted:
            updater.step()
            if self.chance.random() < 0.2:
                self._sample(view, sampler)
        updater.close()

    def _sample(self, view: GraphView, sampler: Sampler) -> None:
        keys = [self.chance.randint(0, 14) for _ in range(3)]
        cutoff_us = np.array([self.clock.now_us - self.chance.choice([0, S, HOUR, DAY]) for _ in keys])
        found = sampler.sample_keys("customers", keys, cutoff_us)
        self.samples += len(keys)
        if found.position != view.position():
            raise Broken("a sample is of another publication than the one that is published")
        for seed in range(len(keys)):
            nodes = slice(int(found.seed_offset[seed]), int(found.seed_offset[seed + 1]))
            seen = found.version[nodes] >= 0
            visible_us = np.maximum(found.event_time_us[nodes], found.known_time_us[nodes])[seen]
            if (visible_us > cutoff_us[seed]).any():
                raise Broken(f"seed {seed} sees the future")

    def _compare(self, graph: TemporalGraph) -> None:
        """The graph is that of the log read once, and its neighborhoods too; no poison is missing or of other bytes."""
        calm = Faults(random.Random(self.seed + 1), 0.0)
        kept: list[DeadLetter] = []
        with TemporalGraph.create(SCHEMA, arena_bytes=ARENA_BYTES) as clean:
            source = WholeLog(self.log)
            settings = UpdaterSettings(evict_interval_s=1e9)
            updater = Updater(clean, [source], Decoder(SCHEMA), DeadLetterLog(kept, calm), settings=settings)
            while not updater.exhausted:
                updater.step()
            for each in (graph, clean):
                each.evict()
            if graph.positions != clean.positions:
                raise Broken(f"positions {graph.positions} are not {clean.positions}")
            if graph.canonical_hash() != clean.canonical_hash():
                raise Broken("the graph is not that of the log")
            newest_us = max(record.time_us for part in self.log.values() for record in part)
            for cutoff_us in (newest_us, newest_us - HOUR, START_US):
                one, two = neighborhoods(graph, cutoff_us), neighborhoods(clean, cutoff_us)
                if one != two:
                    raise Broken(f"neighborhoods as of {cutoff_us} differ")
        dead = {(letter.topic, letter.partition, letter.offset, letter.value) for letter in self.dead}
        expected = {(letter.topic, letter.partition, letter.offset, letter.value) for letter in kept}
        if dead != expected:
            raise Broken(f"dead letters: {len(dead - expected)} too many, {len(expected - dead)} missing")
        poisoned = {
            (topic, part, at, record.value)
            for (topic, part), records in self.log.items()
            for at, record in enumerate(records)
            if record.poison
        }
        if not poisoned <= dead:
            raise Broken(f"{len(poisoned - dead)} poison records are no dead letters")


def neighborhoods(graph: TemporalGraph, cutoff_us: int) -> list[list[Any]]:
    """What every customer's neighborhood holds, by keys and times: the same of equal graphs."""
    view = graph.view()
    customers = list(range(15))
    found = Sampler(view, PLAN).sample_keys("customers", customers, np.full(len(customers), cutoff_us))
    names = [table.name for table in SCHEMA.tables]
    answers = []
    for seed in range(len(customers)):
        rows = []
        for node in range(int(found.seed_offset[seed]), int(found.seed_offset[seed + 1])):
            table = names[int(found.table[node])]
            row = int(found.row[node])
            key = view.keys(table, np.array([row]))[0] if row >= 0 else None
            rows.append((table, str(key), int(found.version[node]), int(found.event_time_us[node])))
        answers.append(rows)
    return answers


def simulate(seed: int, *, tell: Callable[[str], None] = lambda _: None) -> Outcome:
    """Runs one seed; raises what broke."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        return World(seed, Path(folder), tell=tell).run()


def _tried(seed: int) -> tuple[int, Outcome | None, str]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # what fails is meant to
    try:
        return seed, simulate(seed), ""
    except Exception as error:  # noqa: BLE001 - whatever it is, the seed is told and the others go on
        return seed, None, f"{type(error).__name__}: {error}"


def main() -> int:
    """Runs the seeds on all cores and prints what came of them as JSON; exit code 1 where one broke."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="only this one, told step by step")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count())
    options = parser.parse_args()
    if options.seed is not None:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
        print(simulate(options.seed, tell=print))
        return 0
    begun_s = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        tried = pool.map(_tried, range(options.first, options.first + options.seeds), chunksize=10)
    ran = [outcome for _, outcome, _ in tried if outcome is not None]
    faults: dict[str, int] = {}
    for outcome in ran:
        for what, count in outcome.faults.items():
            faults[what] = faults.get(what, 0) + count
    summary = {
        "seeds": options.seeds,
        "broken": {seed: why for seed, outcome, why in tried if outcome is None},
        "records": sum(outcome.records for outcome in ran),
        "restarts": sum(outcome.restarts for outcome in ran),
        "restored": sum(outcome.restored for outcome in ran),
        "samples": sum(outcome.samples for outcome in ran),
        "faults": faults,
        "seconds": round(time.monotonic() - begun_s, 1),
        "cpu_s_per_seed": round(sum(outcome.cpu_s for outcome in ran) / max(1, len(ran)), 3),
    }
    print(json.dumps(summary, indent=2))
    return 1 if summary["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
