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


def test_the_way_back_counts(admission: Admission) -> None:
    """An event loop that lags behind delays answers too."""
    before_s = admission.answer_s(10.0, 1)
    for _ in range(100):
        admission.returned(0.03)
    assert admission.answer_s(10.0, 1) - before_s == pytest.approx(0.03, abs=0.001)


def test_hints_are_bounded_and_never_all_the_same() -> None:
    """Those that were refused together do not come back together."""
    hints = {retry_after_s(0.1) for _ in range(50)}
    assert len(hints) > 40
    assert all(0.1 <= hint <= 0.15 for hint in hints)
    assert retry_after_s(0.0) >= RETRY_S_MIN
    assert retry_after_s(1e9) == RETRY_S_MAX
