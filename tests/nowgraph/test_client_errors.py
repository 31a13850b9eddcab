from __future__ import annotations

import grpc
import pytest

from nowgraph import client_errors
from nowgraph.client_errors import (
    ClientError,
    InvalidRequestError,
    OverloadedError,
    ServerFailureError,
    error_from_call,
    error_from_item,
)
from nowgraph.errors import NowgraphError
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_code_has_a_class(code: grpc.StatusCode) -> None:
    """Whatever a server answers becomes a ClientError with the code's name, a server failure at worst."""
    error = error_from_item(service_pb2.ScoreError(request_id="r", code=code.value[0], message="m"))
    assert isinstance(error, ClientError)
    assert isinstance(error, NowgraphError)
    assert (error.code, error.request_id, str(error)) == (code.name, "r", "m")
    if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS):
        assert type(error) is ServerFailureError


def test_an_items_field_is_kept() -> None:
    """The path of the wrong field is an attribute, not only a part of the message."""
    error = error_from_item(service_pb2.ScoreError(code=3, message="row.key: empty", field="row.key"))
    assert isinstance(error, InvalidRequestError)
    assert error.field == "row.key"


def test_when_to_ask_again_is_kept() -> None:
    """The hint of a refused item is an attribute in seconds; without one it is None."""
    hinted = error_from_item(service_pb2.ScoreError(code=8, message="full", retry_after_us=250_000))
    assert isinstance(hinted, OverloadedError)
    assert hinted.retry_after_s == 0.25
    assert error_from_item(service_pb2.ScoreError(code=8, message="full")).retry_after_s is None


class Cancelled(grpc.RpcError):
    """A call that gRPC refused for a server without time: a code, and nothing else."""

    def code(self) -> grpc.StatusCode:
        """As of a call."""
        return grpc.StatusCode.CANCELLED

    def details(self) -> str:
        """As of a call."""
        return "CANCELLED"

    def trailing_metadata(self) -> tuple[()]:
        """As of a call."""
        return ()


def test_a_server_without_time_has_a_hint_too() -> None:
    """Whom gRPC refused for it may ask again after a quarter of a second or somewhat later, not all at once."""
    errors = [error_from_call(Cancelled()) for _ in range(20)]
    assert all(isinstance(error, OverloadedError) and error.code == "CANCELLED" for error in errors)
    hints_s = {error.retry_after_s for error in errors if error.retry_after_s is not None}
    assert len(hints_s) > 1
    assert min(hints_s) >= 0.25
    assert max(hints_s) <= 0.375


def test_the_tree_has_one_root() -> None:
    """Who catches ClientError catches all of them."""
    classes = [
        value
        for value in vars(client_errors).values()
        if isinstance(value, type) and value.__module__ == client_errors.__name__
    ]
    assert len(classes) >= 8
    assert all(issubclass(value, ClientError) for value in classes)
