"""Which trace a record belongs to, in its headers: W3C Trace Context, as every language's OpenTelemetry writes it.

    span that publishes ─► `traceparent` (`tracestate`) ─► Kafka ─► span context of whoever reads the record

Baggage is left out on purpose: what callers put there is theirs, and may be private.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from opentelemetry import trace
from opentelemetry.trace import SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from stream.batch import Header

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
_PROPAGATOR = TraceContextTextMapPropagator()


def fields_of(context: SpanContext) -> dict[str, str]:
    """The fields that say a span's context, for gRPC metadata, HTTP or Kafka; empty for an invalid one."""
    fields: dict[str, str] = {}
    _PROPAGATOR.inject(fields, trace.set_span_in_context(trace.NonRecordingSpan(context)))
    return fields


def context_in(fields: Mapping[str, str]) -> SpanContext | None:
    """The span context that fields say; None without one, or for one that is malformed."""
    if TRACEPARENT not in fields:
        return None
    found = trace.get_current_span(_PROPAGATOR.extract(dict(fields))).get_span_context()
    return found if found.is_valid else None


def headers_of(context: SpanContext) -> tuple[Header, ...]:
    """A record's headers for a span; none when it is not sampled, so that what is not traced costs nothing."""
    if not context.trace_flags.sampled:
        return ()
    return tuple((name, value.encode()) for name, value in fields_of(context).items())


def sampled_context(headers: Iterable[Header] | None) -> SpanContext | None:
    """The context of the sampled span that published a record; None for most."""
    if not headers:
        return None
    fields = {
        name: value.decode("ascii", "replace")
        for name, value in headers
        if value is not None and name in (TRACEPARENT, TRACESTATE)
    }
    found = context_in(fields) if fields else None
    return found if found is not None and found.trace_flags.sampled else None
