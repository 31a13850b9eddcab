"""The picture that stays: precision over recall, with the graph and without."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.metrics import precision_recall_curve


def draw_curve(
    path: Path, fraud: npt.NDArray[np.bool_], scores: Mapping[str, npt.NDArray[np.float64]], *, title: str
) -> None:
    """Writes a PNG with one precision-recall curve for each named score float64[N]; needs at least one fraud."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Without pyplot: no window system, no state shared with whoever imports us.
    figure = Figure(figsize=(7, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, score in scores.items():
        precision, recall, _ = precision_recall_curve(fraud, score)
        axes.step(recall, precision, where="post", label=name, linewidth=2)
    axes.axhline(float(fraud.mean()), color="gray", linestyle=":", label=f"chance ({fraud.mean():.3f})")
    axes.set(xlabel="Recall", ylabel="Precision", xlim=(0, 1), ylim=(0, 1.02), title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
