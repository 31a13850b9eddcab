from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from model_server.calls import Parts
from model_server.generation import Generations, Serving
from model_server.metrics import Metrics
from model_server.models.channel import Canary, Channel
from model_server.models.lanes import Lanes
from model_server.models.loader import Loader, RegistryModels
from model_server.models.registry import Registry
from model_server.models.switch import Switch
from model_server.predictions import Predictions
from model_server.request import RequestReader
from model_server.settings import ServerSettings
from temporal_graph.graph import TemporalGraph
from temporal_graph.view import GraphView

Pushed = Callable[..., str]
SETTINGS = ServerSettings(port=0, metrics_port=0)


class Watched:
    """A task that follows its channel; `look` is one look of its switch."""

    def __init__(self, world: Any, registry: Registry, *, attach: Callable[[], GraphView] | None = None) -> None:
        self.metrics = Metrics().for_task("", "fraud")
        self.total = self.metrics.families.registry.total
        loader = Loader(RegistryModels(registry, "fraud", "live"), SETTINGS)
        wanted = loader.models.wanted()
        serving = loader.live(wanted, attach() if attach is not None else world.graph.view(), print)
        assert isinstance(serving, Serving)
        target = serving.predictor.task.target
        parts = Parts(
            settings=SETTINGS,
            metrics=self.metrics,
            reader=RequestReader(world.schema, SETTINGS, task="fraud", target=target, privacy=world.privacy),
            predictions=Predictions(None, "predictions", SETTINGS, self.metrics),
            privacy=world.privacy,
        )
        self.lanes = Lanes(Generations(serving), parts)
        self.lanes.start()
        self.switch = Switch(self.lanes, loader, wanted, attach=attach, generation_poll_s=0.01, models_poll_s=0.0)

    async def look(self) -> str:
        """Looks once, and gives the live version."""
        await self.switch.look()
        return self.lanes.version

    @property
    def canary(self) -> tuple[str, float] | None:
        """The canary's version and share."""
        lane = self.lanes.canary
        return None if lane is None else (lane.generations.current().version, lane.share)

    @property
    def shadows(self) -> list[str]:
        """The shadows' versions."""
        serving = self.lanes.generations.current()
        assert isinstance(serving, Serving)
        return [shadow.version for shadow in serving.shadows]

    def outcomes(self) -> dict[str, float]:
        """What became of models that were asked for."""
        names = ("swapped", "refused_corrupt", "refused_golden", "refused_unavailable")
        return {name: self.total("nowgraph_model_swaps_total", outcome=name) for name in names}


def change(registry: Registry, step: Callable[[Channel], Channel]) -> None:
    """Changes the live channel, which is there."""

    def changed(found: Channel | None) -> Channel:
        assert found is not None
        return step(found)

    registry.change("fraud", "live", changed)


def spoil(registry: Registry, version: str) -> None:
    """Cuts a version's weights short."""
    path = Path(registry.url) / "fraud" / version / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


async def test_a_task_follows_its_channel(world: Any, registry: Registry, pushed: Pushed) -> None:
    """Promoted, given a canary and shadows, the canary promoted, rolled back: each at the next look."""
    first, second, third = pushed(), pushed(1.1), pushed(1.2)
    watched = Watched(world, registry)
    assert await watched.look() == first
    change(registry, lambda found: found.promote(second).with_shadows([third]))
    assert (await watched.look(), watched.shadows) == (second, [third])
    change(registry, lambda found: found.with_canary(Canary(third, 0.25)))
    assert (await watched.look(), watched.canary) == (second, (third, 0.25))
    change(registry, lambda found: found.with_canary(Canary(third, 0.75)))
    assert (await watched.look(), watched.canary) == (second, (third, 0.75))
    change(registry, lambda found: found.promote())
    assert (await watched.look(), watched.canary, watched.shadows) == (third, None, [])
    change(registry, lambda found: found.rollback())
    assert await watched.look() == second
    loaded = "nowgraph_model_loaded_timestamp_seconds"
    assert watched.total(loaded, model_version=second, role="live") > 0
    assert watched.total(loaded, model_version=third) == 0
    assert watched.outcomes()["swapped"] == 4
    await watched.lanes.close()


async def test_what_is_refused_leaves_all_as_it_was(world: Any, registry: Registry, pushed: Pushed) -> None:
    """A spoiled version is refused once, as live model, canary and shadow; what answers goes on answering."""
    first, second, third = pushed(), pushed(1.1), pushed(1.2)
    spoil(registry, second)
    watched = Watched(world, registry)
    change(registry, lambda found: found.promote(second))
    for _ in range(3):
        assert await watched.look() == first
    assert watched.outcomes() == {"swapped": 0, "refused_corrupt": 1, "refused_golden": 0, "refused_unavailable": 0}
    change(registry, lambda found: found.rollback().with_canary(Canary(second, 0.5)).with_shadows([second, third]))
    for _ in range(3):
        assert (await watched.look(), watched.canary, watched.shadows) == (first, None, [third])
    assert watched.outcomes()["refused_corrupt"] == 3
    change(registry, lambda found: found.promote(third))
    assert await watched.look() == third
    await watched.lanes.close()


