"""What a ranking's checkpoint holds beside weights and statistics: who the items are, and how its fusion is built.

The fusion is a module of its own: `fusion` says in plain values how it is built, its weights are the model's under
`fusion.`; None is a ranking of towers alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graph_transformer.ranking.fusion import Fusion
from graph_transformer.ranking.identity import Identities


@dataclass(frozen=True, slots=True)
class RankingParts:
    """Identities of items, and the fusion's own plain values (configuration and feature statistics)."""

    identities: Identities
    fusion: Mapping[str, Any] | None = None

    def build_fusion(self) -> Fusion | None:
        """Return a new fusion of these values, weights not loaded; None where there is none."""
        return None if self.fusion is None else Fusion.from_dict(self.fusion)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"identities": self.identities.to_dict(), "fusion": None if self.fusion is None else dict(self.fusion)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RankingParts:
        """Build from `to_dict`'s values; raises KeyError or TypeError for anything else."""
        return cls(Identities.from_dict(values["identities"]), values["fusion"])
