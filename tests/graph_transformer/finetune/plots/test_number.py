from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graph_transformer.finetune.plots.number import POINTS_MAX, plot_coverage, plot_predicted_true, plot_residuals

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(("count", "steps"), [(1, 1), (300, 3), (POINTS_MAX + 1, 1)])
def test_pictures_are_png_files(tmp_path: Path, count: int, steps: int) -> None:
    """One example, several steps, and more points than are drawn."""
    random = np.random.default_rng(0)
    label = random.normal(100, 20, (count, steps))
    output = np.repeat(label, 7, axis=1) + np.tile(np.linspace(-9, 9, 7), steps)
    for written in (
        plot_predicted_true(tmp_path / "true.png", output, label, unit="EUR"),
        plot_coverage(tmp_path / "coverage.png", {"model": (output, label), "constant": (output, label)}),
        plot_residuals(tmp_path / "residuals.png", output, label),
    ):
        assert written.read_bytes().startswith(PNG)
