from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from graph_transformer.target import Kind, Target
from model_server.degraded import DegradedPolicy
from model_server.degraded_answer import LATE_RESERVE_S, GraphBound, RuleAnswers, Staleness, staleness_us
from model_server.errors import (
    DeadlinePassedError,
    InvalidRequestError,
    OverloadedError,
    PredictionFailedError,
    StaleGraphError,
)
from model_server.metrics import Metrics
from model_server.predictions import Predictions
from model_server.request import RequestReader
from model_server.settings import ServerSettings
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema

FRAUD = Target(Kind.BINARY, "transactions", event_level=True, column="tx_fraud")
LARGE = {"name": "large", "when": {"column": "tx_amount", "above": 10}, "decision": "review", "probability": 0.8}


def policy_of(**parts: Any) -> DegradedPolicy:
    """A policy with these parts."""
    return DegradedPolicy.model_validate(parts)


def counted(metrics: Metrics, reason: str) -> float:
    """How often the policy decided for this reason."""
    return metrics.families.registry.total("nowgraph_degraded_total", reason=reason)


def test_a_quiet_log_is_fresh_and_a_stuck_updater_is_not(schema: Schema) -> None:
    """Staleness counts from when the graph was complete, whatever the age of its newest event."""
    with TemporalGraph.create(schema) as graph:
        view = graph.view()
        now_us = time.time_ns() // 1_000
        assert staleness_us(view, view.writer_pulse_us + 5) == 5  # nobody knows a log: since the last write
        graph.set_complete_time(now_us - 2_000_000)
        assert staleness_us(view, now_us) == 2_000_000
        graph.set_complete_time(now_us)
        assert staleness_us(view, now_us) == 0
        assert staleness_us(view, now_us - 1) == 0  # clocks of two processes may disagree


def test_a_clock_that_was_set_back_makes_no_graph_fresh(schema: Schema) -> None:
    """Of an updater that has ended staleness grows; one that goes on by the new clock is fresh at its next word."""
    with TemporalGraph.create(schema) as graph:
        view, wall_us, ticks_s = graph.view(), [10**15], [0.0]
        staleness = Staleness(clock_us=lambda: wall_us[0], monotonic_s=lambda: ticks_s[0])
        graph.set_complete_time(wall_us[0] - 1)
        assert staleness.of_us(view) == 1
        wall_us[0] -= 300_000_000
        for seconds in (1, 7):
            ticks_s[0] = seconds
            assert staleness.of_us(view) == seconds * 1_000_000
        graph.set_complete_time(wall_us[0])
        assert staleness.of_us(view) == 0
        wall_us[0] += 300_000_000
        assert staleness.of_us(view) == 300_000_000


def test_beyond_its_bound_a_graph_is_flagged_or_refused(schema: Schema, metrics: Metrics) -> None:
    """At the bound it is fresh, a microsecond beyond it is not, and both answers are counted."""
    with TemporalGraph.create(schema) as graph:
        graph.set_complete_time(1_000_000)
        clock = [31_000_000]

        def bound(answer: str) -> GraphBound:
            policy = policy_of(stale_graph={"bound": "30s", "answer": answer})
            return GraphBound(policy, graph.view, metrics, Staleness(clock_us=lambda: clock[0]))

        flag, refuse = bound("flag"), bound("refuse")
        assert flag.check() is None
        assert refuse.check() is None
        clock[0] += 1
        mark = flag.check()
        assert mark is not None
        assert mark.reason == service_pb2.DEGRADED_REASON_STALE_GRAPH
        assert mark.graph_staleness_us == 30_000_001
        with pytest.raises(StaleGraphError, match=r"lies 30\.0 s behind its log, at most 30 s"):
            refuse.check()
        assert (counted(metrics, "stale_graph"), counted(metrics, "refused")) == (1, 1)
        assert GraphBound(DegradedPolicy(), graph.view, metrics, Staleness()).check() is None


@pytest.fixture
def answers(reader: RequestReader, settings: ServerSettings, metrics: Metrics) -> Callable[..., RuleAnswers]:
    """Builds the answers of a policy."""

    def build(*rules: Any, **more: Any) -> RuleAnswers:
        policy = policy_of(rules=rules, **more)
        predictions = Predictions(None, "predictions", settings, metrics)
        return RuleAnswers(policy, reader, predictions, metrics, task="fraud", target=FRAUD)

    return build


def test_a_rule_answers_for_a_model_that_failed(
    answers: Callable[..., RuleAnswers], payment: Callable[[], service_pb2.ScoreRequest], metrics: Metrics
) -> None:
    """Marked, with its name and decision, with the cut-off of the request and without a model's version."""
    failed = PredictionFailedError("no")
    response = answers(LARGE).answer(payment(), failed, time.monotonic())
    assert response.degraded.reason == service_pb2.DEGRADED_REASON_RULE
    assert (response.degraded.rule, response.degraded.decision) == ("large", "review")
    assert response.request_id == "r1"
    assert response.model_version == ""
    assert response.cutoff_time_us == payment().row.event_time_us - 1
    assert response.probability == 0.8
    assert response.logit == pytest.approx(math.log(4))
    assert counted(metrics, "rule") == 1


def test_where_no_rule_fits_the_error_stands(
    answers: Callable[..., RuleAnswers], payment: Callable[[], service_pb2.ScoreRequest], metrics: Metrics
) -> None:
    """A row below the bound, no rules at all, or a cause that the policy does not name."""
    failed, shed, late = PredictionFailedError("no"), OverloadedError("no"), DeadlinePassedError("no")
    small = payment()
    small.row.cells[0].number = 10
    for policy, request, error in (
        (answers(LARGE), small, failed),
        (answers(), payment(), failed),
        (answers(LARGE), payment(), shed),
        (answers(LARGE, rules_on=["shed"]), payment(), late),
    ):
        with pytest.raises(type(error)) as raised:
            policy.answer(request, error, time.monotonic())
        assert raised.value is error
    assert counted(metrics, "rule") == 0


def test_a_wrong_request_is_wrong_whatever_failed(
    answers: Callable[..., RuleAnswers], payment: Callable[[], service_pb2.ScoreRequest]
) -> None:
    """What was shed before it was read is read before a rule answers it."""
    wrong = payment()
    wrong.row.cells[0].column = "amount"
    with pytest.raises(InvalidRequestError, match="amount"):
        answers(LARGE, rules_on=["shed"]).answer(wrong, OverloadedError("no"), time.monotonic())


def test_the_model_ends_earlier_only_where_a_rule_answers_late_requests(answers: Callable[..., RuleAnswers]) -> None:
    """An answer after the deadline would reach nobody."""
    assert answers(LARGE).model_deadline_s(7.0) == 7.0
    assert answers(rules_on=["late"]).model_deadline_s(7.0) == 7.0  # no rules
    assert answers(LARGE, rules_on=["late"]).model_deadline_s(7.0) == 7.0 - LATE_RESERVE_S
