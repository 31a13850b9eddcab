"""Answers as columns: every kind in the shapes of the wire, also for no rows at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from graph_transformer.predictor import answer
from graph_transformer.target import QUANTILES, Kind, Target
from model_server.answer import KINDS, History
from model_server.request import AskedRow
from nowgraph.parquet_answers import answer_columns, answer_fields
from protos.nowgraph.v1 import row_event_pb2

CLASSES = ("b", "a")
ASKED = [AskedRow("", row_event_pb2.RowEvent(), b"", time_us) for time_us in (5, 6)]


def rows(kind: Kind, output: list[list[float]], **more: Any) -> list[dict[str, Any]]:
    """The answers to calibrated outputs [N][outputs] as dicts."""
    target = Target(kind, "t", event_level=False, **more)
    prediction = answer(target, np.array(output, dtype=np.float64).reshape(len(output), target.outputs))
    history = [History(4, 3 - n, None) for n in range(len(output))]
    columns = answer_columns(target, prediction, ASKED[: len(output)], history, "m1")
    found: list[dict[str, Any]] = pa.table(columns, schema=pa.schema(answer_fields(target))).to_pylist()
    return found


def test_yes_or_no() -> None:
    """Probability and logit, and what the answer rests on."""
    first, second = rows(Kind.BINARY, [[0.0], [2.0]])
    assert (first["probability"], first["logit"], second["logit"]) == (0.5, 0.0, 2.0)
    assert (first["history_count"], second["history_count"], first["model_version"]) == (3, 2, "m1")
    assert second["cutoff_time"].timestamp() == pytest.approx(6e-6)


def test_classes() -> None:
    """The most likely class stands beside all of them; of any of several there is no such one."""
    first, second = rows(Kind.MULTICLASS, [[0.0, 1.0], [3.0, 1.0]], classes=CLASSES)
    assert (first["class"], second["class"]) == ("a", "b")
    assert [part["name"] for part in first["classes"]] == list(CLASSES)
    assert [part["logit"] for part in second["classes"]] == [3.0, 1.0]
    assert sum(part["probability"] for part in second["classes"]) == pytest.approx(1.0)
    (several,) = rows(Kind.MULTILABEL, [[0.0, 1.0]], classes=CLASSES)
    assert "class" not in several
    assert several["classes"][0] == {"name": "b", "probability": 0.5, "logit": 0.0}


def test_numbers() -> None:
    """The median, and the quantiles by rising level; of a forecast for each window."""
    levels = len(QUANTILES)
    output = [float(number) for number in range(2 * levels)]
    (one,) = rows(Kind.REGRESSION, [output[:levels]])
    assert one["value"] == 3.0
    assert one["quantiles"] == [{"level": q, "value": v} for q, v in zip(QUANTILES, output, strict=False)]
    (steps,) = rows(Kind.FORECAST, [output], steps=2)
    assert [step["value"] for step in steps["steps"]] == [3.0, 3.0 + levels]
    assert [part["value"] for part in steps["steps"][1]["quantiles"]] == output[levels:]


@pytest.mark.parametrize("kind", KINDS)
def test_no_rows_have_the_same_columns(kind: Kind) -> None:
    """An empty file is answered with an empty file of the same shape."""
    assert rows(kind, [], classes=CLASSES if kind in (Kind.MULTICLASS, Kind.MULTILABEL) else ()) == []
