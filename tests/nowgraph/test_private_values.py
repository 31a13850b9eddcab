"""Card numbers and keys that the schema marks private go in by every way, and are looked for in all that comes out."""

from __future__ import annotations

import io
import logging
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from graph_updater.updater import Updater
from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from nowgraph.client import Client, ClientError, FreshnessToken, Row
from nowgraph.logs import configure_logs
from stream.producer import EventProducer
from stream.settings import EVENTS_TOPIC

pytestmark = pytest.mark.integration
CARD, CUSTOMER = "4999-0000-1111-2222", 987_654_321
PRIVATE = (CARD, str(CUSTOMER))


@dataclass
class Watched:
    """A server and an updater that say all they can, and what they said."""

    world: Any
    client: Client
    server: BackgroundServer
    updater: Updater
    producer: EventProducer
    exporter: InMemorySpanExporter
    log: io.StringIO

    def cells(self, **more: Any) -> dict[str, Any]:
        return {"customer_id": CUSTOMER, "card_number": CARD, "tx_amount": 9.0, **more}

    def refused(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        """Makes a call that must fail."""
        with pytest.raises(ClientError):
            call(*arguments, **options)

    def said(self) -> str:
        """Every metric of both programs, in both forms, and every attribute, event and status of every span."""
        url = f"http://127.0.0.1:{self.server.server.metrics_port}/metrics"
        texts = [span.to_json() for span in self.exporter.get_finished_spans()]
        for accepted in ("application/openmetrics-text;version=1.0.0", "text/plain"):
            asked = urllib.request.Request(url, headers={"Accept": accepted})
            with urllib.request.urlopen(asked, timeout=5) as response:
                texts.append(response.read().decode())
        texts += [str(family) for family in self.updater.metrics.registry.collect()]
        return "\n".join(texts)


@pytest.fixture
def watched(world: Any, live: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """Everything in one process, with log lines from debug on and every call traced."""
    before, hook, handlers = structlog.get_config(), threading.excepthook, list(logging.getLogger().handlers)
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    configure_logs("debug")
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    inputs = {"transactions": 1, "transaction_events": 1, EVENTS_TOPIC: 1}
    settings = ServerSettings(port=0, metrics_port=0, deadline_default_ms=20_000)
    system = live(world, inputs, settings, provider=provider)
    yield Watched(world, system.client, system.server, system.updater, system.producer, exporter, log)
    structlog.configure(**before)
    threading.excepthook = hook
    logging.getLogger().handlers[:] = handlers


def test_no_private_value_is_logged_counted_or_traced(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Success, wrong, stale and late requests, poisoned records, failures of the model and bugs: none quotes one."""
    monkeypatch.setattr(sys, "stderr", watched.log)  # pytest puts its own there between a fixture and its test
    client, cells, time_us = watched.client, watched.cells(), watched.world.start_us + 10**11
    token = client.ingest("transactions", 90_001, cells, event_time=time_us)
    client.score("transactions", 90_002, cells, event_time=time_us + 1, freshness_token=token, request_id=CARD)
    client.neighborhood("transactions", 90_002, cells, event_time=time_us + 1, freshness_token=token)
    row = Row("transactions", 90_003, cells, time_us)
    client.score_batch([row, Row("transactions", CARD, cells, time_us)])
    assert len(list(client.score_stream([row, Row("transactions", 1, {CARD: CARD}, time_us)]))) == 2
    with Client(watched.server.target, task=CARD, tenant=CARD, timeout_s=20) as elsewhere:
        watched.refused(elsewhere.score, "transactions", 1, cells)
    for wrong in ({CARD: 1}, {"tx_amount": CARD}, {"seen_at": CARD}, {"online": CARD}, {"customer_id": [1.5]}):
        watched.refused(client.score, "transactions", 90_004, {**cells, **wrong})
        watched.refused(client.ingest, "transactions", 90_004, {**cells, **wrong}, event_time=time_us)
    watched.refused(client.score, CARD, 1, cells)
    far = FreshnessToken("transaction_events", 0, 10**9)
    watched.refused(client.score, "transactions", 90_005, cells, freshness_token=far, timeout_s=0.2)
    watched.refused(client.ingest, "transactions", 90_006, cells, event_time=time_us, timeout_s=1e-6)
    poison = [
        b'{"transaction_id": "%s", "customer_id": %d, "card_number": "%s"}' % (CARD.encode(), CUSTOMER, CARD.encode()),
        b'{"transaction_id": 7, "tx_datetime": "%s", "customer_id": "%s"}' % (CARD.encode(), CARD.encode()),
        b"no json, but " + CARD.encode(),
    ]
    for value in poison:
        watched.producer.send("transactions", value=value, key=CARD.encode())
    watched.producer.send("transaction_events", value=CARD.encode())
    assert watched.producer.flush(10) == 0

    def rejected() -> float:
        families = watched.updater.metrics.registry.collect()
        samples = [sample for family in families for sample in family.samples]
        return sum(one.value for one in samples if one.name == "nowgraph_events_rejected_total")

    until_s = time.monotonic() + 20
    while rejected() < 4 and time.monotonic() < until_s:
        time.sleep(0.01)
    assert rejected() >= 4

    def fail(*_: object, **__: object) -> None:
        raise ValueError(f"cannot read {CARD} of {CUSTOMER}")

    with monkeypatch.context() as patched:
        patched.setattr("model_server.generation.Serving.sample", fail)
        watched.refused(client.score, "transactions", 90_007, cells)
    with monkeypatch.context() as patched:
        patched.setattr("model_server.scoring.answer_of", fail)
        watched.refused(client.score, "transactions", 90_008, cells)
        with pytest.raises(ClientError):
            list(client.score_stream([row]))
    with grpc.insecure_channel(watched.server.target) as channel:
        garbage = channel.unary_unary("/nowgraph.v1.PredictionService/Score")
        with pytest.raises(grpc.RpcError):
            garbage(CARD.encode(), timeout=5, metadata=(("nowgraph-tag", CARD),))
    said = watched.said()
    watched.server.close()
    logged = watched.log.getvalue()
    for found in ("prediction_failed", "request_failed", '"trace_id"'):
        assert found in logged
    for found in ("PredictionService/Ingest", "transaction_events apply", "nowgraph_request_seconds_bucket"):
        assert found in said
    for value in PRIVATE:
        assert value not in logged
        assert value not in said
