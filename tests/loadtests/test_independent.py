from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from loadtests.load.capacity import closed_loop
from loadtests.load.clients import Request, Senders, run
from loadtests.load.independent import Measured, agree, h2load, k6, ours
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

RATE = 100
SECONDS = 3
WORK_S = 0.03


def request_to(target: str) -> Request:
    """A request with a number of 64 bits, which JSON has as a text."""
    message = service_pb2.ScoreRequest()
    message.row.table, message.row.event_time_us = "transactions", 1_700_000_000_000_000
    return Request(target, "/nowgraph.v1.PredictionService/Score", message.SerializeToString())


@pytest.mark.integration
@pytest.mark.slow
def test_two_generators_tell_the_same_story(echo: Callable[..., str]) -> None:
    """Against a server whose answer takes 30 ms, k6 and ours say that it does, at the same rate, with nothing lost.

    The server's work is most of the latency, so that a busy machine changes both accounts by little.
    """
    request = request_to(echo(work_s=WORK_S))
    due_us = np.arange(RATE * SECONDS, dtype=np.int64) * 1_000_000 // RATE
    outcome = run([request], due_us, np.zeros(len(due_us), np.int64), seconds=SECONDS, how=Senders())
    mine, theirs = ours(outcome), k6([request], rate_per_s=RATE, seconds=SECONDS, timeout_s=5.0, users=16)
    assert (mine.failed, mine.dropped, theirs.failed) == (0, 0, 0)
    assert theirs.p50_ms == pytest.approx(mine.p50_ms, rel=0.5)
    assert min(mine.p50_ms, theirs.p50_ms) >= WORK_S * 1e3
    assert theirs.achieved_per_s == pytest.approx(mine.achieved_per_s, rel=0.1)


@pytest.mark.integration
@pytest.mark.slow
def test_closed_loops_agree(echo: Callable[..., str]) -> None:
    """With eight in flight and 30 ms an answer nobody gets more than 267 a second; h2load, if it is there, agrees."""
    request = request_to(echo(work_s=WORK_S))
    mine = closed_loop([request], seconds=2.0, in_flight=8)
    theirs = h2load(request, seconds=2.0, in_flight=8)
    assert 100 < mine < 8 / WORK_S * 1.05
    assert theirs is None or theirs == pytest.approx(mine, rel=0.35)


def test_accounts_agree_or_not() -> None:
    """Rates, p50 and p99 must each lie together; a tenth of a millisecond of a fast answer is no quarrel."""
    one = Measured("ours", 100, 100, 2.0, 10.0, 0, 0)
    for other in (one, replace(one, p50_ms=2.9), replace(one, p99_ms=15.0), replace(one, achieved_per_s=96.0)):
        assert agree(one, other)
    for other in (replace(one, p50_ms=4.5), replace(one, p99_ms=20.0), replace(one, achieved_per_s=90.0)):
        assert not agree(one, other)
