"""The last word on candidates: small networks over their features, several that answer together.

    float32[N, F] ─► standardised ─► members (two layers and a straight line each) ─► mean ─► float32[N]

Scores compare the candidates of one question; they are the logits of a softmax over them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

MEMBERS_MAX = 16
LIMIT = 6.0
"""Standard deviations beyond which a feature says no more: a graph that has grown must not run away with the answer."""


@dataclass(frozen=True, slots=True)
class FusionConfig:
    """What a fusion is built from: names of its features in order, mean and spread of each, and its size."""

    features: tuple[str, ...]
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    width: int
    members: int
    dropout: float = 0.0


class Fusion(nn.Module):
    """Scores of candidates from their features."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: FusionConfig) -> None:
        """Raises ValueError where names, means and spreads are not as many, or a size is out of range."""
        super().__init__()
        size = len(config.features)
        if not size == len(config.mean) == len(config.spread):
            raise ValueError("features: as many means and spreads as names are needed")
        if not 1 <= config.members <= MEMBERS_MAX or config.width < 1:
            raise ValueError(f"members: expected 1 to {MEMBERS_MAX} of a positive width, found {config.members}")
        self.config = config
        self.register_buffer("mean", torch.tensor(config.mean), persistent=False)
        self.register_buffer("scale", 1.0 / torch.tensor(config.spread), persistent=False)
        members, width = config.members, config.width
        self.first, self.first_bias = _layer(members, size, width)
        self.second, self.second_bias = _layer(members, width, width)
        self.last, _ = _layer(members, width, 1)
        self.line = nn.Parameter(torch.zeros(members, size, 1))

    def members(self, features: Tensor) -> Tensor:
        """Return float32[members, N] of features float32[N, F]."""
        known = ((features - self.mean) * self.scale).clamp(-LIMIT, LIMIT)
        dropout = self.config.dropout
        first = functional.gelu(torch.matmul(known, self.first) + self.first_bias)
        first = functional.dropout(first, dropout, self.training)
        second = functional.gelu(torch.bmm(first, self.second) + self.second_bias)
        second = functional.dropout(second, dropout, self.training)
        found: Tensor = (torch.bmm(second, self.last) + torch.matmul(known, self.line)).squeeze(2)
        return found

    def forward(self, features: Tensor) -> Tensor:
        """Return float32[N] of features float32[N, F]."""
        return self.members(features).mean(dim=0)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; the weights are kept apart."""
        values = asdict(self.config)
        return values | {name: list(values[name]) for name in ("features", "mean", "spread")}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from `to_dict`'s values; raises KeyError, TypeError or ValueError for anything else."""
        lists = {name: tuple(values[name]) for name in ("features", "mean", "spread")}
        return cls(FusionConfig(**{**values, **lists}))


def _layer(members: int, inputs: int, outputs: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Return weights and biases of a linear layer for each member, drawn as torch does for one."""
    bound = inputs**-0.5
    weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
    return weight, nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound))
