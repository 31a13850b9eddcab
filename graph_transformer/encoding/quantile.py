"""Piecewise-linear encoding of numbers over bins of the training data.

After "On Embeddings for Numerical Features in Tabular Deep Learning" (Gorishniy, Rubachev, Babenko, 2022): a number
becomes, per bin, how much of the bin lies below it. On the payments task it was worth .06 to .10 of average precision.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BINS = 16


def signed_log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sign(x) * log1p(|x|): tames heavy tails, keeps zero and the sign; NaN stays NaN."""
    return np.sign(values) * np.log1p(np.abs(values))


def quantile_edges(values: NDArray[np.float64], bins: int = BINS) -> tuple[float, ...]:
    """Return strictly rising edges at quantiles of `values` float64[n]; fewer where values repeat; (0, 1) of none."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return (0.0, 1.0)
    edges = np.unique(np.quantile(finite, np.linspace(0.0, 1.0, bins + 1)))
    if len(edges) < 2:
        return (float(edges[0]), float(edges[0]) + 1.0)
    return tuple(float(edge) for edge in edges)


def even_edges(values: NDArray[np.float64], bins: int = BINS) -> tuple[float, ...]:
    """Return `bins` equal bins between the first percentile and the maximum of `values`; (0, 1) split of none."""
    finite = values[np.isfinite(values)]
    low, high = (float(np.quantile(finite, 0.01)), float(finite.max())) if len(finite) else (0.0, 1.0)
    if high - low < 1e-6:
        high = low + 1.0
    return tuple(float(edge) for edge in np.linspace(low, high, bins + 1))


class Bins:
    """The bins of several columns; a column with fewer than `bins` keeps the rest empty (no number enters them)."""

    def __init__(self, edges: Sequence[tuple[float, ...]], bins: int = BINS) -> None:
        self.count = bins
        matrix = np.empty((len(edges), bins + 1))
        for row, values in enumerate(edges):
            matrix[row, : len(values)] = values
            matrix[row, len(values) :] = values[-1]
        width = matrix[:, 1:] - matrix[:, :-1]
        self._low = matrix[None, :, :-1]
        self._scale = np.divide(1.0, width, out=np.zeros_like(width), where=width > 0)

    def encode(self, values: NDArray[np.float64], out: NDArray[np.float32]) -> None:
        """Write into `out` float32[n, columns, bins] how much of each bin lies below `values` float64[n, columns].

        NaN gives NaN; the caller decides what null is.
        """
        filled = values[:, :, None] - self._low
        filled *= self._scale
        np.maximum(filled, 0.0, out=filled)
        np.minimum(filled, 1.0, out=out, casting="same_kind")
