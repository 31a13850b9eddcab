from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from nowgraph.client_errors import ServerFailureError
from nowgraph.client_values import (
    ClassScore,
    ForecastStep,
    Row,
    cell_to_wire,
    event_to_wire,
    key_from_wire,
    key_to_wire,
    row_to_wire,
    score_from_wire,
    time_to_wire,
    value_from_wire,
)
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "null"),
        (True, "boolean"),
        (7, "integer"),
        (np.int64(7), "integer"),
        (0.5, "number"),
        (np.float32(0.5), "number"),
        ("x", "text"),
        (["b", "a"], "texts"),
        ([], "texts"),
        ([0.5, 1], "vector"),
        (("eu", 7), "key"),
        (EPOCH + timedelta(microseconds=3), "timestamp_us"),
    ],
)
def test_a_values_own_type_decides_its_cell(value: Any, kind: str) -> None:
    """No schema is needed: each type of Python has one kind of cell, a boolean is no integer."""
    cell = cell_to_wire("c", value)
    assert cell.column == "c"
    assert cell.WhichOneof("value") == kind
    if kind != "timestamp_us":
        assert value_from_wire(cell) == value
    else:
        assert value_from_wire(cell) == 3


@pytest.mark.parametrize("value", [object(), b"bytes", {"a": 1}, ["a", 1], [None]])
def test_other_types_are_refused(value: Any) -> None:
    """What would have to be guessed is a TypeError with the column's name."""
    with pytest.raises(TypeError, match="'c'"):
        cell_to_wire("c", value)


def test_times_are_exact_microseconds() -> None:
    """Zones are converted, none means UTC, ints pass, floats are refused: a float loses microseconds."""
    moment = datetime(2023, 5, 1, 12, 30, 0, 123_457, tzinfo=UTC)
    wanted = 1_682_944_200_123_457
    assert time_to_wire(moment) == time_to_wire(moment.replace(tzinfo=None)) == wanted
    assert time_to_wire(moment.astimezone(timezone(timedelta(hours=5, minutes=30)))) == wanted
    assert time_to_wire(wanted) == wanted
    assert time_to_wire(None) is None
    for wrong in (1.5, True, "2023-05-01"):
        with pytest.raises(TypeError):
            time_to_wire(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [None, 7, "x", ("eu", 7), (7, 8)])
def test_keys_come_back_as_they_went(key: Any) -> None:
    """None, one part, or a tuple of several."""
    assert key_from_wire(key_to_wire(key)) == key


@pytest.mark.parametrize("key", [1.5, True, b"x", ("eu", None)])
def test_other_keys_are_refused(key: Any) -> None:
    """A key part is an int or a str: a float or a boolean as key is a mistake."""
    with pytest.raises(TypeError):
        key_to_wire(key)


def test_a_row_without_a_time_leaves_it_to_the_server() -> None:
    """Absent is absent on the wire, not zero."""
    request = row_to_wire(Row("t", 1), task="fraud", tenant="bank", priority="batch")
    assert request.priority == service_pb2.PRIORITY_BATCH
    assert row_to_wire(Row("t", 1)).priority == service_pb2.PRIORITY_UNSPECIFIED
    assert not request.row.HasField("event_time_us")
    assert not request.HasField("freshness_token")
    assert (request.task, request.tenant) == ("fraud", "bank")


def test_an_event_says_its_operation_and_both_clocks() -> None:
    """What is ingested has the operation, id and times that were given."""
    request = event_to_wire(Row("t", 1, {"a": None}, 5), operation="upsert", known_time=9, event_id="e1", tenant="bank")
    event = request.event
    assert event.operation == row_event_pb2.OPERATION_UPSERT
    assert (event.event_id, event.event_time_us, event.known_time_us) == ("e1", 5, 9)
    assert event.cells[0].WhichOneof("value") == "null"


def test_yes_or_no_has_a_probability_also_of_an_older_server() -> None:
    """A server from before there were kinds says none: its answers are yes or no, as they were."""
    for kind in (service_pb2.TARGET_KIND_UNSPECIFIED, service_pb2.TARGET_KIND_BINARY):
        score = score_from_wire(service_pb2.ScoreResponse(kind=kind, probability=0.25, logit=-1.1))
        assert (score.kind, score.probability, score.logit, score.value) == ("binary", 0.25, -1.1, None)
        assert (score.classes, dict(score.quantiles), score.steps) == ((), {}, ())


def test_each_kind_has_its_own_fields_and_none_for_the_others() -> None:
    """What does not apply is None or empty: nobody takes the 0 of the wire for a probability."""
    response = service_pb2.ScoreResponse(kind=service_pb2.TARGET_KIND_MULTICLASS)
    response.classes.add(name="web", probability=0.75, logit=1.0)
    score = score_from_wire(response)
    assert (score.kind, score.probability, score.logit) == ("multiclass", None, None)
    assert score.classes == (ClassScore("web", 0.75, 1.0),)
    response = service_pb2.ScoreResponse(kind=service_pb2.TARGET_KIND_REGRESSION, value=0.0)
    response.quantiles.add(level=0.5, value=0.0)
    score = score_from_wire(response)
    assert (score.kind, score.value, score.quantiles, score.probability) == ("regression", 0.0, {0.5: 0.0}, None)
    response = service_pb2.ScoreResponse(kind=service_pb2.TARGET_KIND_FORECAST)
    response.steps.add(value=2.0, quantiles=[service_pb2.Quantile(level=0.5, value=2.0)])
    score = score_from_wire(response)
    assert (score.kind, score.value, score.steps) == ("forecast", None, (ForecastStep(2.0, {0.5: 2.0}),))


def test_an_answer_of_another_time_is_refused() -> None:
    """A kind that this client has never heard of is an error with the way out, and no half of an answer."""
    with pytest.raises(ServerFailureError, match="update nowgraph"):
        score_from_wire(service_pb2.ScoreResponse(kind=99))
