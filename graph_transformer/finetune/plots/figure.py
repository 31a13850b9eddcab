"""What all pictures share: their size, their axes and how they are saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_IN, DPI = (6.4, 4.8), 120
FLOOR_STYLE = {"linestyle": "--", "linewidth": 1.2}
MODEL_STYLE = {"linestyle": "-", "linewidth": 1.8}
GUIDE_COLOR = "0.55"


@contextmanager
def picture(path: Path, *, title: str, x: str, y: str) -> Iterator[Axes]:
    """Give axes with a title and labels; write them to `path` as PNG when the block ends."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_IN, dpi=DPI, layout="constrained")
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    yield axes
    figure.savefig(path, format="png")


def named(name: str, unit: str) -> str:
    """Return an axis's label with its unit, where it has one."""
    return f"{name} ({unit})" if unit else name
