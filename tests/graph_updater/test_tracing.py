from __future__ import annotations

import numpy as np
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from graph_updater.tracing import RECORDS_LOOKED_AT, ApplyTraces
from stream.batch import Batch, Header

TRACED: list[Header] = [("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
UNSAMPLED: list[Header] = [("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")]
COUNT = 200


class Records:
    """A batch whose headers are counted when they are read."""

    def __init__(self, headers: dict[int, list[Header]], *, backfill: bool = False) -> None:
        self.looks = 0
        self._headers = headers
        zeros = np.zeros(COUNT, np.int64)
        self.batch = Batch(
            topic="payments",
            partition=np.full(COUNT, 3, np.int32),
            offset=np.arange(COUNT, dtype=np.int64) + 500,
            timestamp_us=zeros,
            keys=[None] * COUNT,
            values=[b""] * COUNT,
            headers=self._look,
            backfill=backfill,
        )

    def _look(self, index: int) -> list[Header]:
        self.looks += 1
        return self._headers.get(index, [])


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """Keeps spans."""
    return InMemorySpanExporter()


@pytest.fixture
def traces(exporter: InMemorySpanExporter) -> ApplyTraces:
    """What an updater with an SDK has."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return ApplyTraces(provider)


def test_a_traced_record_has_a_span_in_its_own_trace(traces: ApplyTraces, exporter: InMemorySpanExporter) -> None:
    """The trace of whoever published goes on to the moment when the event is visible; the others leave nothing."""
    records = Records({2: TRACED, 3: UNSAMPLED})
    traces.applied(records.batch, start_ns=1_000, end_ns=5_000)
    (span,) = exporter.get_finished_spans()
    assert span.name == "payments apply"
    assert span.kind is trace.SpanKind.CONSUMER
    assert trace.format_trace_id(span.context.trace_id) == "0af7651916cd43dd8448eb211c80319c"
    assert span.parent is not None
    assert span.parent.span_id == span.links[0].context.span_id == 0xB7AD6B7169203331
    assert (span.start_time, span.end_time) == (1_000, 5_000)
    assert span.attributes is not None
    assert span.attributes["messaging.kafka.offset"] == 502


def test_looking_is_bounded(traces: ApplyTraces, exporter: InMemorySpanExporter) -> None:
    """However large a batch is, only so many of its records are looked at; of history none."""
    records = Records({RECORDS_LOOKED_AT - 1: TRACED, RECORDS_LOOKED_AT: TRACED})
    traces.applied(records.batch, start_ns=0, end_ns=1)
    assert records.looks == RECORDS_LOOKED_AT
    assert len(exporter.get_finished_spans()) == 1
    history = Records({0: TRACED}, backfill=True)
    traces.applied(history.batch, start_ns=0, end_ns=1)
    assert history.looks == 0


def test_without_an_sdk_no_header_is_read() -> None:
    """A process that exports nothing pays nothing."""
    records = Records({0: TRACED})
    ApplyTraces(trace.NoOpTracerProvider()).applied(records.batch, start_ns=0, end_ns=1)
    assert records.looks == 0
