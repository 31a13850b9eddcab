"""Pictures of learning: loss and validation over steps, and what a share of the labels is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.plots.figure import GUIDE_COLOR, picture

Floats = NDArray[np.float64]

SMOOTH_SHARE = 0.02
"""The line of the loss is a mean over this share of the steps; single steps are a gray noise behind it."""


@dataclass(frozen=True, slots=True)
class FewLabels:
    """A metric at one share (0 to 1) of the labels: its mean over seeds, and their standard deviation."""

    share: float
    mean: float
    spread: float = 0.0


def plot_learning_curve(
    path: Path,
    losses: Sequence[tuple[int, float]],
    validations: Sequence[tuple[int, float]],
    *,
    metric: str,
    chosen_step: int | None = None,
) -> Path:
    """Write the training loss and the validation metric over steps, with a line at the step that was kept."""
    with picture(path, title="Learning", x="step", y="training loss") as axes:
        if losses:
            step, loss = np.array(losses).T
            axes.plot(step, loss, color=GUIDE_COLOR, alpha=0.4, linewidth=0.7)
            axes.plot(step, _smoothed(loss), color="tab:blue", label="training loss")
            # The first steps' losses would flatten all that follows.
            axes.set_ylim(0.98 * float(loss.min()), float(np.quantile(loss, 0.99)) * 1.02)
        lines, names = axes.get_legend_handles_labels()
        if validations:
            right = axes.twinx()
            step, found = np.array(validations).T
            lines += right.plot(step, found, color="tab:orange", marker="o", markersize=4)
            names.append(f"validation {metric}")
            right.set_ylabel(f"validation {metric}")
        if chosen_step is not None:
            lines.append(axes.axvline(chosen_step, color="tab:green", linestyle=":"))
            names.append(f"kept: step {chosen_step:,}")
        if lines:
            # Below the axes: with two scales no corner is free.
            axes.figure.legend(lines, names, loc="outside lower center", ncols=3, fontsize="small")
    return path


def plot_few_labels(path: Path, curves: Mapping[str, Sequence[FewLabels]], *, metric: str) -> Path:
    """Write the metric over the share of the labels that trained, one curve per name, with the spread over seeds."""
    with picture(path, title="Few labels", x="share of the training labels (%)", y=metric) as axes:
        for name, points in curves.items():
            ordered = sorted(points, key=lambda point: point.share)
            share = [100.0 * point.share for point in ordered]
            spread = [point.spread for point in ordered]
            axes.errorbar(share, [point.mean for point in ordered], yerr=spread, marker="o", capsize=3, label=name)
        axes.set_xscale("log")
        shares = sorted({100.0 * point.share for points in curves.values() for point in points})
        axes.set_xticks(shares, [f"{share:g}" for share in shares])
        axes.minorticks_off()
        axes.legend(loc="best", fontsize="small")
    return path


def _smoothed(loss: Floats) -> Floats:
    """Return running means of the last steps, of all there are at the start."""
    width = max(1, round(len(loss) * SMOOTH_SHARE))
    total = np.concatenate([[0.0], np.cumsum(loss)])
    end = np.arange(1, len(loss) + 1)
    start = np.maximum(end - width, 0)
    means: Floats = (total[end] - total[start]) / (end - start)
    return means