async def test_an_unreadable_channel_changes_nothing(world: Any, registry: Registry, pushed: Pushed) -> None:
    """Told once, and followed again as soon as it can be read."""
    first, second = pushed(), pushed(1.1)
    watched = Watched(world, registry)
    path = Path(registry.url) / "fraud" / "channels" / "live.json"
    change(registry, lambda found: found.promote(second))
    whole = path.read_text()
    path.write_text(whole[:20])
    for _ in range(3):
        assert await watched.look() == first
    assert watched.outcomes()["refused_unavailable"] == 1
    path.write_text(whole)
    assert await watched.look() == second
    await watched.lanes.close()


async def test_a_registry_that_hangs_holds_nothing_up(
    world: Any, registry: Registry, pushed: Pushed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said once; a new generation is followed meanwhile, and what was promoted once the registry answers.

    Nor does it hold up the end of the process: its thread is a daemon.
    """
    monkeypatch.setattr("model_server.models.switch.READ_S", 0.2)
    first, second = pushed(), pushed(1.1)
    arena, answers = tmp_path / "arena", threading.Event()
    read = registry.channel

    def hangs(*asked: str) -> Channel:
        assert answers.wait(60)
        return read(*asked)

    with TemporalGraph.create(world.schema, arena=arena, arena_bytes=64 << 20):
        watched = Watched(world, registry, attach=partial(GraphView.attach, world.schema, arena))
    change(registry, lambda found: found.promote(second))
    monkeypatch.setattr(registry, "channel", hangs)
    with capture_logs() as logs:
        for _ in range(3):
            assert await asyncio.wait_for(watched.look(), 10) == first
    assert [one["reason"] for one in logs] == ["no answer within 0.2 s, and none since"]
    assert watched.outcomes()["refused_unavailable"] == 1
    assert [one.daemon for one in threading.enumerate() if one.name == "nowgraph-models"] == [True]
    with TemporalGraph.create(world.schema, arena=arena, arena_bytes=64 << 20):
        assert await asyncio.wait_for(watched.look(), 30) == first
        assert watched.lanes.generations.current().watch.generation == 2
        answers.set()
        async with asyncio.timeout(30):
            while await watched.look() != second:  # noqa: ASYNC110 - of a thread, not of this loop
                await asyncio.sleep(0.02)
    await watched.lanes.close()


async def test_a_broken_switch_ends_nothing(
    world: Any, registry: Registry, pushed: Pushed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect in a look is logged, and the next look is tried."""
    first = pushed()
    watched = Watched(world, registry)
    looks, again = 0, asyncio.Event()

    async def look() -> None:
        nonlocal looks
        looks += 1
        if looks > 1:
            again.set()
        raise RuntimeError("a defect")

    monkeypatch.setattr(watched.switch, "look", look)
    monkeypatch.setattr("model_server.models.switch.RETRY_S", 0.01)
    running = asyncio.create_task(watched.switch.run())
    async with asyncio.timeout(60):
        await again.wait()
    assert not running.done()
    running.cancel()
    assert watched.lanes.version == first
    await watched.lanes.close()


async def test_swaps_leave_no_reader_behind(world: Any, registry: Registry, pushed: Pushed) -> None:
    """After ten swaps, with canary and shadow, the graph has as many readers as after two."""
    first, second = pushed(), pushed(1.1)
    change(registry, lambda found: found.with_canary(Canary(second, 0.5)).with_shadows([second]))
    watched = Watched(world, registry)
    await watched.look()
    counts = []
    for _ in range(5):
        for version in (second, first):
            change(registry, lambda found, version=version: replace(found.promote(version), shadows=()))  # type: ignore[misc]
            assert await watched.look() == version
        gc.collect()
        counts.append(world.graph.readers())
    assert counts[-1] == counts[0]
    await watched.lanes.close()


async def test_a_new_generation_is_followed(world: Any, registry: Registry, pushed: Pushed, tmp_path: Path) -> None:
    """When the next writer publishes its generation, all is of that one: live model, canary, shadow."""
    first, second = pushed(), pushed(1.1)
    change(registry, lambda found: found.with_canary(Canary(second, 0.5)).with_shadows([second]))
    arena = tmp_path / "arena"
    with TemporalGraph.create(world.schema, arena=arena, arena_bytes=64 << 20) as one:
        one.apply([world.event(1, world.start_us)], backfill=True)
        watched = Watched(world, registry, attach=partial(GraphView.attach, world.schema, arena))
        await watched.look()
    old = watched.lanes.generations.current()
    with TemporalGraph.create(world.schema, arena=arena, arena_bytes=64 << 20, publish=False) as two:
        two.apply([world.event(n, world.start_us + n) for n in range(2)], backfill=True)
        await watched.look()
        assert watched.lanes.generations.current() is old
        two.publish_generation()
        assert await watched.look() == first
    new = watched.lanes.generations.current()
    assert new.watch.generation == old.watch.generation + 1
    assert (new.watch.row_count("transactions"), old.watch.row_count("transactions")) == (2, 1)
    assert watched.lanes.canary is not None
    assert watched.lanes.canary.generations.current().watch.generation == new.watch.generation
    assert (watched.canary, watched.shadows) == ((second, 0.5), [second])
    await watched.lanes.close()


async def test_a_new_generation_takes_the_model_that_answers(
    world: Any, registry: Registry, pushed: Pushed, tmp_path: Path
) -> None:
    """A promoted version that is refused does not keep the server from the new graph: the old model goes on there."""
    first, second = pushed(), pushed(1.1)
    arena = tmp_path / "arena"
    with TemporalGraph.create(world.schema, arena=arena, arena_bytes=64 << 20) as one:
        one.apply([world.event(1, world.start_us)], backfill=True)
        watched = Watched(world, registry, attach=partial(GraphView.attach, world.schema, arena))
        spoil(registry, second)
        change(registry, lambda found: found.promote(second))
        assert await watched.look() == first
    with TemporalGraph.create(world.schema, arena=arena, arena_bytes=64 << 20) as two:
        two.apply([world.event(1, world.start_us)], backfill=True)
        assert await watched.look() == first
        assert watched.lanes.generations.current().watch.generation == 2
    await watched.lanes.close()


async def test_a_canary_that_cannot_follow_to_a_new_generation_ends(
    world: Any, registry: Registry, pushed: Pushed, tmp_path: Path
) -> None:
    """Its keys are the live model's, who reads the graph that is written, and none stays on the one that is not."""
    first, second = pushed(), pushed(1.1)
    change(registry, lambda found: found.with_canary(Canary(second, 0.5)))
    arena = tmp_path / "arena"
    with TemporalGraph.create(world.schema, arena=arena, arena_bytes=64 << 20) as one:
        one.apply([world.event(1, world.start_us)], backfill=True)
        watched = Watched(world, registry, attach=partial(GraphView.attach, world.schema, arena))
        assert (await watched.look(), watched.canary) == (first, (second, 0.5))
    spoil(registry, second)
    with TemporalGraph.create(world.schema, arena=arena, arena_bytes=64 << 20):
        assert (await watched.look(), watched.canary) == (first, None)
        assert watched.lanes.generations.current().watch.generation == 2
    await watched.lanes.close()


async def test_a_generation_that_cannot_be_attached_leaves_the_old_one(
    world: Any, registry: Registry, pushed: Pushed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing attachment is tried again, and meanwhile the old generation is served."""
    monkeypatch.setattr("model_server.models.switch.GENERATION_RETRY_S", 0.0)
    monkeypatch.setattr("model_server.models.switch.RETRY_S", 0.0)
    pushed()
    arena, fail = tmp_path / "arena", False

    def attach() -> GraphView:
        if fail:
            raise OSError("no memory")
        return GraphView.attach(world.schema, arena)

    with TemporalGraph.create(world.schema, arena=arena, arena_bytes=64 << 20):
        watched = Watched(world, registry, attach=attach)
    old, fail = watched.lanes.generations.current(), True
    with TemporalGraph.create(world.schema, arena=arena, arena_bytes=64 << 20):
        for _ in range(2):
            await watched.look()
        assert watched.lanes.generations.current() is old
        fail = False
        await watched.look()
        assert watched.lanes.generations.current().watch.generation == 2
    await watched.lanes.close()


@pytest.mark.parametrize(("failed", "ends"), [(0, "promoted"), (3, "ended")])
async def test_a_canary_is_decided_by_its_rule(
    world: Any, registry: Registry, pushed: Pushed, failed: int, ends: str
) -> None:
    """After as many answers as the channel says it is live; failing more often than it may, it is gone at once."""
    first, second = pushed(), pushed(1.1)
    change(registry, lambda found: found.with_canary(Canary(second, 0.5, promote_after=100, failures_max=0.02)))
    watched = Watched(world, registry)
    await watched.look()
    watched.lanes.canary_asked(99 if not failed else 4, failed=failed)
    if not failed:
        assert (await watched.look(), watched.canary) == (first, (second, 0.5))
        watched.lanes.canary_asked(1)
    await watched.look()
    assert (await watched.look(), watched.canary) == (second if ends == "promoted" else first, None)
    channel = registry.channel("fraud")
    assert (channel.version, channel.canary) == (second if ends == "promoted" else first, None)
    await watched.lanes.close()
