"""One trace from a caller through gRPC and Kafka to the graph, and on to the predictions topic."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from model_server.settings import ServerSettings
from stream.kafka_source import KafkaSource
from stream.settings import EVENTS_TOPIC
from stream.trace_context import sampled_context

pytestmark = pytest.mark.integration


def test_an_event_and_its_prediction_are_in_their_callers_trace(
    world: Any, settings: ServerSettings, live: Callable[..., Any]
) -> None:
    """Ingest, the event becoming visible, the score that knows it and its audit record: all name one trace."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    inputs = {"transactions": 1, "transaction_events": 1, EVENTS_TOPIC: 1}
    system = live(world, inputs, settings, provider=provider)
    client, cells = system.client, {"customer_id": 5, "tx_amount": 9.0}
    with provider.get_tracer("shop").start_as_current_span("checkout") as mine:
        token = client.ingest("transactions", 90_001, cells, event_time=world.start_us + 10**11)
        client.score("transactions", 90_002, cells, event_time=world.start_us + 10**11 + 1, freshness_token=token)
    client.score("transactions", 90_003, cells)
    system.server.close()
    reader = KafkaSource(["nowgraph.predictions"], settings=system.stream)
    headers: list[Any] = []
    until_s = time.monotonic() + 20
    while len(headers) < 2 and time.monotonic() < until_s:
        batch = reader.poll(100, 0.2)
        headers += [batch.headers(index) for index in range(len(batch))]
    reader.close()
    spans = {
        span.name: span for span in exporter.get_finished_spans() if span.context.trace_id == mine.context.trace_id
    }
    service = "nowgraph.v1.PredictionService"
    stages = {"freshness", "queue", "sample", "collate", "forward", "encode"}
    names = {"checkout", f"{service}/Ingest", "transaction_events apply", f"{service}/Score"}
    assert names <= set(spans) <= names | stages
    visible = spans["transaction_events apply"]
    assert visible.parent is not None
    assert visible.parent.span_id == spans[f"{service}/Ingest"].context.span_id
    recorded = [sampled_context(each) for each in headers]
    assert all(recorded)  # each score is sampled here: with a caller's trace, or with one of its own
    traces = {context.trace_id for context in recorded if context is not None}
    assert len(traces) == 2
    assert mine.context.trace_id in traces
    assert trace.get_current_span() is trace.INVALID_SPAN
