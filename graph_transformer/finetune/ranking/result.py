"""What the training of a ranking leaves: a checkpoint, and figures of every ranker on the same questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graph_transformer.finetune.ranking.metrics import RankingMetrics
from graph_transformer.finetune.ranking.time_budget import Cut
from graph_transformer.task import Task

OURS = "nowgraph"
"""The name of the whole ranker among those measured; the others are its parts and the floors."""


@dataclass(frozen=True)
class RankingResult:
    """A trained ranking.

    metrics: by split (`validation`, `test`) and ranker: `OURS`, its parts alone (the ablation), floors. recall: by
    split and source of candidates, the share of the items that are among them; `union` is of all together.
    cuts: what there was no time for, where there was a budget.
    """

    folder: Path
    version: str
    task: Task
    metrics: Mapping[str, Mapping[str, RankingMetrics]]
    recall: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seconds: float = 0.0
    cuts: tuple[Cut, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "checkpoint": str(self.folder),
            "version": self.version,
            "task": self.task.name,
            "seconds": self.seconds,
            "metrics": metrics_to_dict(self.metrics),
            "recall": {split: dict(sources) for split, sources in self.recall.items()},
            "cuts": [cut.to_dict() for cut in self.cuts],
        }


def metrics_to_dict(metrics: Mapping[str, Mapping[str, RankingMetrics]]) -> dict[str, Any]:
    """Return plain JSON values of metrics by split and ranker."""
    return {split: {name: each.to_dict() for name, each in rankers.items()} for split, rankers in metrics.items()}
