"""What is being served right now, replaced as a whole.

A writer that takes over publishes a new generation of the graph in the arena's folder. The follower attaches to it,
builds the predictor over it, and only then replaces what is served: every answer comes from one view and one model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from graph_transformer.predictor import Predictor
from temporal_graph.view import GraphView

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """One view and the predictor over it; compared by identity."""

    view: GraphView
    predictor: Predictor


class Generations:
    """Holds the Serving that new batches use. Reading and replacing are atomic; a batch keeps the one it began with."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def current(self) -> Serving:
        """What to serve with, from any thread."""
        return self._serving

    def replace(self, serving: Serving) -> None:
        """From now on `current` returns this one."""
        self._serving = serving


class Follower:
    """Watches for a newer generation and switches to it. `run` belongs to the event loop; attaching does not."""

    def __init__(
        self,
        generations: Generations,
        newest: Callable[[], int],
        attach: Callable[[], Serving],
        *,
        poll_s: float,
    ) -> None:
        self._generations = generations
        self._newest = newest
        self._attach = attach
        self._poll_s = poll_s

    async def run(self) -> None:
        """Polls until cancelled. A generation that cannot be attached is logged, and the old one is kept."""
        refused: int | None = None
        while True:
            await asyncio.sleep(self._poll_s)
            newest = await asyncio.to_thread(self._newest)
            serving = self._generations.current()
            if newest <= serving.view.position().generation or newest == refused:
                continue
            try:
                self._generations.replace(await asyncio.to_thread(self._attach))
            except Exception:  # whatever is wrong with the new one, the old one still serves
                refused = newest
                log.exception("generation_refused", generation=newest)
            else:
                log.info("generation_replaced", generation=newest)
