from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from model_server import errors
from model_server.errors import (
    CODES,
    DETAILS_KEY,
    MESSAGE_LIMIT,
    InvalidRequestError,
    NotFreshError,
    OverloadedError,
    ServerError,
    details_of,
    said,
)


def test_every_error_has_its_code() -> None:
    """No class of the tree is missing in the table, and the table names nothing else."""
    classes = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, ServerError) and value is not ServerError
    }
    assert set(CODES) == classes


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidRequestError("row.key", "empty"), grpc.StatusCode.INVALID_ARGUMENT),
        (errors.UnknownTaskError("task", "not served"), grpc.StatusCode.NOT_FOUND),
        (errors.NotFreshError("later"), grpc.StatusCode.FAILED_PRECONDITION),
        (errors.OverloadedError("full"), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (errors.DeadlinePassedError("late"), grpc.StatusCode.DEADLINE_EXCEEDED),
        (errors.DrainingError("stopping"), grpc.StatusCode.UNAVAILABLE),
        (errors.GraphUnavailableError("away"), grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_codes_are_the_conventional_ones(error: ServerError, code: grpc.StatusCode) -> None:
    """Shedding is RESOURCE_EXHAUSTED and never UNAVAILABLE, which clients retry at once."""
    assert errors.code_of(error) is code
    assert errors.number_of(code) == code.value[0]


def test_a_wrong_field_travels_as_a_bad_request() -> None:
    """The status details hold google.rpc.BadRequest with the path, as clients of every language expect."""
    ((key, value),) = details_of(InvalidRequestError("row.cells[2].number", "not finite"))
    assert key == DETAILS_KEY
    status = status_pb2.Status.FromString(value)
    request = error_details_pb2.BadRequest()
    assert status.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert status.details[0].Unpack(request)
    assert request.field_violations[0].field == "row.cells[2].number"
    assert details_of(NotFreshError("later")) == ()


@pytest.mark.parametrize(("retry_after_s", "pushback_ms"), [(0.0001, 1), (0.25, 250), (2.5, 2_500)])
def test_when_to_ask_again_travels_twice(retry_after_s: float, pushback_ms: int) -> None:
    """As google.rpc.RetryInfo, which people and libraries read, and as the pushback that gRPC's own retries obey."""
    (_, value), pushback = details_of(OverloadedError("full", retry_after_s=retry_after_s))
    hint = error_details_pb2.RetryInfo()
    assert status_pb2.Status.FromString(bytes(value)).details[0].Unpack(hint)
    assert hint.retry_delay.ToMilliseconds() == pushback_ms
    assert pushback == ("grpc-retry-pushback-ms", str(pushback_ms))


@pytest.mark.parametrize("letter", ["x", "\U0010ffff"])
def test_a_message_is_as_short_as_headers_are(letter: str) -> None:
    """It may quote a megabyte of the request; percent-encoded and with its details it fits in the 8 KiB of a client."""
    error = InvalidRequestError("row.table", letter * 10**6)
    ((_, details),) = details_of(error)
    assert said(error).startswith("row.table: ")
    assert len(said(error)) == MESSAGE_LIMIT
    assert 3 * len(said(error).encode()) + len(details) * 4 / 3 < 8_192
    assert said(NotFreshError("later")) == "later"
