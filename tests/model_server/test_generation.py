from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

from graph_transformer.ranking.lists import RankQuestion
from model_server.generation import Follower, Generations, RankServing, Served, Serving, serving_over
from model_server.loading import load_model
from model_server.settings import ServerSettings
from temporal_graph.graph import TemporalGraph
from temporal_graph.view import GraphView


async def test_a_new_generation_is_followed(world: Any, tmp_path: Path) -> None:
    """When the next writer publishes its generation, what is served becomes that one; the old view still reads."""

    def attach() -> Serving:
        view = GraphView.attach(world.schema, tmp_path)
        return Serving.over(view, world.predictor(view))

    with TemporalGraph.create(world.schema, arena=tmp_path, arena_bytes=64 << 20) as first:
        first.apply([world.event(1, world.start_us)], backfill=True)
        generations = Generations(attach())
    old = generations.current()
    follower = asyncio.create_task(Follower(generations, attach, poll_s=0.005).run())
    await asyncio.sleep(0.05)
    assert generations.current() is old
    with TemporalGraph.create(world.schema, arena=tmp_path, arena_bytes=64 << 20, publish=False) as second:
        second.apply([world.event(n, world.start_us + n) for n in range(2)], backfill=True)
        await asyncio.sleep(0.05)
        assert generations.current() is old
        second.publish_generation()
        for _ in range(200):
            if generations.current() is not old:
                break
            await asyncio.sleep(0.01)
        follower.cancel()
    new = generations.current()
    assert new.watch.generation == old.watch.generation + 1
    assert new.watch.row_count("transactions") == 2
    assert old.watch.row_count("transactions") == 1


def test_lists_of_a_new_generation_are_its_own(shop: Any, tmp_path: Path, ranking_checkpoint: Path) -> None:
    """A ranker is attached like a predictor; what the old generation held goes with its serving."""

    def attach() -> Served:
        view = GraphView.attach(shop.schema, tmp_path)
        return serving_over(view, load_model(ranking_checkpoint, view, ServerSettings()))

    def listed(generations: Generations) -> list[Any]:
        serving = generations.current()
        assert isinstance(serving, RankServing)
        return serving.ranker.rank([RankQuestion(None, (), shop.start_us + shop.day_us)]).lists[0].key

    with TemporalGraph.create(shop.schema, arena=tmp_path, arena_bytes=64 << 20) as first:
        first.apply([shop.item(1, shop.start_us)], backfill=True)
        generations = Generations(attach())
        assert listed(generations) == [1]
    with TemporalGraph.create(shop.schema, arena=tmp_path, arena_bytes=64 << 20) as second:
        second.apply([shop.item(number, shop.start_us) for number in (1, 2)], backfill=True)
        alone = second.readers()
        assert generations.current().watch.superseded
        generations.replace(attach())
        assert sorted(listed(generations)) == [1, 2]
        generations.release()
        gc.collect()
        assert second.readers() == alone


def test_a_generations_memory_goes_with_its_serving(world: Any, tmp_path: Path) -> None:
    """Once nothing serves from it, an old generation holds no reader slot: its arena can be unmapped."""
    with TemporalGraph.create(world.schema, arena=tmp_path, arena_bytes=64 << 20) as graph:
        alone = graph.readers()
        view = GraphView.attach(world.schema, tmp_path)
        generations = Generations(Serving.over(view, world.predictor(view)))
        assert graph.readers() > alone
        other = world.graph.view()
        generations.replace(Serving.over(other, world.predictor(other)))
        del view
        gc.collect()
        assert graph.readers() == alone


async def test_a_generation_that_cannot_be_attached_leaves_the_old_one(world: Any, tmp_path: Path) -> None:
    """A failing attachment is tried again, and meanwhile the old generation is served."""
    loop = asyncio.get_running_loop()
    tried_twice = asyncio.Event()
    tries = 0

    def attach() -> Serving:
        nonlocal tries
        tries += 1
        if tries == 2:
            loop.call_soon_threadsafe(tried_twice.set)
        raise OSError("no memory")

    with TemporalGraph.create(world.schema, arena=tmp_path, arena_bytes=64 << 20):
        view = GraphView.attach(world.schema, tmp_path)
        generations = Generations(Serving.over(view, world.predictor(view)))
    old = generations.current()
    with TemporalGraph.create(world.schema, arena=tmp_path, arena_bytes=64 << 20):
        follower = asyncio.create_task(Follower(generations, attach, poll_s=0.005).run())
        await asyncio.wait_for(tried_twice.wait(), 5)
        follower.cancel()
    assert generations.current() is old
