"""Every answer is also a record of the predictions topic: the audit trail, off the hot path and never silently lost.

    answer -> bounded buffer -> Kafka producer -> confirmed
                  ^------------- refused, retried

The policy when Kafka is slow or down: answers wait in the buffer; when `predictions_buffer_limit` of them wait, new
requests are refused with RESOURCE_EXHAUSTED before any work is done for them, because an answer that cannot be recorded
must not be given. Requests already admitted are answered and recorded: the buffer exceeds its limit by at most those.
What is still unconfirmed when the server must end is counted as lost and logged.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import structlog

from model_server.errors import OverloadedError
from model_server.event_log import EventLog
from model_server.metrics import Metrics
from model_server.models.shadow import Place
from model_server.settings import ServerSettings
from model_server.tracing import current_headers
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2
from stream.batch import Header
from stream.errors import DeliveryError
from stream.producer import Delivery, event_key

log = structlog.get_logger(__name__)

# How soon a record that the producer refused is offered again.
RETRY_S = 0.05
# What is left to Kafka for confirming when the end is in a hurry.
HURRY_S = 1.0
_Record = tuple[bytes | None, bytes, tuple[Header, ...]]  # key, value, headers


class Predictions:
    """Publishes answers. Its methods belong to the event loop; confirmations come on the log's own thread."""

    def __init__(
        self,
        event_log: EventLog | None,
        topic: str,
        settings: ServerSettings,
        metrics: Metrics,
        *,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        self._log = event_log
        self._topic = topic
        self._settings = settings
        self._metrics = metrics
        self._clock_us = clock_us
        self._lock = threading.Lock()
        self._unconfirmed = 0
        self._backlog: deque[_Record] = deque()
        self._retrying: asyncio.Task[None] | None = None
        metrics.predictions_waiting.set_function(lambda: self._unconfirmed)

    @property
    def waiting(self) -> int:
        """Answers given but not yet confirmed by Kafka."""
        return self._unconfirmed

    def admit(self) -> None:
        """Raises OverloadedError while the audit trail's buffer is full."""
        if self._unconfirmed >= self._settings.predictions_buffer_limit:
            self._metrics.shed.labels("predictions").inc()
            raise OverloadedError(f"{self._settings.predictions_buffer_limit} answers wait to be recorded already")

    def publish(
        self, row: row_event_pb2.RowEvent, response: service_pb2.ScoreResponse, shadow: Place | None = None
    ) -> None:
        """Records an answer; the same row's answers keep their order (one key, one partition).

        With `shadow` the record waits until other models have said of the same question what they say, or were skipped.
        """
        if shadow is not None:
            record = service_pb2.Prediction(row=row, response=response)
            self._stamp(record)
            shadow.when_done(partial(self._record_with, row, record, current_headers()))
        elif self._log is not None:
            self._record(row, service_pb2.Prediction(row=row, response=response))

    def publish_list(
        self, user: row_event_pb2.RowEvent, request: service_pb2.RankRequest, response: service_pb2.RankResponse
    ) -> None:
        """Records a list with its positions and what was asked; a user's lists keep their order, as a row's answers."""
        if self._log is not None:
            ranking = service_pb2.RankPrediction(request=request, response=response)
            self._record(user, service_pb2.Prediction(row=user, ranking=ranking))

    def _record_with(
        self,
        row: row_event_pb2.RowEvent,
        record: service_pb2.Prediction,
        headers: tuple[Header, ...],
        shadows: Sequence[service_pb2.ScoreResponse],
    ) -> None:
        for one in shadows:
            one.task, one.cutoff_time_us = record.response.task, record.response.cutoff_time_us
        record.shadows.extend(shadows)
        if self._log is not None:
            self._send((event_key(row), record.SerializeToString(), headers))

    def _record(self, row: row_event_pb2.RowEvent, record: service_pb2.Prediction) -> None:
        self._stamp(record)
        self._send((event_key(row), record.SerializeToString(), current_headers()))

    def _stamp(self, record: service_pb2.Prediction) -> None:
        """From here on the answer counts as one that is to be recorded."""
        record.tenant, record.answered_time_us = self._settings.tenant, self._clock_us()
        if self._log is not None:
            with self._lock:
                self._unconfirmed += 1

    async def close(self, timeout_s: float, *, hurried: asyncio.Event | None = None) -> int:
        """Waits for what is unconfirmed, once `hurried` is set for `HURRY_S` at most.

        Returns, counts and logs how many answers were not recorded in time.
        """
        if self._log is None:
            return 0
        deadline_s = time.monotonic() + timeout_s
        while self._unconfirmed and time.monotonic() < deadline_s:
            if hurried is not None and hurried.is_set():
                deadline_s, hurried = min(deadline_s, time.monotonic() + HURRY_S), None
            self._offer_again()
            await asyncio.to_thread(self._log.flush, min(0.1, max(0.0, deadline_s - time.monotonic())))
            await asyncio.sleep(0)
        if self._retrying is not None:
            self._retrying.cancel()
        lost = self._unconfirmed
        if lost:
            self._metrics.predictions_lost.inc(lost)
            log.error("predictions_lost", answers=lost)
        return lost

    def _send(self, record: _Record) -> None:
        assert self._log is not None
        key, value, headers = record

        loop = asyncio.get_running_loop()

        def on_delivery(delivery: Delivery) -> None:
            if delivery.error is not None:
                self._metrics.predictions_retried.inc()
                self._backlog.append(record)
                with suppress(RuntimeError):  # the loop is gone: `close` has counted the answer as lost
                    loop.call_soon_threadsafe(self._retry_soon)
                return
            self._metrics.predictions_delivered.inc()
            with self._lock:
                self._unconfirmed -= 1

        try:
            self._log.publish(self._topic, key=key, value=value, on_delivery=on_delivery, headers=headers)
        except BufferError:
            self._backlog.append(record)
            self._retry_soon()
        except DeliveryError as error:  # too large for the topic: it will never be sent
            with self._lock:
                self._unconfirmed -= 1
            self._metrics.predictions_lost.inc()
            log.error("prediction_refused", reason=str(error))  # noqa: TRY400 - the trace says nothing more

    def _retry_soon(self) -> None:
        if self._backlog and (self._retrying is None or self._retrying.done()):
            self._retrying = asyncio.create_task(self._retry())

    async def _retry(self) -> None:
        while self._backlog:
            await asyncio.sleep(RETRY_S)
            self._offer_again()

    def _offer_again(self) -> None:
        """Offers what waits once, oldest first; what is refused again goes to the end."""
        for _ in range(len(self._backlog)):
            self._send(self._backlog.popleft())
