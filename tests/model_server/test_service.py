from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2, status_pb2
from prometheus_client.parser import text_string_to_metric_families

from graph_transformer.predictor import Predictor
from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from nowgraph.client_errors import OverloadedError, error_from_call
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import prediction_service_pb2_grpc as service_grpc

pytestmark = pytest.mark.integration
Payment = Callable[[], service_pb2.ScoreRequest]


@pytest.fixture
def stub(running: BackgroundServer) -> Iterator[service_grpc.PredictionServiceStub]:
    """The generated stub over a real connection, without the client's conveniences."""
    with grpc.insecure_channel(running.target) as channel:
        yield service_grpc.PredictionServiceStub(channel)


@pytest.fixture
def known(world: Any, payment: Payment) -> Payment:
    """A payment, two hours after the newest in the graph, of a customer with history."""

    def build() -> service_pb2.ScoreRequest:
        request = payment()
        request.row.key.parts[0].integer = 5_000
        request.row.event_time_us = world.start_us + 100 * 60_000_000 + 7_200_000_000
        next(cell for cell in request.row.cells if cell.column == "customer_id").integer = 1
        return request

    return build


def metric(running: BackgroundServer, name: str, **labels: str) -> float:
    """A value of the server's registry."""
    return running.server.metrics.registry.total(name, **labels)


def test_a_score_says_what_it_rests_on(stub: Any, known: Payment, world: Any) -> None:
    """Probability, model, cut-off, history, age, position and timing, all of them of this very request."""
    request = known()
    answer = stub.Score(request, timeout=10)
    assert answer.request_id == "r1"
    assert answer.task == "fraud"
    assert 0.0 < answer.probability < 1.0
    assert answer.model_version
    assert answer.cutoff_time_us == request.row.event_time_us - 1
    assert answer.neighbor_count >= answer.history_count >= 5
    newest_us = world.start_us + 93 * 60_000_000  # of terminal 3; the customer's own is at minute 81
    assert answer.newest_neighbor_age_us == answer.cutoff_time_us - newest_us
    assert answer.graph_position.sequence == 100
    assert [part.next_offset for part in answer.graph_position.partitions] == [100]
    assert answer.timing.total_us >= answer.timing.sample_us > 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda row: next(cell for cell in row.cells if cell.column == "customer_id").__setattr__("integer", 10**15),
        lambda row: row.ClearField("cells"),
        lambda row: [cell.__setattr__("null", 0) for cell in row.cells],
        lambda row: row.cells[1].__setattr__("text", "a channel nobody used"),
        lambda row: row.__setattr__("event_time_us", 1),
    ],
    ids=["unknown customer", "no cells", "all null", "new category", "before all history"],
)
def test_the_unknown_is_normal(spoil: Callable[[Any], object], stub: Any, known: Payment) -> None:
    """Whatever is unknown or missing, there is a score, with the history count beside it."""
    request = known()
    spoil(request.row)
    answer = stub.Score(request, timeout=10)
    assert 0.0 < answer.probability < 1.0
    assert answer.HasField("newest_neighbor_age_us") == (answer.history_count > 0)


def test_no_history_says_zero(stub: Any, known: Payment) -> None:
    """A row whose keys nobody has seen has history 0 and no age."""
    request = known()
    del request.row.cells[:]
    request.row.cells.add(column="customer_id", integer=10**15)
    answer = stub.Score(request, timeout=10)
    assert answer.history_count == 0
    assert not answer.HasField("newest_neighbor_age_us")


def test_time_is_respected_at_one_microsecond(stub: Any, known: Payment, world: Any) -> None:
    """A payment at exactly the scored time is not seen; a question one microsecond later sees it."""
    request = known()
    time_us = request.row.event_time_us
    before = stub.Score(request, timeout=10).history_count
    world.apply([world.event(6_000, time_us, customer=1, terminal=77)])
    assert stub.Score(request, timeout=10).history_count == before
    request.row.event_time_us = time_us + 1
    assert stub.Score(request, timeout=10).history_count == before + 1


INVALID: dict[str, tuple[str, Callable[[service_pb2.ScoreRequest], object]]] = {
    "row": ("row", lambda request: request.ClearField("row")),
    "table": ("row.table", lambda request: setattr(request.row, "table", "terminals")),
    "key": ("row.key.parts[0].text", lambda request: setattr(request.row.key.parts[0], "text", "x")),
    "cell": ("row.cells[0].text", lambda request: setattr(request.row.cells[0], "text", "x")),
    "column": ("row.cells[3].column", lambda request: setattr(request.row.cells[3], "column", "x")),
    "future": ("row.event_time_us", lambda request: setattr(request.row, "event_time_us", 4 * 10**15)),
}


