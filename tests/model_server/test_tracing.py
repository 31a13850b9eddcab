from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from model_server.tracing import ITEMS_PER_SECOND, TracingInterceptor, current_call, current_exemplar, current_headers
from nowgraph.client import Client, InvalidRequestError, ListRequest, Row, ServerFailureError

pytestmark = pytest.mark.integration
SCORE_STAGES = ["queue", "sample", "collate", "forward", "encode"]


class Traced:
    """A server whose spans are kept, and a client of it."""

    def __init__(self, server: BackgroundServer, client: Client, exporter: InMemorySpanExporter, tracer: Any) -> None:
        self.server = server
        self.client = client
        self.tracer = tracer
        self._exporter = exporter

    def calls(self, count: int) -> list[ReadableSpan]:
        """The server's spans of calls, once there are so many: a caller may hear of a failure before its span ends."""
        until_s = time.monotonic() + 5
        while len(self.spans(trace.SpanKind.SERVER)) < count and time.monotonic() < until_s:
            time.sleep(0.005)
        found = self.spans(trace.SpanKind.SERVER)
        assert len(found) == count
        return found

    def spans(self, kind: trace.SpanKind | None = None) -> list[ReadableSpan]:
        """What ended so far, oldest first."""
        found = sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
        return [span for span in found if kind is None or span.kind is kind]

    def children(self, parent: ReadableSpan) -> list[ReadableSpan]:
        """The spans right below one."""
        return [span for span in self.spans() if span.parent and span.parent.span_id == parent.context.span_id]


@pytest.fixture
def traced_with(world: Any, settings: ServerSettings) -> Iterator[Callable[..., Traced]]:
    """Starts a server, of the world unless another is given, whose provider has a sampler of the test's choice."""
    with ExitStack() as stack:

        def start(sampler: Any = None, served: Any = world) -> Traced:
            exporter, provider = InMemorySpanExporter(), TracerProvider(sampler=sampler)
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            interceptors = (TracingInterceptor(provider),)
            server = stack.enter_context(BackgroundServer(lambda: served.server(settings, interceptors=interceptors)))
            client = stack.enter_context(Client(server.target, timeout_s=20))
            return Traced(server, client, exporter, provider.get_tracer("caller"))

        yield start


@pytest.fixture
def traced(traced_with: Callable[..., Traced]) -> Traced:
    """A server that traces every call."""
    return traced_with()


def test_a_call_continues_its_callers_trace(traced: Traced) -> None:
    """The server's span is a child of the client's; its stages follow each other inside it, as the answer says."""
    with traced.tracer.start_as_current_span("checkout") as mine:
        score = traced.client.score("transactions", 7, {"customer_id": 3})
    (call,) = traced.calls(1)
    assert call.name == "nowgraph.v1.PredictionService/Score"
    assert call.parent is not None
    assert (call.context.trace_id, call.parent.span_id) == (mine.context.trace_id, mine.context.span_id)
    assert call.attributes is not None
    assert call.attributes["rpc.grpc.status_code"] == 0
    assert call.attributes["nowgraph.model_version"] == score.model_version
    stages = traced.children(call)
    assert [span.name for span in stages] == SCORE_STAGES
    for before, after in zip([call, *stages], [*stages, None], strict=True):
        assert before.start_time is not None
        assert before.end_time is not None
        assert call.end_time is not None
        assert call.end_time >= before.end_time >= before.start_time
        assert before is call or after is None or before.end_time <= (after.start_time or 0)
    forward = next(span for span in stages if span.name == "forward")
    assert (forward.end_time or 0) - (forward.start_time or 0) == score.timing.forward_us * 1_000


def test_a_traced_request_leaves_an_exemplar(traced: Traced) -> None:
    """From the bucket of a slow request its trace is one click away."""
    traced.client.score("transactions", 7, {"customer_id": 3})
    (call,) = traced.calls(1)
    exemplars = [
        (sample.name, sample.exemplar.labels["trace_id"])
        for family in traced.server.server.metrics.registry.collect()
        for sample in family.samples
        if sample.exemplar
    ]
    trace_id = trace.format_trace_id(call.context.trace_id)
    assert sorted(exemplars) == [
        ("nowgraph_request_seconds_bucket", trace_id),
        ("nowgraph_stage_seconds_bucket", trace_id),
    ]


