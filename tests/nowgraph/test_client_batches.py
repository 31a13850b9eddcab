from __future__ import annotations

from nowgraph.client_batches import (
    batch_to_wire,
    list_result_from_wire,
    lists_to_wire,
    result_from_wire,
    stream_to_wire,
)
from nowgraph.client_errors import InvalidRequestError, UnavailableError
from nowgraph.client_lists import ListRequest, RankedItems
from nowgraph.client_values import Addressed, Row, Score
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

TO = Addressed(task="fraud", tenant="bank", priority="batch")


def test_each_request_of_many_says_to_whom_it_goes() -> None:
    """Task, tenant and class stand in every one of them, in the order they came."""
    rows = batch_to_wire([Row("payments", 1), Row("payments", 2)], TO).requests
    lists = lists_to_wire([ListRequest(1), ListRequest(2)], TO).requests
    assert [one.row.key.parts[0].integer for one in rows] == [one.user.parts[0].integer for one in lists] == [1, 2]
    for one in (*rows, *lists):
        assert (one.task, one.tenant, one.priority) == ("fraud", "bank", service_pb2.PRIORITY_BATCH)


def test_rows_without_an_id_get_their_number() -> None:
    """Their own ids stay, and count."""
    rows = [Row("payments", 1), Row("payments", 2, request_id="mine"), Row("payments", 3)]
    requests = [stream_to_wire(number, row, TO).request for number, row in enumerate(rows)]
    assert [request.request_id for request in requests] == ["0", "mine", "2"]


def test_an_item_is_its_answer_or_its_error() -> None:
    """Of rows as of lists."""
    error = service_pb2.ScoreError(request_id="a", code=3, message="wrong", field="row.key")
    gone = service_pb2.ScoreError(request_id="b", code=14, message="gone")
    wrong = result_from_wire(service_pb2.ScoreResult(error=error))
    assert isinstance(wrong, InvalidRequestError)
    assert (wrong.request_id, wrong.field) == ("a", "row.key")
    assert isinstance(list_result_from_wire(service_pb2.RankResult(error=gone)), UnavailableError)
    score = result_from_wire(service_pb2.ScoreResult(response=service_pb2.ScoreResponse(request_id="c")))
    ranked = list_result_from_wire(service_pb2.RankResult(response=service_pb2.RankResponse(request_id="d")))
    assert isinstance(score, Score)
    assert isinstance(ranked, RankedItems)
    assert (score.request_id, ranked.request_id) == ("c", "d")