@pytest.mark.parametrize("name", INVALID)
def test_bad_requests_name_the_field(name: str, stub: Any, known: Payment) -> None:
    """INVALID_ARGUMENT, with the path in the message and in the status details."""
    path, spoil = INVALID[name]
    request = known()
    spoil(request)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Score(request, timeout=10)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith(f"{path}: ")
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    violation = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(violation)
    assert violation.field_violations[0].field == path


def test_what_is_quoted_of_a_request_is_short(stub: Any, known: Payment) -> None:
    """A table's name of megabytes would else break the call: headers have an end."""
    request = known()
    request.row.table = "é" * 1_000_000
    with pytest.raises(grpc.RpcError, match=r"row\.table: ") as caught:
        stub.Score(request, timeout=10)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
    (result,) = stub.ScoreBatch(service_pb2.ScoreBatchRequest(requests=[request]), timeout=10).results
    assert len(result.error.message) <= 256


def test_bytes_that_are_no_message_are_the_callers_error(running: BackgroundServer, known: Payment) -> None:
    """INVALID_ARGUMENT, also of health and in the middle of a stream, which ends there; nothing is logged as a bug."""
    good = service_pb2.ScoreStreamRequest(request=known()).SerializeToString()
    with grpc.insecure_channel(running.target) as channel, structlog.testing.capture_logs() as logs:
        for method in ("/nowgraph.v1.PredictionService/Score", "/grpc.health.v1.Health/Check"):
            with pytest.raises(grpc.RpcError, match="no message of its type") as caught:
                channel.unary_unary(method)(b"\x0a\xff", timeout=10)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
        stream = channel.stream_stream("/nowgraph.v1.PredictionService/ScoreStream")
        with pytest.raises(grpc.RpcError, match="no message of its type") as caught:
            list(stream(iter([good, b"\x0a\xff", good]), timeout=10))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # type: ignore[attr-defined]
        assert len(list(stream(iter([good]), timeout=10))) == 1
    assert [line["event"] for line in logs if line["log_level"] == "error"] == []


def test_a_message_beyond_the_limit_is_refused(stub: Any, known: Payment, settings: ServerSettings) -> None:
    """gRPC itself refuses what is larger than any request may be, before it is decoded."""
    request = known()
    request.row.cells[3].text = "x" * (settings.message_bytes_limit + 1)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Score(request, timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]


def test_a_batch_answers_each_row_in_order(stub: Any, known: Payment) -> None:
    """One wrong row is its own error, with code and field; the others have their answers."""
    requests = [known() for _ in range(5)]
    for number, request in enumerate(requests):
        request.request_id = f"b{number}"
    requests[2].row.cells[0].text = "x"
    results = stub.ScoreBatch(service_pb2.ScoreBatchRequest(requests=requests), timeout=10).results
    assert [result.WhichOneof("result") for result in results] == ["response"] * 2 + ["error"] + ["response"] * 2
    assert [(result.response or result.error).request_id for result in results if result.HasField("response")] == [
        "b0",
        "b1",
        "b3",
        "b4",
    ]
    error = results[2].error
    assert (error.request_id, error.code, error.field) == ("b2", 3, "row.cells[0].text")
    alone = stub.Score(requests[0], timeout=10)
    assert results[0].response.logit == pytest.approx(alone.logit, abs=1e-5)


def test_a_batch_beyond_the_limit_is_refused_as_a_whole(stub: Any, settings: ServerSettings) -> None:
    """The number of rows is bounded, and the field named."""
    requests = [service_pb2.ScoreRequest()] * (settings.batch_request_limit + 1)
    with pytest.raises(grpc.RpcError, match="requests: at most"):
        stub.ScoreBatch(service_pb2.ScoreBatchRequest(requests=requests), timeout=10)


