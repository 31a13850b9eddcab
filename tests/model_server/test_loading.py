from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from graph_transformer.errors import CheckpointCorrupt, CheckpointMismatch
from graph_transformer.predictor import Predictor
from graph_transformer.ranking.ranker import Ranker
from model_server.errors import NotConfiguredError
from model_server.loading import load_model
from model_server.settings import ServerSettings


def test_the_kind_of_the_task_decides_what_answers(world: Any, shop: Any, ranking_checkpoint: Path) -> None:
    """A ranking makes lists, everything else scores; the folder is all that is given."""
    settings = ServerSettings(compute_threads=1)
    scores = load_model(world.checkpoint, world.graph.view(), settings)
    lists = load_model(ranking_checkpoint, shop.graph.view(), settings)
    assert isinstance(scores, Predictor)
    assert isinstance(lists, Ranker)
    assert (scores.task.name, lists.task.name) == ("fraud", "next_click")
    assert torch.get_num_threads() == 1


def test_a_fixed_shape_is_passed_on(world: Any) -> None:
    """To the predictor that computes each row alone."""
    predictor = load_model(world.checkpoint, world.graph.view(), ServerSettings(fixed_shape=True))
    assert isinstance(predictor, Predictor)
    assert predictor._fixed_shape


def test_a_fixed_shape_is_no_option_of_lists(shop: Any, ranking_checkpoint: Path) -> None:
    """Refused at the start, not ignored."""
    with pytest.raises(NotConfiguredError, match="next_click"):
        load_model(ranking_checkpoint, shop.graph.view(), ServerSettings(fixed_shape=True))


def test_what_is_no_checkpoint_of_this_graph_is_refused(world: Any, ranking_checkpoint: Path, tmp_path: Path) -> None:
    """An empty folder, or a model of other tables."""
    with pytest.raises(CheckpointCorrupt):
        load_model(tmp_path, world.graph.view(), ServerSettings())
    with pytest.raises(CheckpointMismatch):
        load_model(ranking_checkpoint, world.graph.view(), ServerSettings())