def test_items_of_a_batch_and_of_a_stream_have_spans(traced: Traced) -> None:
    """Each row is a span with its stages below it, up to a number of them: a trace is read by a person."""
    rows = [Row("transactions", number, {"customer_id": 3}) for number in range(3)]
    assert len(traced.client.score_batch(rows)) == 3
    assert len(list(traced.client.score_stream(rows))) == 3
    for call in traced.calls(2):
        items = traced.children(call)
        assert [span.name for span in items] == ["score"] * 3
        assert [span.name for span in traced.children(items[0])] == SCORE_STAGES
    many = [Row("transactions", number, {"customer_id": 3}) for number in range(4 * ITEMS_PER_SECOND)]
    traced.client.score_batch(many)
    assert ITEMS_PER_SECOND <= len(traced.children(traced.calls(3)[-1])) < len(many)


def test_a_lists_stages_have_spans(traced_with: Callable[..., Traced], shop: Any) -> None:
    """A list's stages are those of ranking; each list of a batch is a span of its own."""
    traced = traced_with(served=shop)
    traced.client.rank(7, event_time=shop.start_us + 30 * shop.day_us)
    traced.client.rank_batch([ListRequest(7), ListRequest(8)])
    one, batch = traced.calls(2)
    stages = [span.name for span in traced.children(one)]
    assert {"queue", "retrieve", "forward", "encode"} <= set(stages) <= {*stages, "rules"}
    assert [span.name for span in traced.children(batch)] == ["rank", "rank"]
    assert one.attributes is not None
    assert one.attributes["nowgraph.model_version"] == "counting"


def test_only_the_servers_own_failures_are_errors(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong request has its code and no error status; a failed prediction is one, without the message."""
    with pytest.raises(InvalidRequestError):
        traced.client.score("transactions", "no number", {"customer_id": 3})

    def fail(*_: object) -> None:
        raise ValueError("4999-0000-1111")

    monkeypatch.setattr("model_server.generation.Serving.sample", fail)
    with pytest.raises(ServerFailureError):
        traced.client.score("transactions", 7, {"customer_id": 3})
    wrong, failed = traced.calls(2)
    assert wrong.attributes is not None
    assert failed.attributes is not None
    assert (wrong.attributes["rpc.grpc.status_code"], wrong.status.status_code.name) == (3, "UNSET")
    assert (failed.attributes["rpc.grpc.status_code"], failed.status.status_code.name) == (13, "ERROR")
    assert "4999-0000-1111" not in failed.to_json()
    assert failed.events == ()


def test_a_caller_decides_what_is_sampled(traced_with: Callable[..., Traced]) -> None:
    """With a ratio of 0 only the call whose caller samples has spans; one of another trace leaves nothing behind."""
    traced = traced_with(ParentBased(TraceIdRatioBased(0.0)))
    traced.client.score("transactions", 7, {"customer_id": 3})
    assert traced.spans() == []
    sampled = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED))
    with trace.use_span(trace.NonRecordingSpan(sampled)):
        traced.client.score("transactions", 7, {"customer_id": 3})
    assert {span.context.trace_id for span in traced.spans()} == {1}


def test_health_checks_are_not_traced(traced: Traced) -> None:
    """They come every few seconds from machines, and say nothing of a request; an unknown method has its code."""
    with grpc.insecure_channel(traced.server.target) as channel:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert traced.spans() == []
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/nowgraph.v1.PredictionService/Guess")(b"", timeout=5)
    (span,) = traced.calls(1)
    assert span.attributes is not None
    assert span.attributes["rpc.grpc.status_code"] == grpc.StatusCode.UNIMPLEMENTED.value[0]


class _Details:
    def __init__(self, *metadata: tuple[str, str]) -> None:
        self.method = "/nowgraph.v1.PredictionService/Score"
        self.invocation_metadata = metadata


async def test_without_an_sdk_a_callers_trace_is_handed_on() -> None:
    """No span is made, but what is published and counted names the caller's trace; without one nothing is set."""
    interceptor = TracingInterceptor(trace.NoOpTracerProvider())
    handler = object()

    async def continuation(_: object) -> Any:
        return handler

    details: Any = _Details(("nowgraph-client", "till"))
    assert await interceptor.intercept_service(continuation, details) is handler
    assert (current_call(), current_exemplar(), current_headers()) == (None, None, ())
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    details = _Details(("traceparent", traceparent))
    assert await interceptor.intercept_service(continuation, details) is handler
    assert current_headers() == (("traceparent", traceparent.encode()),)
    assert current_exemplar() == {"trace_id": "0af7651916cd43dd8448eb211c80319c", "span_id": "b7ad6b7169203331"}
