"""How far numbers have moved from those a model began with: the population stability index over the deciles then.

    PSI = sum over bins of (now - then) * ln(now / then), shares of numbers; nulls are a bin of their own

Below 0.1 nothing has changed, above 0.25 much has: the rule of thumb of credit scoring, where the index is from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BINS = 10
# Half an observation in each bin: an empty one then counts for as much as the sample's size lets one say.
_SMOOTHING = 0.5


@dataclass(frozen=True, slots=True)
class Reference:
    """What was usual of one number: ascending edges between bins, how many fell into each, and nulls as last bin."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: Floats) -> Reference:
        """Take numbers [n] (NaN is null) as what is usual; equal deciles, as a column of few values has, are one."""
        finite = values[np.isfinite(values)]
        edges = np.unique(np.quantile(finite, np.arange(1, BINS) / BINS)) if len(finite) else np.empty(0)
        return cls(tuple(edges.tolist()), tuple(_counts(values, edges).tolist()))

    def psi(self, values: Floats) -> float:
        """Return the index of numbers [n] against this; NaN for none."""
        if not len(values) or not sum(self.counts):
            return math.nan
        then = _shares(np.asarray(self.counts, dtype=np.float64))
        now = _shares(_counts(values, np.asarray(self.edges)).astype(np.float64))
        return float(((now - then) * np.log(now / then)).sum())

    def to_dict(self) -> dict[str, Any]:
        """Return the form `from_dict` reads."""
        return {"edges": list(self.edges), "counts": list(self.counts)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Reference:
        """Build from plain values; raises KeyError or ValueError for others."""
        found = cls(tuple(map(float, values["edges"])), tuple(map(int, values["counts"])))
        if len(found.counts) != len(found.edges) + 2:
            raise ValueError(f"expected {len(found.edges) + 2} counts for {len(found.edges)} edges")
        return found


def _counts(values: Floats, edges: Floats) -> NDArray[np.int64]:
    """Numbers in each bin, an edge in the bin below it, and nulls last: bins <= edges + 2."""
    finite = values[np.isfinite(values)]
    inside = np.bincount(np.searchsorted(edges, finite, side="left"), minlength=len(edges) + 1)
    return np.append(inside, len(values) - len(finite)).astype(np.int64)


def _shares(counts: Floats) -> Floats:
    smoothed: Floats = counts + _SMOOTHING
    shares: Floats = smoothed / smoothed.sum()
    return shares
