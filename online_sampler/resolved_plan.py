"""A sampling plan laid over a schema's edge types, as the arrays the native sampler reads."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from online_sampler.errors import PlanError
from online_sampler.plan import PerLink, SamplingPlan, Strategy

# The native sampler's codes, by position.
_STRATEGIES = (Strategy.MOST_RECENT, Strategy.UNIFORM, Strategy.RECENCY_WEIGHTED)


@dataclass(frozen=True, slots=True)
class ResolvedPlan:
    """One cell per hop and edge type, in the schema's order of edge types.

    Attributes:
        num_neighbors: int32 [hops, edge types].
        strategy: uint8 [hops, edge types], 0 most_recent, 1 uniform, 2 recency_weighted.
        half_life: float64 [hops, edge types], in recency ranks.
        node_limit: the most rows of one seed's neighborhood, the seed among them.
    """

    num_neighbors: npt.NDArray[np.int32]
    strategy: npt.NDArray[np.uint8]
    half_life: npt.NDArray[np.float64]
    node_limit: int


def resolve(plan: SamplingPlan, edge_types: Sequence[str]) -> ResolvedPlan:
    """Checks every link the plan names and lays the plan out for the native sampler.

    Args:
        plan: the plan as parsed.
        edge_types: `Schema.edge_types`.

    Raises:
        PlanError: the plan names a link that the schema does not have; says the nearest that it has.
    """
    fields: dict[str, tuple[PerLink[Any], ...]] = {
        "num_neighbors": plan.num_neighbors,
        "strategy": plan.strategy,
        "half_life": plan.half_life,
    }
    for field, hops in fields.items():
        for index, hop in enumerate(hops):
            _check_names(f"{field}.hop{index + 1}", hop, edge_types)
    shape = (plan.hops, len(edge_types))

    def laid_out(hops: tuple[PerLink[Any], ...]) -> list[Any]:
        return [hop.of(name) for hop in hops for name in edge_types]

    return ResolvedPlan(
        num_neighbors=np.array(laid_out(plan.num_neighbors), np.int32).reshape(shape),
        strategy=np.array([_STRATEGIES.index(s) for s in laid_out(plan.strategy)], np.uint8).reshape(shape),
        half_life=np.array(laid_out(plan.half_life), np.float64).reshape(shape),
        node_limit=plan.node_limit,
    )


def _check_names(path: str, hop: PerLink[Any], edge_types: Sequence[str]) -> None:
    for name, _ in hop.links:
        if name not in edge_types:
            near = difflib.get_close_matches(name, edge_types, n=1, cutoff=0.0)
            nearest = f"a link of the schema, nearest is {near[0]!r}" if near else "no link: the schema has none"
            raise PlanError(f"{path}.{name}", nearest, name)
