from __future__ import annotations

import sys
from pathlib import Path

import pytest

from graph_transformer.finetune.plots.figure import named, picture


def test_a_picture_is_a_png_with_title_and_labels(tmp_path: Path) -> None:
    """The file is PNG, and the axes say what they show; the global state, which may open a window, is not touched."""
    before = "matplotlib.pyplot" in sys.modules
    with picture(tmp_path / "p.png", title="Title", x="steps", y="loss") as axes:
        axes.plot([0, 1], [0, 1])
        assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("Title", "steps", "loss")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_a_picture_that_fails_is_not_written(tmp_path: Path) -> None:
    """An error while drawing leaves no half of a picture."""
    with pytest.raises(ZeroDivisionError), picture(tmp_path / "p.png", title="", x="", y=""):
        raise ZeroDivisionError
    assert not (tmp_path / "p.png").exists()


def test_axes_name_their_unit() -> None:
    """A unit stands in brackets; without one there are none."""
    assert named("predicted", "EUR") == "predicted (EUR)"
    assert named("predicted", "") == "predicted"
