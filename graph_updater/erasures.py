"""What erasures have removed, told once each time: to the metrics, and to the log without a key."""

from __future__ import annotations

from dataclasses import asdict
from typing import Protocol

import structlog

from graph_updater.metrics import UpdaterMetrics
from temporal_graph.schema import Schema
from temporal_graph.view import Erased

log = structlog.get_logger(__name__)


class Erasable(Protocol):
    """What counts what was erased: the view of a graph in RAM, or a writer of one in Redis."""

    @property
    def schema(self) -> Schema:
        """Its tables."""

    @property
    def erasures(self) -> int:
        """Counts how often more was erased."""

    def erased(self, table: str) -> Erased:
        """What was removed of a table."""


class ErasureReport:
    """Looks at a graph's counts after each batch; what was erased before the start is not told again."""

    def __init__(self, view: Erasable, metrics: UpdaterMetrics) -> None:
        self._view = view
        self._metrics = metrics
        self._erasures = view.erasures
        self._told = erased_of(view)

    def look(self) -> None:
        """Tell what is new."""
        if self._view.erasures == self._erasures:
            return
        self._erasures = self._view.erasures
        now = erased_of(self._view)
        removed = removed_since(self._told, now)
        self._told = now
        for table, counts in removed.items():
            self._metrics.rows_erased.labels(table=table).inc(counts.rows)
        log.info("erased", removed={table: asdict(counts) for table, counts in removed.items()})


def erased_of(view: Erasable) -> dict[str, Erased]:
    """Return what erasures have removed of each table, in all."""
    return {table.name: view.erased(table.name) for table in view.schema.tables}


def removed_since(before: dict[str, Erased], now: dict[str, Erased]) -> dict[str, Erased]:
    """Return what was removed in between, of each table that lost something."""
    removed = {
        table: Erased(
            counts.rows - before[table].rows,
            counts.versions - before[table].versions,
            counts.links - before[table].links,
            counts.strings - before[table].strings,
        )
        for table, counts in now.items()
    }
    return {table: counts for table, counts in removed.items() if any(asdict(counts).values())}
