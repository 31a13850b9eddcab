"""What can go wrong while a request is served, and the one table that turns it into gRPC's words."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

# Of a message that quotes the request, so much is told: it travels as a header, percent-encoded, and clients take 8 KiB
# of headers. A table's name of a megabyte would else reach its caller as a broken call in place of INVALID_ARGUMENT.
MESSAGE_LIMIT = 256
# The hint of a buffer of which nobody measures how fast it empties.
RETRY_AFTER_DEFAULT_S = 0.25


class ServerError(Exception):
    """Anything a request can run into that is no bug: a sentence for the caller, with no private value in it."""


class InvalidRequestError(ServerError):
    """The request itself is wrong: `field` is the path of the first field that is, such as `row.cells[2].number`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class UnknownTaskError(InvalidRequestError):
    """The task or tenant named by the request is not served here."""


class NotFreshError(ServerError):
    """The graph has not reached the request's freshness token, and the deadline allows no more waiting."""


class OverloadedError(ServerError):
    """A bounded buffer is full, or the deadline cannot be held: refused before any work was done for the request.

    `retry_after_s` is when asking again is worth it.
    """

    def __init__(self, message: str, *, retry_after_s: float = RETRY_AFTER_DEFAULT_S) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StaleGraphError(ServerError):
    """The graph lies further behind its log than the task allows."""


class GraphUnavailableError(ServerError):
    """The store that the graph lies in cannot answer: it is away, holds no graph that serves, or has lost a part of it.

    `everyone` says that it can answer nobody now; else another question may be of what is there.
    """

    def __init__(self, message: str, *, everyone: bool = True) -> None:
        super().__init__(message)
        self.everyone = everyone


class DeadlinePassedError(ServerError):
    """The request's deadline passed while it waited; the model never saw it."""


class DrainingError(ServerError):
    """The server is stopping and takes no new work; another one will."""


class NotConfiguredError(ServerError):
    """The server was started without what this call needs (a log to ingest into, for example)."""


class LogUnavailableError(ServerError):
    """Kafka did not confirm an event within the deadline; sending it again is safe, the graph applies it once."""


class IdempotencyUnavailableError(ServerError):
    """Redis did not answer: whether this request id had an answer cannot be known."""


class PredictionFailedError(ServerError):
    """The sampler or the model failed on this request alone."""


class UnauthenticatedError(ServerError):
    """The call has no credentials, or none that are known here."""


class PermissionDeniedError(ServerError):
    """The caller is known and lacks the role that the method asks for."""


CODES: dict[type[ServerError], grpc.StatusCode] = {
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    UnknownTaskError: grpc.StatusCode.NOT_FOUND,
    NotFreshError: grpc.StatusCode.FAILED_PRECONDITION,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    StaleGraphError: grpc.StatusCode.FAILED_PRECONDITION,
    GraphUnavailableError: grpc.StatusCode.UNAVAILABLE,
    DeadlinePassedError: grpc.StatusCode.DEADLINE_EXCEEDED,
    DrainingError: grpc.StatusCode.UNAVAILABLE,
    NotConfiguredError: grpc.StatusCode.FAILED_PRECONDITION,
    LogUnavailableError: grpc.StatusCode.UNAVAILABLE,
    IdempotencyUnavailableError: grpc.StatusCode.UNAVAILABLE,
    PredictionFailedError: grpc.StatusCode.INTERNAL,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
}

# The key under which gRPC clients of every language look for a google.rpc.Status.
DETAILS_KEY = "grpc-status-details-bin"
# Where gRPC's own retries look for how long to wait (gRFC A6), in milliseconds.
PUSHBACK_KEY = "grpc-retry-pushback-ms"


def code_of(error: ServerError) -> grpc.StatusCode:
    """The gRPC code of `error`; KeyError for a class that the table forgot, which a test excludes."""
    return CODES[type(error)]


def number_of(code: grpc.StatusCode) -> int:
    """The google.rpc.Code of a status code: the number that travels on the wire."""
    number: int = code.value[0]
    return number


def said(error: ServerError) -> str:
    """What the caller is told: the error's message, in its first `MESSAGE_LIMIT` characters."""
    return _shortened(str(error))


def details_of(error: ServerError) -> tuple[tuple[str, str | bytes], ...]:
    """Trailing metadata that says which field is wrong, or when to ask again; empty where neither is known."""
    detail = any_pb2.Any()
    if isinstance(error, InvalidRequestError):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=_shortened(error.message)
        )
        detail.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
        return (_status(error, detail),)
    if isinstance(error, OverloadedError):
        pushback_ms = max(1, round(error.retry_after_s * 1e3))
        seconds, rest_ms = divmod(pushback_ms, 1_000)
        delay = duration_pb2.Duration(seconds=seconds, nanos=rest_ms * 1_000_000)
        detail.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        return (_status(error, detail), (PUSHBACK_KEY, str(pushback_ms)))
    return ()


def _status(error: ServerError, detail: any_pb2.Any) -> tuple[str, bytes]:
    status = status_pb2.Status(code=number_of(code_of(error)), message=said(error), details=[detail])
    return DETAILS_KEY, status.SerializeToString()


def _shortened(message: str) -> str:
    return message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…"
