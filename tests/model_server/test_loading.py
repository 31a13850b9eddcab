from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from graph_transformer.errors import CheckpointCorrupt, CheckpointMismatch
from graph_transformer.predictor import Predictor
from graph_transformer.ranking.ranker import Ranker
from model_server import loading
from model_server.config import TaskConfig
from model_server.errors import NotConfiguredError
from model_server.loading import load_model
from model_server.models.loader import RegistryModels
from model_server.serving import models_of
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


@pytest.mark.parametrize("settings", [{"device": "cuda:97"}, {"device": "cuda", "fixed_shape": True}])
def test_a_device_that_cannot_be_used_is_refused(world: Any, settings: dict[str, Any]) -> None:
    """At the start, by the setting's name: one that is not there, and a GPU for answers of equal bits."""
    with pytest.raises(NotConfiguredError, match="NOWGRAPH_SERVER_DEVICE"):
        load_model(world.checkpoint, world.graph.view(), ServerSettings(**settings))


def test_the_device_reaches_whatever_answers(
    world: Any, shop: Any, ranking_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What scores and what makes lists, bound where the setting says; a model of a registry is verified there too."""
    asked: list[str] = []

    def bound(*_: object, device: str, **__: object) -> object:
        asked.append(device)
        return object()

    monkeypatch.setattr(loading, "check_device", lambda settings: None)
    monkeypatch.setattr(loading, "Predictor", bound)
    monkeypatch.setattr("graph_transformer.ranking.ranker.Ranker", bound)
    settings = ServerSettings(device="cuda:3")
    load_model(world.checkpoint, world.graph.view(), settings)
    load_model(ranking_checkpoint, shop.graph.view(), settings)
    assert asked == ["cuda:3", "cuda:3"]
    models = models_of(TaskConfig(name="fraud", registry="/none"), settings)
    assert isinstance(models, RegistryModels)
    assert models._device == "cuda:3"


def test_what_is_no_checkpoint_of_this_graph_is_refused(world: Any, ranking_checkpoint: Path, tmp_path: Path) -> None:
    """An empty folder, or a model of other tables."""
    with pytest.raises(CheckpointCorrupt):
        load_model(tmp_path, world.graph.view(), ServerSettings())
    with pytest.raises(CheckpointMismatch):
        load_model(ranking_checkpoint, world.graph.view(), ServerSettings())
