"""What the metrics of every kind of target share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Metrics(ABC):
    """Metrics of `count` examples; a number that the examples leave undefined is NaN."""

    count: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, null where a number is undefined."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @abstractmethod
    def figures(self) -> dict[str, str]:
        """Return what a person is shown, by short name, in order."""


def shown(value: float | None, digits: int = 3) -> str:
    """Return a number for people; a dash where there is none."""
    return "-" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
