"""What a demo run found, as a table for people and a document for machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nowgraph.demo.measures import Measures

GRAPH = "with the graph"
ALONE = "the payment alone"


@dataclass(frozen=True, slots=True)
class Rates:
    """What the running system did while payments were scored; latencies in milliseconds.

    ``visible`` is from the broker's timestamp to the graph, as the upper bound of a histogram's bucket; ``score`` is
    the client's whole call over gRPC with ``in_flight`` calls at a time.
    """

    scored: int
    scores_per_s: float
    events_applied: int
    events_per_s: float
    visible_ms_p50: float
    visible_ms_p99: float
    score_ms_p50: float
    score_ms_p99: float
    in_flight: int


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Figures of one run.

    ``measures`` maps the two models to their quality on all live payments, ``handbook`` to that on the payments of
    customers without a fraud on record. ``seconds`` maps the phases to how long they took.
    """

    data: str
    history_events: int
    history_events_per_s: float
    rates: Rates
    measures: Mapping[str, Measures]
    handbook: Mapping[str, Measures]
    seconds: Mapping[str, float]
    model: Path
    picture: Path

    def document(self) -> dict[str, Any]:
        """Everything, as plain values for JSON."""
        return asdict(self)

    def quality_rows(self) -> list[dict[str, Any]]:
        """One row for each model and set of payments."""
        sets = {"all live payments": self.measures, "customers not on record": self.handbook}
        return [
            {
                "scored by": name,
                "measured on": where,
                "payments": found.payments,
                "frauds": found.frauds,
                "AP": found.average_precision,
                "AUC": found.roc_auc,
                "card precision": found.card_precision,
            }
            for where, measures in sets.items()
            for name, found in measures.items()
        ]

    def rate_rows(self) -> list[dict[str, Any]]:
        """One row for each part of the path."""
        rates = self.rates
        return [
            {
                "what": "history into the graph",
                "count": self.history_events,
                "a second": self.history_events_per_s,
                "p50 ms": None,
                "p99 ms": None,
            },
            {
                "what": "live events, Kafka to visible",
                "count": rates.events_applied,
                "a second": rates.events_per_s,
                "p50 ms": rates.visible_ms_p50,
                "p99 ms": rates.visible_ms_p99,
            },
            {
                "what": f"scores over gRPC, {rates.in_flight} at a time",
                "count": rates.scored,
                "a second": rates.scores_per_s,
                "p50 ms": rates.score_ms_p50,
                "p99 ms": rates.score_ms_p99,
            },
        ]