def test_a_stream_answers_every_request_by_its_id(stub: Any, known: Payment) -> None:
    """Two hundred requests, some wrong, come back once each, in any order; then the stream ends."""

    def requests() -> Iterator[service_pb2.ScoreStreamRequest]:
        for number in range(200):
            request = known()
            request.request_id = str(number)
            if number % 50 == 0:
                request.row.cells[0].text = "x"
            yield service_pb2.ScoreStreamRequest(request=request)

    ids = {"response": [], "error": []}
    for answer in stub.ScoreStream(requests(), timeout=30):
        kind = answer.result.WhichOneof("result")
        ids[kind].append(getattr(answer.result, kind).request_id)
    assert sorted(ids["error"], key=int) == ["0", "50", "100", "150"]
    assert sorted([*ids["error"], *ids["response"]], key=int) == [str(number) for number in range(200)]


def test_a_stream_takes_no_more_than_its_limit(world: Any, known: Payment) -> None:
    """A client that sends and never reads is not read any further than its place in the server allows."""
    settings = ServerSettings(port=0, metrics_port=0, stream_inflight_limit=4, id_bytes_limit=4_096)
    with BackgroundServer(lambda: world.server(settings)) as running, grpc.insecure_channel(running.target) as channel:
        stub = service_grpc.PredictionServiceStub(channel)
        warm = metric(running, "nowgraph_model_rows_total")
        stop = threading.Event()

        def requests() -> Iterator[service_pb2.ScoreStreamRequest]:
            for number in range(5_000):
                request = known()
                request.request_id = str(number).rjust(4_000)
                yield service_pb2.ScoreStreamRequest(request=request)
            stop.wait(30)

        call = stub.ScoreStream(requests())
        seen = -1.0
        while (scored := metric(running, "nowgraph_model_rows_total") - warm) != seen:
            seen = scored
            time.sleep(0.5)
        # What the transport buffers before it holds the writer back is its own; far fewer than were sent.
        assert 4 <= seen < 2_500
        stop.set()
        call.cancel()


