"""How calls come from gRPC's own threads to the event loop: looked up by name, and no more than it can take.

connection ─► gRPC's threads ─► pending, bounded ─► event loop: one by one ─► Arrivals ─► message ─► handler
                                    │                                                      └► none: INVALID_ARGUMENT
                                    └► beyond the bound: refused, beside Python
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError

from model_server.arrivals import Arrivals
from model_server.errors import InvalidRequestError

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

MALFORMED: Final = object()
"""In place of a message whose bytes are none of its type."""
_REFUSAL = "the request's bytes are no message of its type"


class ByName:
    """A server whose methods are found by name when a call comes, and not registered with gRPC beforehand.

    For every call it takes, grpc.aio waits anew for one of each registered method: with ten of them that costs more
    than the look-up that it saves.
    """

    def __init__(self, server: grpc.aio.Server, arrivals: Arrivals | None) -> None:
        self._server = server
        self._arrivals = arrivals

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler[Any, Any]]) -> None:
        """As the server's own; bytes that are no message are refused as INVALID_ARGUMENT."""
        self._server.add_generic_rpc_handlers([_Refusing(one, self._arrivals) for one in handlers])

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:
        """The generic handlers have them too."""


class _Refusing(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs alone
    """Handlers whose messages are checked: gRPC would answer UNKNOWN, with a traceback in the log for each."""

    def __init__(self, handlers: grpc.GenericRpcHandler[Any, Any], arrivals: Arrivals | None) -> None:
        self._handlers = handlers
        self._arrivals = arrivals
        self._checked: dict[str, Handler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """As `grpc.GenericRpcHandler.service`."""
        method = handler_call_details.method
        found = self._checked.get(method)
        if found is None:
            handler = self._handlers.service(handler_call_details)
            if handler is None:
                return None
            found = self._checked[method] = _checked(handler, self._arrivals)
        return found


def _checked(handler: Handler, arrivals: Arrivals | None) -> Handler:
    """The handler, refusing what is no message; as it is where it takes bytes, or runs on a thread (reflection's)."""
    read = handler.request_deserializer
    if read is None:
        return handler
    if inspect.iscoroutinefunction(handler.unary_unary):
        one, write = _refusing(handler.unary_unary), handler.response_serializer
        if arrivals is not None and write is not None:
            return grpc.unary_unary_rpc_method_handler(_together(one, _reading(read), write, arrivals))
        return grpc.unary_unary_rpc_method_handler(one, _reading(read), write)
    if inspect.iscoroutinefunction(handler.unary_stream):
        return grpc.unary_stream_rpc_method_handler(
            _refusing(handler.unary_stream), _reading(read), handler.response_serializer
        )
    if inspect.isasyncgenfunction(handler.stream_stream):
        answer = handler.stream_stream

        async def stream(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
            async with aclosing(answer(_whole(requests), context)) as responses:
                async for response in responses:
                    yield response

        return grpc.stream_stream_rpc_method_handler(stream, _reading(read), handler.response_serializer)
    return handler


def _together(
    answer: Callable[[Any, Any], Any], read: Callable[[bytes], Any], write: Callable[[Any], bytes], arrivals: Arrivals
) -> Callable[[bytes, Any], Awaitable[bytes]]:
    """A handler over bytes, whose messages are read and written together with those of other calls."""

    async def one(data: bytes, context: Any) -> bytes:
        async def work() -> bytes:
            return write(await answer(read(data), context))

        return await arrivals.answer(work)

    return one


def _reading(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def message_of(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError:
            return MALFORMED

    return message_of


def _refusing(answer: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    async def one(request: Any, context: Any) -> Any:
        if request is MALFORMED:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, _REFUSAL)
        return await answer(request, context)

    return one


async def _whole(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """The messages; raises InvalidRequestError at one that is none."""
    async for request in requests:
        if request is MALFORMED:
            raise InvalidRequestError("request", _REFUSAL)
        yield request


def by_name_on(server: grpc.aio.Server, arrivals: Arrivals | None = None) -> grpc.aio.Server:
    """What generated code and gRPC's own services add themselves to, in place of the server.

    With `arrivals` calls of one message are read together; streams, and all calls without it, as they come.
    """
    return cast("grpc.aio.Server", ByName(server, arrivals))


def pending_options(limit: int) -> list[tuple[str, int]]:
    """Server options: at most `limit` calls wait for the event loop; more are refused as they come.

    gRPC does it in its own threads at a tenth of what it costs in Python, whose time answers need. Its trailers say
    CANCELLED, and there is no way to say when to ask again. From the first number on it refuses at random, from the
    second on everybody: here both are one.
    """
    return [
        ("grpc.server.max_pending_requests", limit - 1),
        ("grpc.server.max_pending_requests_hard_limit", limit),
    ]
