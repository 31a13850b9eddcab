"""An event by gRPC: checked, private parts hashed, published to its table's topic, answered with its place there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress

from model_server.errors import DeadlinePassedError, LogUnavailableError, NotConfiguredError
from model_server.event_log import EventLog
from model_server.metrics import Metrics
from model_server.request import RequestReader
from model_server.settings import ServerSettings
from model_server.tracing import current_headers
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from stream.errors import DeliveryError
from stream.privacy import HASHED_HEADER
from stream.producer import Delivery, event_key
from temporal_graph.schema import Schema


def topics_of(schema: Schema, default_topic: str) -> Mapping[str, str]:
    """The topic that a table's events go to: that of its protobuf source, else the default.

    A JSON or Debezium source cannot take them: its topic holds another form.
    """
    topics = {table.name: default_topic for table in schema.tables}
    for source in reversed(schema.sources):
        if source.format == "protobuf":
            topics[source.table] = source.topic
    return topics


class Ingest:
    """Publishes events. Used by the event loop; confirmations come on the log's own thread."""

    def __init__(
        self,
        event_log: EventLog | None,
        reader: RequestReader,
        schema: Schema,
        settings: ServerSettings,
        metrics: Metrics,
    ) -> None:
        self._log = event_log
        self._reader = reader
        self._topics = topics_of(schema, settings.ingest_topic)
        self._settings = settings
        self._metrics = metrics

    async def ingest(self, request: service_pb2.IngestRequest, deadline_s: float) -> service_pb2.IngestResponse:
        """Returns once Kafka has the event: its topic, partition and offset are the freshness token.

        Raises InvalidRequestError, NotConfiguredError without a log, LogUnavailableError when Kafka refuses, and
        DeadlinePassedError when it does not answer in time (the event may still arrive).
        """
        if self._log is None:
            raise NotConfiguredError("this server was started without Kafka: there is no log to publish to")
        event = self._reader.read_event(request)
        loop = asyncio.get_running_loop()
        delivered: asyncio.Future[Delivery] = loop.create_future()

        def on_delivery(delivery: Delivery) -> None:
            with suppress(RuntimeError):  # the loop is gone, and with it whoever waited
                loop.call_soon_threadsafe(_set, delivered, delivery)

        try:
            self._log.publish(
                self._topics[event.table],
                key=event_key(event),
                value=event.SerializeToString(),
                on_delivery=on_delivery,
                headers=(HASHED_HEADER, *current_headers()),
            )
            async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())):
                delivery = await delivered
        except BufferError:
            raise LogUnavailableError("the log's buffer is full") from None
        except DeliveryError as error:
            raise LogUnavailableError(f"Kafka refused the event: {error}") from None
        except TimeoutError:
            raise DeadlinePassedError("Kafka did not confirm the event in time; it may still arrive") from None
        if delivery.error is not None:
            raise LogUnavailableError(f"Kafka refused the event: {delivery.error}")
        self._metrics.ingested.inc()
        token = service_pb2.FreshnessToken(topic=delivery.topic, partition=delivery.partition, offset=delivery.offset)
        return service_pb2.IngestResponse(freshness_token=token)


def _set(future: asyncio.Future[Delivery], delivery: Delivery) -> None:
    if not future.done():
        future.set_result(delivery)
