"""Between Python's values and the wire's, of many at once: rows or lists of one call, and their answers or errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nowgraph.client_errors import ClientError, error_from_item
from nowgraph.client_lists import ListRequest, RankedItems, list_from_wire, list_to_wire
from nowgraph.client_values import Addressed, Row, Score, row_to_wire, score_from_wire
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2


def batch_to_wire(rows: Sequence[Row], to: Addressed) -> service_pb2.ScoreBatchRequest:
    """A request that scores rows."""
    return service_pb2.ScoreBatchRequest(requests=[row_to_wire(row, **to) for row in rows])


def lists_to_wire(requests: Sequence[ListRequest], to: Addressed) -> service_pb2.RankBatchRequest:
    """A request for lists."""
    return service_pb2.RankBatchRequest(requests=[list_to_wire(one, **to) for one in requests])


def stream_to_wire(number: int, row: Row, to: Addressed) -> service_pb2.ScoreStreamRequest:
    """A row of a stream; one without a request id gets its number there."""
    named = row if row.request_id else replace(row, request_id=str(number))
    return service_pb2.ScoreStreamRequest(request=row_to_wire(named, **to))


def result_from_wire(item: service_pb2.ScoreResult) -> Score | ClientError:
    """A row's answer or error."""
    if item.WhichOneof("result") == "response":
        return score_from_wire(item.response)
    return error_from_item(item.error)


def list_result_from_wire(item: service_pb2.RankResult) -> RankedItems | ClientError:
    """A list or its error."""
    if item.WhichOneof("result") == "response":
        return list_from_wire(item.response)
    return error_from_item(item.error)
