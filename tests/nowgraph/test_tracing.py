from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collector_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as collector_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from model_server.tracing import TracingInterceptor
from nowgraph.client import Client
from nowgraph.errors import UsageError
from nowgraph.tracing import exporter_name, provider_from


@dataclass
class Collector(collector_grpc.TraceServiceServicer):
    """Takes spans as OpenTelemetry's collector does, and keeps them."""

    received: list[collector_pb2.ExportTraceServiceRequest] = field(default_factory=list)

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.received.append(request)
        return collector_pb2.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[trace_pb2.Span]:
        return [
            span
            for request in self.received
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture(params=["grpc", "http/protobuf"])
def collector(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector on loopback that speaks one of OTLP's protocols; the environment names it."""
    found = Collector()
    if request.param == "grpc":
        server = grpc.server(ThreadPoolExecutor(2))
        collector_grpc.add_TraceServiceServicer_to_server(found, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        stop = lambda: server.stop(None).wait()  # noqa: E731
    else:

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                assert self.headers["Content-Type"] == "application/x-protobuf"
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                found.received.append(collector_pb2.ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        web = HTTPServer(("127.0.0.1", 0), Handler)
        port = web.server_port
        threading.Thread(target=web.serve_forever, daemon=True).start()

        def stop() -> None:
            web.shutdown()
            web.server_close()

    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", request.param)
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    yield found
    stop()


@pytest.mark.integration
def test_spans_reach_a_collector(world: Any, collector: Collector) -> None:
    """By the standard variables alone a call and its stages arrive, over gRPC and HTTP, under the service's name."""
    import os

    provider = provider_from("nowgraph-server", os.environ)
    assert provider is not None
    settings = ServerSettings(port=0, metrics_port=0)
    interceptors = (TracingInterceptor(provider),)
    with (
        BackgroundServer(lambda: world.server(settings, interceptors=interceptors)) as server,
        Client(server.target, timeout_s=20) as client,
    ):
        client.score("transactions", 7, {"customer_id": 3})
    assert provider.force_flush(10_000)
    provider.shutdown()
    by_name = {span.name: span for span in collector.spans}
    assert set(by_name) == {
        "nowgraph.v1.PredictionService/Score", "queue", "sample", "collate", "forward", "encode",
    }  # fmt: skip
    call = by_name["nowgraph.v1.PredictionService/Score"]
    assert call.kind == trace_pb2.Span.SPAN_KIND_SERVER
    assert {span.trace_id for span in collector.spans} == {call.trace_id}
    resource = {
        each.key: each.value.string_value for each in collector.received[0].resource_spans[0].resource.attributes
    }
    assert resource["service.name"] == "nowgraph-server"
    assert resource["deployment.environment"] == "test"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, "otlp_proto_grpc"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "otlp_proto_grpc"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "otlp_proto_http"),
        (
            {
                "OTEL_TRACES_EXPORTER": "otlp",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
            },
            "otlp_proto_grpc",
        ),
        ({"OTEL_TRACES_EXPORTER": "console"}, "console"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, None),
    ],
)
def test_nothing_is_traced_unless_the_environment_says_so(environment: dict[str, str], expected: str | None) -> None:
    """An exporter or an endpoint switches it on, the protocol chooses the exporter, and each can switch it off."""
    assert exporter_name(environment) == expected
    if expected is None:
        assert provider_from("x", environment) is None


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"OTEL_TRACES_EXPORTER": "carrier_pigeon"}, "console.*otlp_proto_grpc"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "grpc or http/protobuf"),
    ],
)
def test_what_cannot_be_followed_is_named(environment: dict[str, str], expected: str) -> None:
    """A misspelt exporter is an error when the process starts, not a silence."""
    with pytest.raises(UsageError, match=expected):
        provider_from("x", environment)
