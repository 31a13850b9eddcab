"""The shape of a model and how it is kept from overfitting: plain values, part of a task and of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from graph_transformer.errors import TaskError

MEMBERS_MAX = 16


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Options of the model, by their names in a task file.

    width: floats per row vector. layers: attention blocks. heads: attention heads (divides width). dropout: on row
    vectors, block outputs and the head. token_dropout: in training each neighborhood loses a share of its rows drawn
    from 0 to this. members: models whose outputs are averaged. The defaults are those of a week of payments; longer
    histories bear width 64, two layers and less dropout.
    """

    width: int = 32
    layers: int = 1
    heads: int = 8
    dropout: float = 0.3
    token_dropout: float = 0.5
    members: int = 1

    def __post_init__(self) -> None:
        if self.width < 1 or self.heads < 1 or self.width % self.heads:
            raise TaskError("model.width", f"a positive multiple of heads ({self.heads})", self.width)
        if not 1 <= self.layers <= 16:
            raise TaskError("model.layers", "an integer from 1 to 16", self.layers)
        if not 1 <= self.members <= MEMBERS_MAX:
            raise TaskError("model.members", f"an integer from 1 to {MEMBERS_MAX}", self.members)
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