def test_an_expired_deadline_never_reaches_the_model(
    world: Any, known: Payment, settings: ServerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a model that stands still, calls end with DEADLINE_EXCEEDED in time, and are never computed."""
    running_free, taken = threading.Event(), threading.Event()
    running_free.set()
    predict = Predictor.predict

    def held(self: Predictor, neighborhood: Any) -> Any:
        taken.set()
        assert running_free.wait(30)
        return predict(self, neighborhood)

    monkeypatch.setattr(Predictor, "predict", held)
    with BackgroundServer(lambda: world.server(settings)) as running, grpc.insecure_channel(running.target) as channel:
        stub = service_grpc.PredictionServiceStub(channel)
        stub.Score(known(), timeout=10)
        before = metric(running, "nowgraph_model_rows_total")
        running_free.clear()
        taken.clear()
        first = stub.Score.future(known(), timeout=30)
        assert taken.wait(10)
        short = [stub.Score.future(known(), timeout=2) for _ in range(20)]  # a busy machine can hold it
        codes = {call.exception(timeout=10).code() for call in short}
        running_free.set()
        assert first.result(timeout=30).HasField("graph_position")
        stub.Score(known(), timeout=10)  # behind all others in the queue
        computed = metric(running, "nowgraph_model_rows_total") - before
    assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert computed == 2


def test_a_refused_call_says_when_to_ask_again(world: Any, known: Payment, until: Callable[..., None]) -> None:
    """A caller beyond its quota hears RESOURCE_EXHAUSTED with RetryInfo and gRPC's pushback; the client keeps it.

    How long it took to refuse is told; an answer is none of it.
    """
    settings = ServerSettings(
        port=0, metrics_port=0, quota_rows_per_s=0.5, quota_burst_s=2.0, deadline_default_ms=20_000
    )
    with BackgroundServer(lambda: world.server(settings)) as running, grpc.insecure_channel(running.target) as channel:
        stub = service_grpc.PredictionServiceStub(channel)
        stub.Score(known(), timeout=10)
        call = stub.Score.future(known(), timeout=10)
        error = call.exception(timeout=10)
        refused = error_from_call(error)
        pushback_ms = int(dict(call.trailing_metadata())["grpc-retry-pushback-ms"])
        assert metric(running, "nowgraph_shed_total", buffer="quota") == 1
        until(lambda: metric(running, "nowgraph_refusal_seconds_count", method="Score") == 1)
    assert isinstance(refused, OverloadedError)
    assert refused.retry_after_s is not None
    assert 1.0 < refused.retry_after_s <= 2.0
    assert pushback_ms == pytest.approx(refused.retry_after_s * 1e3, abs=1)


def test_a_call_without_a_deadline_gets_the_servers(world: Any, known: Payment) -> None:
    """gRPC clients set none by default; the server's own ends a wait for a token that never comes."""
    settings = ServerSettings(port=0, metrics_port=0, deadline_default_ms=150)
    request = known()
    request.freshness_token.MergeFrom(service_pb2.FreshnessToken(topic="history", offset=10**6))
    with BackgroundServer(lambda: world.server(settings)) as running, grpc.insecure_channel(running.target) as channel:
        start_s = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            service_grpc.PredictionServiceStub(channel).Score(request)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION  # type: ignore[attr-defined]
        assert time.monotonic() - start_s < 5


def test_a_freshness_token_is_waited_for(stub: Any, known: Payment, world: Any) -> None:
    """The answer comes after the token's offset is applied, contains its event, and says how long it waited."""
    request = known()
    before = stub.Score(request, timeout=10).history_count
    request.freshness_token.MergeFrom(service_pb2.FreshnessToken(topic="history", offset=100))
    event = world.event(6_000, request.row.event_time_us - 5, customer=1, terminal=77)
    threading.Timer(0.1, lambda: world.apply([event])).start()
    answer = stub.Score(request, timeout=10)
    assert answer.history_count == before + 1
    assert answer.newest_neighbor_age_us == 4
    assert answer.timing.freshness_wait_us > 50_000
    assert answer.graph_position.partitions[0].next_offset == 101


def test_a_token_out_of_reach_is_a_failed_precondition(stub: Any, known: Payment) -> None:
    """When the deadline does not allow more waiting, the caller hears that the graph is behind, not a mere timeout."""
    request = known()
    request.freshness_token.MergeFrom(service_pb2.FreshnessToken(topic="history", offset=100))
    with pytest.raises(grpc.RpcError, match="offsets below 100") as caught:
        stub.Score(request, timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION  # type: ignore[attr-defined]


def test_without_kafka_ingest_is_refused(stub: Any, known: Payment) -> None:
    """A server without a log says so instead of dropping the event."""
    with pytest.raises(grpc.RpcError) as caught:
        stub.Ingest(service_pb2.IngestRequest(event=known().row), timeout=10)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION  # type: ignore[attr-defined]


def test_private_values_are_in_no_answer_and_no_log(stub: Any, known: Payment) -> None:
    """Neither answers nor neighborhoods nor errors nor logs hold a card number or a customer's raw key."""
    request = known()
    card = "4111-2222-3333"
    next(cell for cell in request.row.cells if cell.column == "card_number").text = card
    next(cell for cell in request.row.cells if cell.column == "customer_id").integer = 123_454_321
    with structlog.testing.capture_logs() as logs:
        said = [str(stub.Score(request, timeout=10))]
        neighborhood = stub.Neighborhood(service_pb2.NeighborhoodRequest(request=request), timeout=10)
        said.append(str(neighborhood))
        next(cell for cell in request.row.cells if cell.column == "card_number").key.parts.add(text=card)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Score(request, timeout=10)
        said.append(str(caught.value))
    everything = " ".join([*said, str(logs)])
    assert card not in everything
    assert "123454321" not in everything
    assert not any(cell.column == "card_number" for row in neighborhood.neighbors for cell in row.cells)


def test_a_scrape_counts_what_was_answered(running: BackgroundServer, stub: Any, known: Payment) -> None:
    """Requests by code, stages in seconds, batches and the graph are on the metrics port."""
    stub.Score(known(), timeout=10)
    wrong = known()
    wrong.ClearField("row")
    with pytest.raises(grpc.RpcError):
        stub.Score(wrong, timeout=10)
    url = f"http://127.0.0.1:{running.server.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=5) as response:
        families = {family.name: family for family in text_string_to_metric_families(response.read().decode())}
    counts = {
        (sample.labels.get("method", ""), sample.labels["code"]): sample.value
        for sample in families["nowgraph_requests"].samples
        if sample.name.endswith("_total")
    }
    assert counts == {("Score", "OK"): 1, ("Score", "INVALID_ARGUMENT"): 1}
    total = {
        sample.labels["stage"]: sample.value
        for sample in families["nowgraph_stage_seconds"].samples
        if sample.name.endswith("_sum")
    }
    assert 0 < total["sample"] < total["total"] < 10
    assert families["nowgraph_graph_events"].samples[0].value == 100
