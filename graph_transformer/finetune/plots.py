"""Two pictures of a measurement: precision over recall, and how far probabilities can be read as such."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graph_transformer.calibration import sigmoid

RELIABILITY_BINS = 12
_SIZE, _DPI = (6.0, 4.5), 120


def plot_precision_recall(path: Path, curves: Mapping[str, tuple[NDArray[np.float64], NDArray[np.bool_]]]) -> Path:
    """Write a PNG with one precision-recall curve per name, of (logit float64[n], label bool[n]); return its path."""
    from matplotlib.figure import Figure
    from sklearn.metrics import average_precision_score, precision_recall_curve

    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    for name, (logit, label) in curves.items():
        precision, recall, _ = precision_recall_curve(label, logit)
        axes.step(recall, precision, where="post", label=f"{name} (AP {average_precision_score(label, logit):.3f})")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right")
    figure.savefig(path, format="png")
    return path


def plot_reliability(path: Path, logit: NDArray[np.float64], label: NDArray[np.bool_]) -> Path:
    """Write a PNG of observed against predicted shares in bins of equally many examples, both on a log scale."""
    from matplotlib.figure import Figure

    probability = sigmoid(logit)
    # The highest scores are few where positives are rare: the last bins are those of the positives' own range.
    edges = np.unique(np.quantile(probability, 1.0 - np.logspace(0, -3.5, RELIABILITY_BINS)))
    which = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, len(edges) - 1)
    sizes = np.bincount(which, minlength=len(edges))
    used = sizes > 0
    predicted = np.bincount(which, probability, len(edges))[used] / sizes[used]
    observed = np.bincount(which, label, len(edges))[used] / sizes[used]
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    floor = max(float(predicted.min()), 1e-5)
    axes.plot([floor, 1], [floor, 1], color="gray", linewidth=1, label="as predicted")
    axes.plot(predicted, np.maximum(observed, floor), marker="o", label="observed")
    axes.set(xlabel="predicted probability", ylabel="observed share", xscale="log", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    figure.savefig(path, format="png")
    return path
