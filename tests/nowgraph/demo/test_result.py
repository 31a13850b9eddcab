"""A demo's figures as rows and as a document."""

from __future__ import annotations

import json
from pathlib import Path

from nowgraph.demo.measures import Measures
from nowgraph.demo.result import ALONE, GRAPH, DemoResult, Rates
from nowgraph.report import emit_json


def test_rows_and_document_hold_the_same_figures(capsys) -> None:  # type: ignore[no-untyped-def]
    """Two models on two sets of payments, three parts of the path; the JSON parses and names everything."""
    good, bad = Measures(0.7, 0.9, 0.3, 100, 5), Measures(0.1, 0.6, 0.1, 100, 5)
    result = DemoResult(
        data="simulated",
        history_events=1000,
        history_events_per_s=5e5,
        rates=Rates(100, 50.0, 200, 100.0, 2.0, 8.0, 4.0, 12.0, 8),
        measures={GRAPH: good, ALONE: bad},
        handbook={GRAPH: good, ALONE: bad},
        seconds={"training": 1.0},
        model=Path("model"),
        picture=Path("curve.png"),
    )
    rows = result.quality_rows()
    assert [(row["scored by"], row["AP"]) for row in rows] == [(GRAPH, 0.7), (ALONE, 0.1)] * 2
    assert [row["count"] for row in result.rate_rows()] == [1000, 200, 100]
    emit_json(result.document())
    document = json.loads(capsys.readouterr().out)
    assert document["measures"][GRAPH]["average_precision"] == 0.7
    assert document["rates"]["score_ms_p99"] == 12.0
    assert document["picture"] == "curve.png"
