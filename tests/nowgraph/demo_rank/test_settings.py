from __future__ import annotations

from pathlib import Path

from graph_transformer.config import ModelConfig
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.training import Training
from nowgraph.demo_rank.settings import RankDemoSettings


def test_the_plan_is_one_that_a_task_can_have() -> None:
    """Every option of it exists and is in its range."""
    plan = RankDemoSettings().plan
    ModelConfig.from_dict(plan["model"])
    Training.from_dict(plan["training"])
    RankingConfig.from_dict(plan["ranking"])


def test_only_the_files_go_elsewhere(tmp_path: Path) -> None:
    """Everything else stays."""
    settings = RankDemoSettings(places=3).into(tmp_path)
    assert (settings.output, settings.places) == (tmp_path, 3)
