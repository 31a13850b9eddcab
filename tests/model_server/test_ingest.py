from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import pytest

from model_server.errors import DeadlinePassedError, InvalidRequestError, LogUnavailableError, NotConfiguredError
from model_server.ingest import Ingest, topics_of
from model_server.metrics import Metrics
from model_server.request import RequestReader
from model_server.settings import ServerSettings
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2
from stream.batch import Header
from stream.privacy import HASHED_HEADER
from stream.producer import Delivery, OnDelivery
from temporal_graph.schema import Schema

Payment = Callable[[], service_pb2.ScoreRequest]


class Log:
    """Answers as the test says: where a record landed, an error, a full buffer, or nothing at all."""

    def __init__(self, answer: Delivery | BufferError | None) -> None:
        self.answer = answer
        self.published: list[tuple[str, bytes, bytes]] = []

    def publish(
        self,
        topic: str,
        *,
        value: bytes | None,
        key: bytes | None = None,
        on_delivery: OnDelivery | None = None,
        headers: Sequence[Header] = (),
    ) -> None:
        """Answers at once, from another thread as Kafka's client does."""
        if isinstance(self.answer, BufferError):
            raise self.answer
        assert key is not None
        assert value is not None
        assert on_delivery is not None
        assert HASHED_HEADER in headers
        self.published.append((topic, key, value))
        if self.answer is not None:
            asyncio.get_running_loop().run_in_executor(None, on_delivery, self.answer)

    def flush(self, timeout_s: float) -> int:
        """Nothing waits here."""
        return 0


@pytest.fixture
def build(
    reader: RequestReader, schema: Schema, settings: ServerSettings, metrics: Metrics
) -> Callable[[Log | None], Ingest]:
    """Builds the ingest over a log."""
    return lambda log: Ingest(log, reader, schema, settings, metrics)


def deadline_s(after_s: float = 5.0) -> float:
    """A moment from now."""
    return time.monotonic() + after_s


def test_a_tables_events_go_where_row_events_are_read(schema: Schema) -> None:
    """The topic of a protobuf source takes them; a JSON topic never does, and other tables have the default."""
    topics = topics_of(schema, "nowgraph.events")
    assert topics["transactions"] == "transaction_events"
    assert topics["customers"] == "nowgraph.events"


async def test_the_token_is_where_the_event_landed(build: Callable[[Log | None], Ingest], payment: Payment) -> None:
    """The answer names topic, partition and offset, and what was published is the checked event, hashed."""
    log = Log(Delivery("transaction_events", 3, 99))
    response = await build(log).ingest(service_pb2.IngestRequest(event=payment().row), deadline_s())
    assert response.freshness_token == service_pb2.FreshnessToken(topic="transaction_events", partition=3, offset=99)
    ((topic, key, value),) = log.published
    assert topic == "transaction_events"
    assert row_event_pb2.RowEvent.FromString(value).table == "transactions"
    assert b"4000-1234" not in value + key


async def test_a_rows_events_share_a_partition(build: Callable[[Log | None], Ingest], payment: Payment) -> None:
    """The same key gives the same record key whatever the cells say; another row's differs."""
    log = Log(Delivery("transaction_events", 0, 0))
    ingest = build(log)
    changed, other = payment().row, payment().row
    changed.cells[0].number = 1.0
    other.key.parts[0].integer = 8
    for event in (payment().row, changed, other):
        await ingest.ingest(service_pb2.IngestRequest(event=event), deadline_s())
    first, second, third = (key for _, key, _ in log.published)
    assert first == second != third


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Delivery("t", 0, 0, error="broker down"), LogUnavailableError),
        (BufferError(), LogUnavailableError),
        (None, DeadlinePassedError),
    ],
)
async def test_no_confirmation_is_no_token(
    answer: Delivery | BufferError | None,
    error: type[Exception],
    build: Callable[[Log | None], Ingest],
    payment: Payment,
) -> None:
    """An event that Kafka refuses, or does not confirm within the deadline, gives an error and never a token."""
    with pytest.raises(error):
        await build(Log(answer)).ingest(service_pb2.IngestRequest(event=payment().row), deadline_s(0.05))


async def test_a_wrong_event_is_never_published(build: Callable[[Log | None], Ingest], payment: Payment) -> None:
    """What does not fit the schema is refused at the door."""
    log = Log(Delivery("t", 0, 0))
    event = payment().row
    event.cells[0].text = "much"
    with pytest.raises(InvalidRequestError):
        await build(log).ingest(service_pb2.IngestRequest(event=event), deadline_s())
    assert log.published == []


async def test_without_a_log_ingest_says_so(build: Callable[[Log | None], Ingest], payment: Payment) -> None:
    """A server without Kafka refuses rather than pretends."""
    with pytest.raises(NotConfiguredError):
        await build(None).ingest(service_pb2.IngestRequest(event=payment().row), deadline_s())
