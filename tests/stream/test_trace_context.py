from __future__ import annotations

import pytest
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanContext, TraceFlags, TraceState

from stream.trace_context import context_in, fields_of, headers_of, sampled_context

TRACE_ID, SPAN_ID = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331


def context(*, sampled: bool = True, state: TraceState | None = None) -> SpanContext:
    """A span of somebody else."""
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return SpanContext(TRACE_ID, SPAN_ID, is_remote=True, trace_flags=flags, trace_state=state)


def test_the_fields_are_those_of_w3c() -> None:
    """`traceparent` is written to the letter of the specification, and read back as the same span."""
    fields = fields_of(context(state=TraceState([("vendor", "x")])))
    assert fields == {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "vendor=x",
    }
    found = context_in(fields)
    assert found is not None
    assert (found.trace_id, found.span_id, found.trace_flags.sampled) == (TRACE_ID, SPAN_ID, True)
    assert fields_of(INVALID_SPAN_CONTEXT) == {}


def test_a_record_has_headers_only_when_its_span_is_sampled() -> None:
    """What is not traced costs no byte and no look."""
    assert headers_of(context(sampled=False)) == ()
    ((name, value),) = headers_of(context())
    assert (name, value) == ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    found = sampled_context([("other", b"\xff"), (name, value)])
    assert found is not None
    assert found.span_id == SPAN_ID


@pytest.mark.parametrize(
    "headers",
    [
        None,
        [],
        [("hashed", b"1")],
        [("traceparent", None)],
        [("traceparent", b"\xff\xfe")],
        [("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")],
        [("traceparent", b"00-00000000000000000000000000000000-b7ad6b7169203331-01")],
        [("tracestate", b"vendor=x")],
    ],
    ids=["none", "empty", "another", "null", "bytes", "not sampled", "no trace", "state alone"],
)
def test_anything_else_is_no_trace(headers: list[tuple[str, bytes | None]] | None) -> None:
    """Headers of others, malformed ones and those of what is not sampled are passed over; nothing fails."""
    assert sampled_context(headers) is None
