"""The player keeps the order that makes a score honest: scored first, published after, reports in their time."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import orjson
import pytest

from nowgraph.demo.player import FRAUD_REPORTS, TRANSACTIONS, Player, iso_time
from nowgraph.payments_data import PaymentColumns

DAY_US = 86_400_000_000


def _payments(count: int, *, first: int = 0, start_us: int = 0) -> PaymentColumns:
    event = start_us + np.arange(count, dtype=np.int64) * 1_000_000
    return PaymentColumns(
        transaction_id=first + np.arange(count, dtype=np.int64),
        event_time_us=event,
        customer_id=np.arange(count, dtype=np.int64) % 3,
        terminal_id=np.arange(count, dtype=np.int64) % 5,
        tx_amount=np.arange(count) + 0.5,
        tx_fraud=np.arange(count) % 4 == 0,
        known_at_us=event + 7 * DAY_US,
    )


class _Log:
    """Keeps what was scored and published, in the order in which it happened."""

    def __init__(self) -> None:
        self.happened: list[tuple[str, int]] = []

    async def score(self, index: int) -> float:
        await asyncio.sleep(0.001 * (index % 3))
        self.happened.append(("scored", index))
        return index / 100

    def publish(self, topic: str, key: bytes, value: bytes) -> None:
        self.happened.append((topic, orjson.loads(value)["transaction_id"]))


def test_a_payment_is_published_only_after_it_was_scored() -> None:
    """Also with several under way at once, whose answers come back in another order."""
    log = _Log()
    player = Player(_payments(50), _payments(0), score_one=log.score, publish=log.publish, in_flight=8)
    assert asyncio.run(player.play_payments(until_s=time.monotonic() + 60)) == 50
    places = {entry: place for place, entry in enumerate(log.happened)}
    assert all(places["scored", i] < places[TRANSACTIONS, i] for i in range(50))
    assert player.scored == 50
    assert player.score.tolist() == [i / 100 for i in range(50)]


def test_reports_come_before_the_payments_that_follow_them_and_no_earlier() -> None:
    """A report known at a payment's time is on the log before the payment is scored; one known later is not."""
    log = _Log()
    live = _payments(10, first=100, start_us=7 * DAY_US)
    past = _payments(20)
    player = Player(live, past, score_one=log.score, publish=log.publish, in_flight=1)
    asyncio.run(player.play_payments(until_s=time.monotonic() + 60))
    places = {entry: place for place, entry in enumerate(log.happened)}
    for index in range(10):
        assert places[FRAUD_REPORTS, index] < places["scored", index]
        if index:
            assert places[FRAUD_REPORTS, index] > places["scored", index - 1]
    assert (FRAUD_REPORTS, 10) not in places
    asyncio.run(player.play_reports(until_us=int(past.known_at_us[14])))
    played = [number for kind, number in log.happened if kind == FRAUD_REPORTS]
    assert played == list(range(15))


def test_quality_is_measured_only_on_what_is_known_by_the_clock() -> None:
    """No label before its report was played; then exactly those of scored payments."""
    log = _Log()
    live = _payments(8)
    player = Player(live, live, score_one=log.score, publish=log.publish, in_flight=2)
    asyncio.run(player.play_payments(until_s=time.monotonic() + 60))
    assert not player.known().any()
    assert np.isnan(player.average_precision_of(player.score))
    asyncio.run(player.play_reports(until_us=int(live.known_at_us[4])))
    assert player.known().tolist() == [True] * 5 + [False] * 3
    assert player.average_precision_of(player.score) == pytest.approx((1 / 1 + 2 / 5) / 2)


def test_nothing_is_begun_after_the_time_is_up_and_an_error_is_not_swallowed() -> None:
    """Out of time: no score and no event. A score that fails ends the play with its error, and is not published."""
    log = _Log()
    late = Player(_payments(5), _payments(0), score_one=log.score, publish=log.publish, in_flight=2)
    assert asyncio.run(late.play_payments(until_s=time.monotonic() - 1)) == 0
    assert log.happened == []

    async def failing(index: int) -> float:
        raise ConnectionError(index)

    broken = Player(_payments(5), _payments(0), score_one=failing, publish=log.publish, in_flight=1)
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(broken.play_payments(until_s=time.monotonic() + 60))
    assert caught.group_contains(ConnectionError)
    assert log.happened == []


def test_times_on_the_wire_keep_their_microseconds() -> None:
    """RFC 3339 in UTC, exact."""
    assert iso_time(1_533_686_400_000_001) == "2018-08-08T00:00:00.000001Z"
