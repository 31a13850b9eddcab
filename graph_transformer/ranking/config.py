"""The options of a ranking: plain values, part of a task and of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from graph_transformer.errors import TaskError


@dataclass(frozen=True, slots=True)
class RankingConfig:
    """Options of a ranking, by their names in a task file's `ranking` section."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RankingConfig:
        """Build from a task's `ranking` mapping; raises TaskError for a name that does not exist."""
        names = [field.name for field in fields(cls)]
        for name in values:
            if name not in names:
                raise TaskError(f"ranking.{name}", f"one of {', '.join(names)}", name)
        return cls(**values)
