"""How large a demo's shop is, how it is trained, and how its visitor clicks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from nowgraph.demo_rank.shop import ShopSettings

# Small towers and few candidates: enough to follow a visitor, within a minute on two cores. By default all are more.
_PLAN: Mapping[str, Any] = {
    "model": {"width": 16, "layers": 1, "heads": 4},
    "training": {"steps": 100, "batch": 64},
    "ranking": {
        "dimension": 16,
        "history": 8,
        "negatives": 200,
        "co_visit": 60,
        "far": 0,
        "popular": 15,
        "new": 15,
        "nearest": 40,
        "visits": 64,
        "window": 10,
        "fusion_span": "7d",
        "fusion_steps": 150,
        "fusion_width": 16,
    },
}


@dataclass(frozen=True, slots=True)
class RankDemoSettings:
    """One run. `plan` is what of the model and its training the task says in place of the defaults."""

    shop: ShopSettings = field(default_factory=ShopSettings)
    plan: Mapping[str, Any] = field(default_factory=lambda: dict(_PLAN))
    # Items of each list: what fits on a screen beside the list before it.
    places: int = 8
    clicks: int = 4
    # Customers who buy, after the product clicked last, one that was listed a moment ago.
    buyers: int = 10
    # How far down the product is looked for that was listed.
    looked_at: int = 200
    # Between two clicks of the visitor, on the shop's clock.
    pause_s: float = 20.0
    # A list that takes longer than this on a loopback has failed.
    timeout_s: float = 10.0
    # Until the server must have loaded its history.
    serve_timeout_s: float = 120.0
    output: Path = Path("demo-rank-output")

    def into(self, output: Path) -> Self:
        """The same run with its files in ``output``."""
        return replace(self, output=output)
