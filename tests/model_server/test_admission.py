from __future__ import annotations

import pytest

from model_server.admission import RETRY_S_MAX, RETRY_S_MIN, Admission, retry_after_s
from model_server.service_time import ServiceTime


@pytest.fixture
def admission() -> Admission:
    """A model of 4 ms a batch and 1 ms a row, batches of at most 16."""
    service = ServiceTime()
    service.observe(1, 1.0)
    for rows in [1, 4, 16] * 20:
        service.observe(rows, 0.004 + 0.001 * rows)
    return Admission(service, 16)


def test_an_idle_engine_takes_everything(admission: Admission) -> None:
    """Whatever was measured: a wrong estimate never keeps a server idle."""
    assert admission.answer_s(10.0, 0) == 10.0


def test_what_is_ahead_is_counted_in_batches(admission: Admission) -> None:
    """The running batch, the full ones ahead, and its own with those that share it."""
    admission.busy_until_s = 10.015
    assert admission.answer_s(10.0, 0) == pytest.approx(10.015 + 0.005, abs=0.001)
    assert admission.answer_s(10.0, 35) == pytest.approx(10.015 + 2 * 0.020 + 0.008, abs=0.002)
    assert admission.answer_s(11.0, 0) == pytest.approx(11.005, abs=0.001)  # it runs longer than it should


def test_what_is_later_than_forecast_is_allowed_for(admission: Admission) -> None:
    """An event loop that lags delays answers too: soon the margin covers it, and later it is forgotten."""
    before_s = admission.answer_s(10.0, 1)
    for number in range(200):
        admission.learn(0.03 if number % 2 else 0.01)
    assert 0.02 < admission.answer_s(10.0, 1) - before_s <= 0.03
    for _ in range(1_000):
        admission.learn(-0.01)
    assert admission.answer_s(10.0, 1) == pytest.approx(before_s)
    assert admission.answer_s(10.0, 0) == 10.0


def test_hints_are_bounded_and_never_all_the_same() -> None:
    """Those that were refused together do not come back together."""
    hints = {retry_after_s(0.1) for _ in range(50)}
    assert len(hints) > 40
    assert all(0.1 <= hint <= 0.15 for hint in hints)
    assert retry_after_s(0.0) >= RETRY_S_MIN
    assert retry_after_s(1e9) == RETRY_S_MAX
