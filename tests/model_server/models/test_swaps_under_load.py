from __future__ import annotations

import gc
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import psutil
import pytest

from model_server.background import BackgroundServer
from model_server.models.channel import Canary, Channel
from model_server.models.loader import RegistryModels
from model_server.models.registry import Registry
from model_server.server import Server
from model_server.serving import followed
from model_server.settings import ServerSettings
from model_server.tenants import TenantSource
from nowgraph.client import Client
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from stream.producer import Delivery

pytestmark = [pytest.mark.integration, pytest.mark.slow]
SETTINGS = ServerSettings(port=0, metrics_port=0, deadline_default_ms=30_000, models_poll_s=0.01, generation_poll_ms=5)
SWAPS = 50
CALLERS = 3
KEYS = 8
# What the process may grow by from the tenth swap to the last: one model more would be 40 times its size.
GROWTH_BYTES = 24 << 20


def server_of(world: Any, registry: Registry, settings: ServerSettings = SETTINGS, **options: Any) -> Server:
    """A server over the world's graph whose model is the registry's."""
    task = followed(RegistryModels(registry, "fraud", "live"), settings, world.graph.view(), None)
    return Server([TenantSource(settings, [task], world.privacy, "predictions")], settings, **options)


def change(registry: Registry, step: Callable[[Channel], Channel]) -> None:
    """Changes the live channel, which is there."""

    def changed(found: Channel | None) -> Channel:
        assert found is not None
        return step(found)

    registry.change("fraud", "live", changed)


def ask(client: Client, world: Any, key: int) -> Any:
    """One payment's score, as of a time when the graph stands still."""
    cells = {"customer_id": key % 5, "terminal_id": 1, "tx_amount": 3.0 + key}
    return client.score("transactions", 10_000 + key, cells, event_time=world.start_us + 10**10)


class Callers:
    """Threads that ask without a pause; whatever they get is kept."""

    def __init__(self, target: str, world: Any) -> None:
        self.answers: list[tuple[int, str, float]] = []
        self.errors: list[Exception] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(target, world)) for _ in range(CALLERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, target: str, world: Any) -> None:
        with Client(target, timeout_s=30) as client:
            number = 0
            while not self._stop.is_set():
                number += 1
                try:
                    score = ask(client, world, number % KEYS)
                except Exception as error:  # noqa: BLE001 - every one of them is a failed request
                    self.errors.append(error)
                else:
                    self.answers.append((number % KEYS, score.model_version, score.logit))


def test_fifty_swaps_under_load(
    world: Any, registry: Registry, pushed: Callable[..., str], until: Callable[..., None]
) -> None:
    """No request fails, every answer is that of the version that it names, and memory stays what it was."""
    versions = [pushed(), pushed(1.1)]
    process = psutil.Process()
    sizes: list[int] = []
    readers: list[int] = []
    expected: dict[tuple[int, str], float] = {}
    with BackgroundServer(lambda: server_of(world, registry)) as running:
        total = running.server.metrics.families.registry.total
        swaps = 0

        def swap() -> str:
            nonlocal swaps
            swaps += 1
            version = versions[swaps % 2]
            change(registry, lambda found: found.promote(version))
            until(lambda: total("nowgraph_model_swaps_total", outcome="swapped") >= swaps)
            return version

        with Client(running.target, timeout_s=30) as client:
            for _ in versions:
                version = swap()
                expected |= {(key, version): ask(client, world, key).logit for key in range(KEYS)}
        with Callers(running.target, world) as callers:
            for number in range(SWAPS):
                swap()
                if number % 10 == 9:
                    gc.collect()
                    sizes.append(process.memory_info().rss)
                    readers.append(world.graph.readers())
    assert callers.errors == []
    seen = Counter(version for _, version, _ in callers.answers)
    assert set(seen) == set(versions)
    wrong = [one for one in callers.answers if abs(one[2] - expected[one[0], one[1]]) > 1e-4]
    assert wrong == []
    assert sizes[-1] - sizes[0] < GROWTH_BYTES, sizes
    assert readers[-1] <= readers[0] + 5, readers


