from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

from graph_transformer.ranking.lists import RankQuestion
from model_server.generation import Generations, RankServing, Served, Serving, serving_over
from model_server.loading import load_model
from model_server.settings import ServerSettings
from temporal_graph.graph import TemporalGraph
from temporal_graph.view import GraphView


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
