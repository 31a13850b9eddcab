"""What a call to the server can raise: one small tree, the wrong field named."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from nowgraph.errors import NowgraphError
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

_DETAILS_KEY = "grpc-status-details-bin"
# The hint where gRPC itself refused, without one: by then what waited is read. Up to half longer at random,
# so that those who were refused together do not come back together.
_UNTOLD_S, _JITTER = 0.25, 0.5


class ClientError(NowgraphError):
    """The root: `code` is the gRPC status by name, `field` the path of the wrong field, "" when none is to blame.

    `retry_after_s` is when the server expects to have room again; None where nothing says so.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str,
        field: str = "",
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.field = field
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class InvalidRequestError(ClientError):
    """The request is wrong; sending it again is no use. `field` says where."""


class UnknownTaskError(ClientError):
    """The server does not serve this task or tenant."""


class NotReadyError(ClientError):
    """The graph has not reached the freshness token in time, or the server lacks what the call needs."""


class OverloadedError(ClientError):
    """The server refused before doing any work; try again after `retry_after_s`, or a while where it is None.

    A server that had no time even to take the call said no hint: then it is the client's own guess.
    """


class DeadlineError(ClientError):
    """No answer came within the deadline."""


class UnavailableError(ClientError):
    """The server cannot be reached or is stopping; the client has already tried again."""


class UnauthenticatedError(ClientError):
    """The server does not know who calls: the token or certificate is missing, or not known there."""


class PermissionDeniedError(ClientError):
    """The server knows who calls, and does not allow it."""


class ServerFailureError(ClientError):
    """The server failed on this request; its log says where."""


_CLASSES: dict[str, type[ClientError]] = {
    "INVALID_ARGUMENT": InvalidRequestError,
    "NOT_FOUND": UnknownTaskError,
    "FAILED_PRECONDITION": NotReadyError,
    "RESOURCE_EXHAUSTED": OverloadedError,
    # A server so busy that gRPC refuses for it: a blocking call that nobody cancelled here.
    "CANCELLED": OverloadedError,
    "DEADLINE_EXCEEDED": DeadlineError,
    "UNAVAILABLE": UnavailableError,
    "UNAUTHENTICATED": UnauthenticatedError,
    "PERMISSION_DENIED": PermissionDeniedError,
}
_NAMES: dict[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}


def error_from_call(error: grpc.RpcError) -> ClientError:
    """The error of a call that failed as a whole."""
    code: str = error.code().name
    field, retry_after_s = _details_of(error.trailing_metadata() or ())
    if code == error.details() == "CANCELLED":  # a channel that is closed here says so in its details
        guess_s = _UNTOLD_S * (1.0 + _JITTER * random.random())
        return _error(code, "the server had no time to take the call", retry_after_s=guess_s)
    return _error(code, error.details() or code, field=field, retry_after_s=retry_after_s)


def error_from_item(error: service_pb2.ScoreError) -> ClientError:
    """The error of one item of a batch or stream."""
    code = _NAMES.get(error.code, "UNKNOWN")
    retry_after_s = error.retry_after_us / 1e6 if error.HasField("retry_after_us") else None
    return _error(code, error.message, field=error.field, request_id=error.request_id, retry_after_s=retry_after_s)


def _error(
    code: str, message: str, *, field: str = "", request_id: str = "", retry_after_s: float | None = None
) -> ClientError:
    kind = _CLASSES.get(code, ServerFailureError)
    return kind(message, code=code, field=field, request_id=request_id, retry_after_s=retry_after_s)


def _details_of(metadata: Iterable[Any]) -> tuple[str, float | None]:
    """The wrong field's path and when to ask again, as far as the status says."""
    field, retry_after_s = "", None
    for key, value in metadata:
        if key != _DETAILS_KEY or not isinstance(value, bytes):
            continue
        request, hint = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        for detail in status_pb2.Status.FromString(value).details:
            if detail.Unpack(request) and request.field_violations:
                field = str(request.field_violations[0].field)
            if detail.Unpack(hint):
                retry_after_s = hint.retry_delay.ToNanoseconds() / 1e9
    return field, retry_after_s
