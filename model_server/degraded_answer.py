"""A task's degraded policy at work: is the graph fresh enough, and what answers when the model cannot.

    before the model:  staleness of the graph > bound ─► flag the answer, or refuse
    after it failed:   error ─► first rule that fits the row ─► ScoreResponse, marked ─► predictions topic

**Staleness** is how long ago the graph held all that its log held, as its updater last knew: a quiet log is not stale,
an updater that is behind, gone or cut off from its broker is. Where no updater says so (a graph of files), it is how
long ago anything was written.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from prometheus_client import Counter

from graph_transformer.target import Target
from model_server.answer import KINDS
from model_server.degraded import CAUSES, Cause, DegradedPolicy, first_fit
from model_server.errors import ServerError, StaleGraphError
from model_server.metrics import TASK_LABELS, Bound, Families, Metrics
from model_server.predictions import Predictions
from model_server.request import RequestReader
from model_server.store import ServedView
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

# Kept back from the deadline where a rule answers late requests: its answer has to be there in time.
LATE_RESERVE_S = 0.02


class DegradedFamilies:
    """The metrics of degraded answers."""

    def __init__(self, families: Families) -> None:
        self.degraded = Counter(
            "nowgraph_degraded",
            "Requests that a degraded policy decided: answered on a stale graph or by a rule, or refused.",
            ["reason", *TASK_LABELS],
            registry=families.registry,
        )


def staleness_us(view: ServedView, now_us: int) -> int:
    """How long ago the graph held all that its log held; without a log's word, how long ago it was written."""
    return max(0, now_us - _word_us(view))


def _word_us(view: ServedView) -> int:
    complete_us = view.complete_time_us
    return view.writer_pulse_us if complete_us is None else complete_us


class Staleness:
    """How stale one graph is: by the wall's clock, but at least as long as its updater has said nothing new.

    A wall clock that somebody sets back would else make a graph fresh whose updater has ended. Asked every second, it
    knows when the last word came by a clock that nobody sets. Of the event loop.
    """

    def __init__(
        self,
        *,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock_us = clock_us
        self._monotonic_s = monotonic_s
        self._word_us: int | None = None
        self._heard_s = 0.0

    def of_us(self, view: ServedView) -> int:
        """Microseconds."""
        now_s, word_us = self._monotonic_s(), _word_us(view)
        if word_us != self._word_us:
            self._word_us, self._heard_s = word_us, now_s
        return max(self._clock_us() - word_us, round((now_s - self._heard_s) * 1e6))


class GraphBound:
    """How stale a task's graph may be. Of the event loop."""

    def __init__(
        self,
        policy: DegradedPolicy,
        view: Callable[[], ServedView],
        metrics: Metrics,
        staleness: Staleness,
    ) -> None:
        self._policy = policy.stale_graph
        self._view = view
        self._staleness = staleness
        degraded = Bound(metrics.extension(DegradedFamilies).degraded, *metrics.task_labels)
        self._flagged = degraded.labels("stale_graph")
        self._refused = degraded.labels("refused")

    def check(self) -> service_pb2.Degraded | None:
        """The mark of an answer on a stale graph, None on a fresh one. Raises StaleGraphError where it is refused."""
        policy = self._policy
        if policy is None:
            return None
        stale_us = self._staleness.of_us(self._view())
        if stale_us <= policy.bound:
            return None
        if policy.answer == "refuse":
            self._refused.inc()
            raise StaleGraphError(
                f"the graph lies {stale_us / 1e6:.1f} s behind its log, at most {policy.bound / 1e6:g} s are allowed"
            )
        self._flagged.inc()
        return service_pb2.Degraded(reason=service_pb2.DEGRADED_REASON_STALE_GRAPH, graph_staleness_us=stale_us)


class RuleAnswers:
    """Answers by rules in place of the model's errors. Of the event loop."""

    def __init__(
        self,
        policy: DegradedPolicy,
        reader: RequestReader,
        predictions: Predictions,
        metrics: Metrics,
        *,
        task: str,
        target: Target,
    ) -> None:
        """`policy` fits the task (`check_policy`)."""
        self._rules = policy.rules
        self._causes = policy.rules_on if policy.rules else frozenset()
        self._reader = reader
        self._predictions = predictions
        self._task = task
        self._target = target
        self._answered = Bound(metrics.extension(DegradedFamilies).degraded, *metrics.task_labels).labels("rule")

    def model_deadline_s(self, deadline_s: float) -> float:
        """When the model must have answered, so that a rule still can where the policy wants that."""
        return deadline_s - LATE_RESERVE_S if Cause.LATE in self._causes else deadline_s

    def answer(
        self, request: service_pb2.ScoreRequest, error: ServerError, start_s: float
    ) -> service_pb2.ScoreResponse:
        """A rule's answer to a request whose model failed with `error`; raises the error where the policy has none.

        Raises InvalidRequestError for a request that is wrong.
        """
        if CAUSES.get(type(error)) not in self._causes:
            raise error
        asked = self._reader.read(request)
        rule = first_fit(self._rules, request.row)
        if rule is None:
            raise error
        response = service_pb2.ScoreResponse(
            request_id=asked.request_id,
            task=self._task,
            cutoff_time_us=asked.cutoff_time_us,
            kind=KINDS[self._target.kind],
            timing=service_pb2.Timing(total_us=round((time.monotonic() - start_s) * 1e6)),
            degraded=service_pb2.Degraded(
                reason=service_pb2.DEGRADED_REASON_RULE, rule=rule.name, decision=rule.decision
            ),
        )
        if rule.probability is not None:
            response.probability = rule.probability
            response.logit = math.log(rule.probability / (1 - rule.probability))
        self._predictions.publish(asked.row, response)
        self._answered.inc()
        return response
