"""An image of a graph: its bytes in a file, taken beside the writer and settled between two of its batches.

The columns that lie on disk are in a file of their own beside it.

copy, beside the writer ─► settle, while it rests: what changed since ─► finish: a what `TemporalGraph.create` takes
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from temporal_graph import _native
from temporal_graph.native_errors import translated
from temporal_graph.view import GraphPosition, GraphView


@dataclass(frozen=True, slots=True)
class Settled:
    """The graph that an image holds, and what it cost: the writer rested `pause_s` while `pages` were written anew.

    `erasures` is the graph's count of them.
    """

    position: GraphPosition
    watermark_us: int
    erasures: int
    pages: int
    pause_s: float


class GraphImage:
    """An image in the making. `copy` and `finish` may be called on any thread, `settle` on the writer's.

    Each raises ArenaError where the file cannot be written. Made by `TemporalGraph.image`.
    """

    def __init__(self, graph: _native.Graph, view: GraphView, path: Path) -> None:
        self.path: Final = path
        self._graph = graph
        self._view = view
        with translated():
            self._image = _native.Image(graph, str(path))

    def copy(self, *, bytes_per_s: int = 0) -> None:
        """Write the graph as it is while it is written to, and again what changed meanwhile, until that is little.

        The graph at most so many bytes a second, 0: as fast as it goes; what changed meanwhile always as fast as it
        goes. Called again before `settle`, it writes what changed since.
        """
        with translated():
            self._image.copy(bytes_per_s)

    def cancel(self) -> None:
        """Make `copy` end with an ArenaError soon; the file is then to be thrown away."""
        self._image.cancel()

    def settle(self) -> Settled:
        """Write what changed since `copy`, between two batches: the image is the graph as it is now."""
        begun_s = time.perf_counter()
        with translated():
            pages = self._image.settle(self._graph)
        pause_s = time.perf_counter() - begun_s
        return Settled(self._view.position(), self._view.watermark_us, self._view.erasures, pages, pause_s)

    def finish(self) -> int:
        """Make the file whole and wait for the disk to have it; return the bytes of the graph."""
        with translated():
            self._image.finish()
        return self._image.bytes


def columns_of_image(path: Path) -> Path:
    """Where the columns of an image lie; there is such a file where tables of its graph keep them on disk."""
    return path.with_name(f"{path.name}.columns")


def verify_image(path: Path) -> None:
    """Check every byte of an image's file; raises ImageRefusedError that says what is damaged."""
    with translated():
        _native.verify_image(str(path))