def test_what_is_refused_under_load_is_not_noticed(
    world: Any, registry: Registry, pushed: Callable[..., str], until: Callable[..., None]
) -> None:
    """A promoted version that is spoiled, and a canary that is: every answer is the old model's."""
    first, second = pushed(), pushed(1.1)
    weights = Path(registry.url) / "fraud" / second / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with BackgroundServer(lambda: server_of(world, registry)) as running:
        total = running.server.metrics.families.registry.total
        with Callers(running.target, world) as callers:
            change(registry, lambda found: found.promote(second))
            until(lambda: total("nowgraph_model_swaps_total", outcome="refused_corrupt") >= 1)
            change(registry, lambda found: found.rollback().with_canary(Canary(second, 0.5)))
            until(lambda: total("nowgraph_model_swaps_total", outcome="refused_corrupt") >= 2)
    assert callers.errors == []
    assert {version for _, version, _ in callers.answers} == {first}


def test_a_canary_comes_and_goes_under_load(
    world: Any, registry: Registry, pushed: Callable[..., str], until: Callable[..., None]
) -> None:
    """It gets its share, is promoted or taken away, and no request fails when it leaves with a full queue."""
    first, second = pushed(), pushed(1.1)
    with BackgroundServer(lambda: server_of(world, registry)) as running:
        lanes = running.server._router.lanes[0]
        with Callers(running.target, world) as callers:
            for _ in range(4):
                change(registry, lambda found: found.with_canary(Canary(second, 0.5)))
                until(lambda: lanes.canary is not None)
                count = len(callers.answers)
                until(lambda count=count: len(callers.answers) > count + 20)  # type: ignore[misc]
                change(registry, lambda found: found.with_canary(None))
                until(lambda: lanes.canary is None)
    assert callers.errors == []
    by_key = Counter((key, version) for key, version, _ in callers.answers)
    assert {version for _, version in by_key} == {first, second}
    sides = {key for key, version in by_key if version == second}
    assert 0 < len(sides) < KEYS, "a key belongs to one side, and not all to one"


class Trail:
    """A log in memory that confirms at once."""

    def __init__(self) -> None:
        self.records: list[service_pb2.Prediction] = []

    def publish(self, topic: str, *, value: bytes | None, on_delivery: Any = None, **_: object) -> None:
        """Takes a record."""
        assert value is not None
        self.records.append(service_pb2.Prediction.FromString(value))
        on_delivery(Delivery(topic, 0, len(self.records), None))

    def flush(self, timeout_s: float) -> int:
        """Nothing waits."""
        return 0


def test_shadows_stand_beside_every_answer(
    world: Any, registry: Registry, pushed: Callable[..., str], until: Callable[..., None]
) -> None:
    """Each answer is recorded once, with what the shadow said or, where it was skipped, alone; callers see none."""
    first, second = pushed(), pushed(1.1)
    change(registry, lambda found: found.with_shadows([second]))
    trail = Trail()
    with BackgroundServer(lambda: server_of(world, registry, event_log=trail)) as running:
        total = running.server.metrics.families.registry.total
        with Callers(running.target, world) as callers:
            until(lambda: total("nowgraph_shadow_rows_total", outcome="scored") >= 50)
    assert callers.errors == []
    assert len(trail.records) == len(callers.answers)
    assert {record.response.model_version for record in trail.records} == {first}
    shadowed = [record for record in trail.records if record.shadows]
    assert len(shadowed) >= 50
    assert {(one.model_version, one.task) for record in shadowed for one in record.shadows} == {(second, "fraud")}
    by_key: dict[int, set[float]] = {}
    for record in shadowed:
        by_key.setdefault(record.row.key.parts[0].integer, set()).add(round(record.shadows[0].logit, 3))
        assert abs(record.shadows[0].logit - record.response.logit) > 1e-6
    assert all(len(said) == 1 for said in by_key.values()), "the same row, the same shadow, another answer"
