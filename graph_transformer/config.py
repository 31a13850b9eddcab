"""The shape of a model and how it is kept from overfitting: plain values, part of a task and of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from graph_transformer.errors import TaskError

MEMBERS_MAX = 16
CELLS = ("sum", "attention")
_RANGES = (
    ("layers", 1, 16),
    ("sums", 0, 64),
    ("centroids", 0, 65_536),
    ("mutual", 0, 16),
    ("members", 1, MEMBERS_MAX),
)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Options of the model, by their names in a task file.

    width: floats per row vector. layers: attention blocks. heads: attention heads (divides width). sums: gated sums
    beside them, 0 for none. counts: the seed reads how many rows of each path there are by age. cells: how a row's
    cells become one vector, `sum` or `attention`. centroids: learned points of the whole graph that the seed attends
    to. mutual: blocks in which rows attend to each other first. dropout: on row vectors, block outputs and the head.
    token_dropout: in training each neighborhood loses a share of its rows drawn from 0 to this. members: models whose
    outputs are averaged. The defaults are those of a week of payments; longer histories bear width 64, two layers and
    less dropout.
    """

    width: int = 32
    layers: int = 1
    heads: int = 8
    sums: int = 4
    counts: bool = True
    cells: str = "sum"
    centroids: int = 0
    mutual: int = 0
    dropout: float = 0.3
    token_dropout: float = 0.5
    members: int = 1

    def __post_init__(self) -> None:
        if self.width < 1 or self.heads < 1 or self.width % self.heads:
            raise TaskError("model.width", f"a positive multiple of heads ({self.heads})", self.width)
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise TaskError(f"model.{name}", f"an integer from {low} to {high}", value)
        if self.cells not in CELLS:
            raise TaskError("model.cells", f"one of {', '.join(CELLS)}", self.cells)
        for name in ("dropout", "token_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise TaskError(f"model.{name}", "a number from 0 to below 1", getattr(self, name))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Build from a task's `model` mapping; raises TaskError for a name that does not exist."""
        names = [field.name for field in fields(cls)]
        for name in values:
            if name not in names:
                raise TaskError(f"model.{name}", f"one of {', '.join(names)}", name)
        return cls(**values)
