"""OpenTelemetry spans of calls and their stages, by W3C Trace Context in the metadata.

    metadata `traceparent` ─► interceptor ─► span of the call ─► handler ─► status
                                    └► current_call() ─► stages, exemplars, Kafka headers, log lines

Stages are measured for the metrics anyway; their spans are written from these numbers once the answer is there, so a
call that is not sampled pays for one look at a context variable. No span holds a value of a request.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanKind, Status, StatusCode, Tracer, TracerProvider

from stream.batch import Header
from stream.trace_context import TRACEPARENT, TRACESTATE, context_in, headers_of

TRACER_NAME = "nowgraph"
# Of a batch or stream, so many items a second have spans of their own: a trace is read by a person.
ITEMS_PER_SECOND = 16
# Health checks and reflection come from machines, every few seconds.
_TRACED_PREFIX = "/nowgraph."
_FIELDS = (TRACEPARENT, TRACESTATE)
# Calls of many items: each item that is shown has a span between the call's and its stages'.
_MANY = ("ScoreBatch", "ScoreStream", "RankBatch")
# By the semantic conventions of RPC these are the server's failures; all others are answers.
_FAILURES = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)

Attributes = Mapping[str, str | int | float | bool]
Handler = Any  # grpc.RpcMethodHandler; generic in the stubs alone


class CallTrace:
    """A call that somebody follows: its span, and what others need of it, made once."""

    __slots__ = ("_item_count", "_many", "_tracer", "_window_s", "exemplar", "headers", "span")

    def __init__(self, span: Span, tracer: Tracer, *, many: bool) -> None:
        context = span.get_span_context()
        self.span = span
        self.headers: tuple[Header, ...] = headers_of(context)
        self.exemplar: dict[str, str] | None = None
        if context.trace_flags.sampled:
            self.exemplar = {
                "trace_id": trace.format_trace_id(context.trace_id),
                "span_id": trace.format_span_id(context.span_id),
            }
        self._tracer = tracer
        self._many = many
        self._window_s = 0.0
        self._item_count = 0

    def item(
        self,
        name: str,
        *,
        total_s: float,
        encode_s: float,
        stages_us: Sequence[tuple[str, int]],
        attributes: Attributes,
    ) -> None:
        """Writes the spans of an answer that is just there: total_s until its building began, encode_s to build it.

        Stages follow each other from the beginning; what is left before `encode` is the way back to the event loop.
        """
        if not self.span.is_recording() or not self._has_room():
            return
        end_ns = time.time_ns()
        encode_ns = end_ns - round(encode_s * 1e9)
        start_ns = encode_ns - round(total_s * 1e9)
        parent = self.span
        if self._many:
            parent = self._start(name, self.span, start_ns)
        parent.set_attributes(attributes)
        at_ns = start_ns
        for stage, duration_us in stages_us:
            if duration_us > 0:
                span = self._start(stage, parent, at_ns)
                at_ns += duration_us * 1_000
                span.end(at_ns)
        self._start("encode", parent, encode_ns).end(end_ns)
        if parent is not self.span:
            parent.end(end_ns)

    def _has_room(self) -> bool:
        if not self._many:
            return True
        now_s = time.monotonic()
        if now_s - self._window_s >= 1.0:
            self._window_s, self._item_count = now_s, 0
        self._item_count += 1
        return self._item_count <= ITEMS_PER_SECOND

    def _start(self, name: str, parent: Span, start_ns: int) -> Span:
        return self._tracer.start_span(name, context=trace.set_span_in_context(parent), start_time=start_ns)


_call: ContextVar[CallTrace | None] = ContextVar("nowgraph_call_trace", default=None)


def current_call() -> CallTrace | None:
    """The call being answered, if somebody follows it; None for most."""
    return _call.get()


def current_exemplar() -> dict[str, str] | None:
    """The labels of an exemplar of the call being answered; None unless it is sampled."""
    call = _call.get()
    return None if call is None else call.exemplar


def current_headers() -> tuple[Header, ...]:
    """Headers for a record that the call being answered publishes; none unless it is sampled."""
    call = _call.get()
    return () if call is None else call.headers


class TracingInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """Follows calls: with an SDK's provider each as its sampler decides, without one those that come with a trace."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        """None stands for the process's provider, as it is now."""
        provider = provider if provider is not None else trace.get_tracer_provider()
        self._recording = not isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider)
        self._tracer = provider.get_tracer(TRACER_NAME) if self._recording else trace.NoOpTracer()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Says which call is answered to everything below, and ends its span with it.

        A call has a task of its own, which ends with it: what is set here need not be set back.
        """
        fields = {
            key: value
            for key, value in handler_call_details.invocation_metadata
            if key in _FIELDS and isinstance(value, str)
        }
        method = handler_call_details.method
        if not (fields or self._recording) or not method.startswith(_TRACED_PREFIX):
            return await continuation(handler_call_details)
        remote = context_in(fields)
        if not self._recording:
            if remote is not None:
                self._follow(NonRecordingSpan(remote), many=False)
            return await continuation(handler_call_details)
        service, _, name = method[1:].partition("/")
        parent = None if remote is None else trace.set_span_in_context(NonRecordingSpan(remote))
        span = self._tracer.start_span(
            method[1:],
            context=parent,
            kind=SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
        )
        self._follow(span, many=name in _MANY)
        handler = await continuation(handler_call_details)
        if handler is None:  # there is no such method
            _end(span, grpc.StatusCode.UNIMPLEMENTED)
        return _ended_with(handler, span) if handler is not None and span.is_recording() else handler

    def _follow(self, span: Span, *, many: bool) -> None:
        otel_context.attach(trace.set_span_in_context(span))
        _call.set(CallTrace(span, self._tracer, many=many))


def _ended_with(handler: Handler, span: Span) -> Handler:
    """The handler, which ends the span when it has answered."""

    async def one(request: Any, context: Any) -> Any:
        try:
            response = await handler_of(request, context)
        except BaseException as error:
            _end(span, _code(context, error))
            raise
        _end(span, grpc.StatusCode.OK)
        return response

    async def several(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for response in handler_of(request, context):
                yield response
        except BaseException as error:
            _end(span, _code(context, error))
            raise
        _end(span, grpc.StatusCode.OK)

    streams_in, streams_out = handler.request_streaming, handler.response_streaming
    kind = f"{'stream' if streams_in else 'unary'}_{'stream' if streams_out else 'unary'}"
    handler_of = getattr(handler, kind)
    return getattr(grpc, f"{kind}_rpc_method_handler")(
        several if streams_out else one, handler.request_deserializer, handler.response_serializer
    )


def _end(span: Span, code: grpc.StatusCode) -> None:
    span.set_attribute("rpc.grpc.status_code", code.value[0])
    if code in _FAILURES:
        span.set_status(Status(StatusCode.ERROR, code.name))
    span.end()


def _code(context: Any, error: BaseException) -> grpc.StatusCode:
    """What the caller hears: the code that the handler aborted with; any other exception is CANCELLED or UNKNOWN."""
    if isinstance(error, grpc.aio.AbortError):
        found = context.code()
        return next((code for code in grpc.StatusCode if found in (code, code.value[0])), grpc.StatusCode.UNKNOWN)
    cancelled = not isinstance(error, Exception)  # asyncio's, or that of a stream which is read no more
    return grpc.StatusCode.CANCELLED if cancelled else grpc.StatusCode.UNKNOWN
