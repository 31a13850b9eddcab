"""Plays a stretch of payments against the running system, in the order of their time.

    reports known by now ─────────────────────► publish
    payment ─► score over gRPC ─► its score kept ─► publish

A payment is published only after its score has come back, so that no score can have seen its own event. Several are
scored at once, as a payment system would; nothing is lost by that, for a question never sees beyond its own cut-off.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np
import numpy.typing as npt
import orjson

from nowgraph.demo.measures import average_precision
from nowgraph.payments_data import PaymentColumns

TRANSACTIONS = "transactions"
FRAUD_REPORTS = "fraud_reports"

ScoreOne = Callable[[int], Awaitable[float]]
"""Scores the payment of this index over gRPC."""
Publish = Callable[[str, bytes, bytes], None]
"""Puts a record (topic, key, value) on the log; may wait until there is room."""

_PUBLISH_CHUNK = 2_000


def payment_record(payments: PaymentColumns, index: int) -> bytes:
    """The JSON of a payment as it happened, without what became known later."""
    return orjson.dumps(
        {
            "transaction_id": int(payments.transaction_id[index]),
            "tx_datetime": iso_time(int(payments.event_time_us[index])),
            "customer_id": int(payments.customer_id[index]),
            "terminal_id": int(payments.terminal_id[index]),
            "tx_amount": float(payments.tx_amount[index]),
        }
    )


def report_record(payments: PaymentColumns, index: int) -> bytes:
    """The JSON of what became known of a payment."""
    return orjson.dumps(
        {
            "transaction_id": int(payments.transaction_id[index]),
            "tx_fraud": bool(payments.tx_fraud[index]),
            "known_at": iso_time(int(payments.known_at_us[index])),
        }
    )


def iso_time(time_us: int) -> str:
    """RFC 3339 with microseconds, UTC."""
    return f"{np.datetime64(time_us, 'us')}Z"


class Player:
    """Plays ``live`` payments, and the reports of ``reported`` ones (any order) that become known meanwhile and after.

    ``score`` float64[live] holds NaN until a payment's answer came; ``latency_ms`` those of the answers so far. The
    methods belong to one event loop; the properties may be read from any thread.
    """

    def __init__(
        self,
        live: PaymentColumns,
        reported: PaymentColumns,
        *,
        score_one: ScoreOne,
        publish: Publish,
        in_flight: int,
    ) -> None:
        self.live = live
        self.score = np.full(len(live), np.nan)
        self.latency_ms: list[float] = []
        self.clock_us = int(live.event_time_us[0])
        self._reports = reported.where(np.argsort(reported.known_at_us, kind="stable"))
        self._next_report = 0
        self._score_one = score_one
        self._publish = publish
        self._in_flight = in_flight

    @property
    def scored(self) -> int:
        """How many payments have their score."""
        return len(self.latency_ms)

    async def play_payments(self, *, until_s: float) -> int:
        """Scores and publishes the payments; begins none after ``until_s`` (time.monotonic). Returns how many it did.

        Raises the first error of a score, once those under way are done.
        """
        room = asyncio.Semaphore(self._in_flight)
        begun = 0
        async with asyncio.TaskGroup() as group:
            for index in range(len(self.live)):
                await room.acquire()
                if time.monotonic() >= until_s:
                    break
                self.clock_us = int(self.live.event_time_us[index])
                self._publish_reports(self.clock_us)
                group.create_task(self._play_one(index, room))
                begun += 1
        return begun

    async def play_reports(self, *, until_us: int, pause_s: float = 0.0) -> None:
        """Publishes the reports that become known up to ``until_us``, a part of them at a time with a pause between."""
        known = self._reports.known_at_us
        while self._next_report < len(known) and known[self._next_report] <= until_us:
            last = min(self._next_report + _PUBLISH_CHUNK, len(known)) - 1
            self.clock_us = min(int(known[last]), until_us)
            await asyncio.to_thread(self._publish_reports, self.clock_us)
            await asyncio.sleep(pause_s)

    def known(self) -> npt.NDArray[np.bool_]:
        """bool[live]: scored payments whose report has been played."""
        known: npt.NDArray[np.bool_] = ~np.isnan(self.score) & (self.live.known_at_us <= self.clock_us)
        return known

    def average_precision_of(self, score: npt.NDArray[np.float64]) -> float:
        """Average precision of the scores float64[live] on what is known so far; NaN until a fraud is."""
        known = self.known()
        return average_precision(self.live.tx_fraud[known], score[known])

    async def _play_one(self, index: int, room: asyncio.Semaphore) -> None:
        try:
            start_s = time.perf_counter()
            self.score[index] = await self._score_one(index)
            self.latency_ms.append((time.perf_counter() - start_s) * 1e3)
            key = str(int(self.live.customer_id[index])).encode()
            self._publish(TRANSACTIONS, key, payment_record(self.live, index))
        finally:
            room.release()

    def _publish_reports(self, clock_us: int) -> None:
        known = self._reports.known_at_us
        while self._next_report < len(known) and known[self._next_report] <= clock_us:
            index = self._next_report
            key = str(int(self._reports.transaction_id[index])).encode()
            self._publish(FRAUD_REPORTS, key, report_record(self._reports, index))
            self._next_report += 1
