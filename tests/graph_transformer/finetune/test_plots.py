from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from graph_transformer.calibration import sigmoid
from graph_transformer.finetune.plots import plot_precision_recall, plot_reliability

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def answers() -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Logits and labels drawn from them, one in a hundred positive."""
    random = np.random.default_rng(0)
    logit = random.normal(-5, 1.5, 5000)
    return logit, random.random(5000) < sigmoid(logit)


def test_pictures_are_png_files(tmp_path: Path, answers: tuple[np.ndarray, np.ndarray]) -> None:  # type: ignore[type-arg]
    """Both pictures are written where asked and are PNG."""
    logit, label = answers
    curve = plot_precision_recall(tmp_path / "pr.png", {"graph": (logit, label), "alone": (-logit, label)})
    reliability = plot_reliability(tmp_path / "reliability.png", logit, label)
    assert curve.read_bytes().startswith(PNG)
    assert reliability.read_bytes().startswith(PNG)


def test_pictures_need_no_screen(tmp_path: Path, answers: tuple[np.ndarray, np.ndarray]) -> None:  # type: ignore[type-arg]
    """The global plotting state, which may open a window, is not touched."""
    before = "matplotlib.pyplot" in sys.modules
    plot_reliability(tmp_path / "r.png", *answers)
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_answers_that_are_all_alike_are_drawn_too(tmp_path: Path) -> None:
    """A model that says the same of everything gives one point, not an error."""
    label = np.arange(100) < 5
    assert plot_reliability(tmp_path / "r.png", np.full(100, -3.0), label).stat().st_size > 0
