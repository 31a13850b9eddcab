"""Pictures of classes: precision over recall, the ROC curve, and how far probabilities can be read as such."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graph_transformer.calibration import log_softmax, sigmoid
from graph_transformer.finetune.plots.figure import FLOOR_STYLE, GUIDE_COLOR, MODEL_STYLE, picture

RELIABILITY_BINS = 12
RARE_SHARE = 0.05
"""Below this share of positives both axes of a reliability diagram are logarithmic: all would lie in one corner."""

Floats = NDArray[np.float64]
Curves = Mapping[str, tuple[Floats, NDArray[np.bool_]]]


def plot_precision_recall(path: Path, curves: Curves, *, floors: Collection[str] = ()) -> Path:
    """Write one precision-recall curve per name, of (logit float64[n], label bool[n]); floors dashed; return the path.

    Names whose labels hold one kind alone have no curve.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

    with picture(path, title="Precision and recall", x="recall", y="precision") as axes:
        for name, (logit, label) in _with_both(curves).items():
            precision, recall, _ = precision_recall_curve(label, logit, drop_intermediate=True)
            style = FLOOR_STYLE if name in floors else MODEL_STYLE
            found = average_precision_score(label, logit)
            axes.step(recall, precision, where="post", label=f"{name} (AP {found:.3f})", **style)  # type: ignore[arg-type]
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="best", fontsize="small")
    return path


def plot_roc(path: Path, curves: Curves, *, floors: Collection[str] = ()) -> Path:
    """Write one ROC curve per name, as `plot_precision_recall` does."""
    from sklearn.metrics import roc_auc_score, roc_curve

    with picture(path, title="ROC", x="false positive rate", y="true positive rate") as axes:
        axes.plot([0, 1], [0, 1], color=GUIDE_COLOR, linewidth=1)
        for name, (logit, label) in _with_both(curves).items():
            false_positive, true_positive, _ = roc_curve(label, logit)
            style = FLOOR_STYLE if name in floors else MODEL_STYLE
            found = roc_auc_score(label, logit)
            axes.plot(false_positive, true_positive, label=f"{name} (AUC {found:.3f})", **style)  # type: ignore[arg-type]
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="lower right", fontsize="small")
    return path


def plot_reliability(path: Path, logit: Floats, label: NDArray[np.bool_]) -> Path:
    """Write observed against predicted shares of logits float64[n] and labels bool[n], with 95 % intervals."""
    return _reliability(path, sigmoid(logit), label, "Reliability", "observed share")


def plot_top_class_reliability(path: Path, logit: Floats, label: NDArray[np.int64]) -> Path:
    """Write how often the class that is named is right against how sure the model is, of logits float64[n, classes]."""
    share = np.exp(log_softmax(logit).max(axis=1))
    right = logit.argmax(axis=1) == label
    return _reliability(path, share, right, "Reliability of the class named", "share right")


def reliability_bins(probability: Floats, label: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Return mean prediction, observed share and size of bins, float64[bins] each.

    Of equally many examples; where positives are rare, bins get smaller towards the highest scores, where they are.
    """
    rare = label.mean() < RARE_SHARE
    at = 1.0 - np.logspace(0, -3.5, RELIABILITY_BINS) if rare else np.linspace(0, 1, RELIABILITY_BINS + 1)[:-1]
    edges = np.unique(np.quantile(probability, at))
    which = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, len(edges) - 1)
    sizes = np.bincount(which, minlength=len(edges)).astype(np.float64)
    used = sizes > 0
    predicted = np.bincount(which, probability, len(edges))[used] / sizes[used]
    observed = np.bincount(which, label, len(edges))[used] / sizes[used]
    return predicted, observed, sizes[used]


def wilson_interval(share: Floats, size: Floats, *, z: float = 1.96) -> tuple[Floats, Floats]:
    """Return low and high ends of the interval of shares observed in samples of a size; after Wilson (1927)."""
    center = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z / (1 + z**2 / size) * np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    return np.minimum(center - half, share), np.maximum(center + half, share)


def _reliability(path: Path, probability: Floats, label: NDArray[np.bool_], title: str, y: str) -> Path:
    predicted, observed, sizes = reliability_bins(probability, label)
    low, high = wilson_interval(observed, sizes)
    rare = label.mean() < RARE_SHARE
    floor = min(max(float(predicted.min()), 1e-6), 1.0) if rare else 0.0
    scale = "log" if rare else "linear"
    with picture(path, title=title, x="predicted probability", y=y) as axes:
        axes.plot([floor, 1], [floor, 1], color=GUIDE_COLOR, linewidth=1, label="as predicted")
        drawn = np.maximum(observed, floor)
        bars = np.stack([drawn - np.maximum(low, floor), np.maximum(high, floor) - drawn])
        axes.errorbar(predicted, drawn, yerr=np.maximum(bars, 0.0), marker="o", capsize=2, label="observed, 95 %")
        axes.set(xscale=scale, yscale=scale)
        if not rare:
            axes.set(xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(loc="upper left", fontsize="small")
    return path


def _with_both(curves: Curves) -> Curves:
    return {name: pair for name, pair in curves.items() if pair[1].any() and not pair[1].all()}
