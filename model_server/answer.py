"""From what the engine found to what the wire says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from graph_transformer.target import QUANTILES, Kind, Target
from online_sampler.neighborhood import Neighborhood
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US
from temporal_graph.view import GraphPosition

if TYPE_CHECKING:
    from graph_transformer.predictor import Prediction
    from model_server.request import AskedRow
    from model_server.scorer import Scored


KINDS: Mapping[Kind, service_pb2.TargetKind.ValueType] = {
    Kind.BINARY: service_pb2.TARGET_KIND_BINARY,
    Kind.MULTICLASS: service_pb2.TARGET_KIND_MULTICLASS,
    Kind.MULTILABEL: service_pb2.TARGET_KIND_MULTILABEL,
    Kind.REGRESSION: service_pb2.TARGET_KIND_REGRESSION,
    Kind.FORECAST: service_pb2.TARGET_KIND_FORECAST,
}
"""The kinds of target that a score can answer, in the wire's words."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One seed's part of a `Prediction` as plain numbers: `output` [outputs]; the others are empty where they are None.

    `probability` [1] of a binary target, [classes] of classes; `value` [1] of a number, [steps] of a forecast.
    """

    output: Sequence[float]
    probability: Sequence[float]
    value: Sequence[float]


def answers_of(prediction: Prediction) -> list[Answer]:
    """One Answer per seed."""
    seeds = len(prediction.output)
    probability, value = (
        [()] * seeds if numbers is None else numbers.reshape(seeds, -1).tolist()
        for numbers in (prediction.probability, prediction.value)
    )
    return [Answer(*parts) for parts in zip(prediction.output.tolist(), probability, value, strict=True)]


@dataclass(frozen=True, slots=True)
class History:
    """How much one seed's neighborhood held: rows, rows with a time of their own, and the newest of those."""

    neighbor_count: int
    history_count: int
    newest_event_time_us: int | None


def history_of(neighborhood: Neighborhood) -> list[History]:
    """One History per seed; the seeds themselves do not count, and neither clock of a row without time does."""
    offset = np.asarray(neighborhood.seed_offset, dtype=np.int64)
    event_time_us = np.array(neighborhood.event_time_us, dtype=np.int64)
    starts = offset[:-1]
    if len(starts) == 0:
        return []
    event_time_us[starts] = ALWAYS_US
    newest_us = np.maximum.reduceat(event_time_us, starts)
    timed = np.add.reduceat((event_time_us != ALWAYS_US).astype(np.int64), starts)
    rows: Sequence[int] = (np.diff(offset) - 1).tolist()
    return [
        History(neighbors, history, newest if history else None)
        for neighbors, history, newest in zip(rows, timed.tolist(), newest_us.tolist(), strict=True)
    ]


class Shared:
    """What the answers of one batch have in common, as a message that is made once for all of them.

    The position names every partition of the log: made for each answer it would be the dearest part of it.
    """

    def __init__(self, task: str, target: Target) -> None:
        self.target = target
        self._task = task
        self._position: GraphPosition | None = None
        self._response = service_pb2.ScoreResponse()

    def response_to(self, scored: Scored) -> service_pb2.ScoreResponse:
        """A response with task, kind, version and position, for the caller to complete."""
        if scored.position is not self._position or scored.model_version != self._response.model_version:
            self._position = scored.position
            self._response = service_pb2.ScoreResponse(
                task=self._task,
                kind=KINDS[self.target.kind],
                model_version=scored.model_version,
                graph_position=position_of(scored.position),
            )
        response = service_pb2.ScoreResponse()
        response.CopyFrom(self._response)
        return response


def answer_of(
    asked: AskedRow, scored: Scored, shared: Shared, *, waited_s: float, total_s: float
) -> service_pb2.ScoreResponse:
    """The response to one request; the newest neighbor's age is counted from the cut-off, in microseconds."""
    history, stages = scored.history, scored.stages
    response = shared.response_to(scored)
    response.request_id = asked.request_id
    response.cutoff_time_us = asked.cutoff_time_us
    response.neighbor_count = history.neighbor_count
    response.history_count = history.history_count
    if history.newest_event_time_us is not None:
        # A row may be of a time so long ago that int64 does not hold its age.
        response.newest_neighbor_age_us = min(asked.cutoff_time_us - history.newest_event_time_us, TIME_MAX_US)
    timing = response.timing
    timing.SetInParent()  # stages may all take nothing
    timing.queue_us = stages.queue_us
    timing.freshness_wait_us = round(waited_s * 1e6)
    timing.sample_us = stages.sample_us
    timing.collate_us = stages.collate_us
    timing.forward_us = stages.forward_us
    timing.total_us = round(total_s * 1e6)
    _write_prediction(response, shared.target, scored.answer)
    return response


def write_answer(response: service_pb2.ScoreResponse, target: Target, answer: Answer) -> None:
    """Writes what was predicted into the fields that a target of this kind has, and which kind it is."""
    response.kind = KINDS[target.kind]
    _write_prediction(response, target, answer)


def _write_prediction(response: service_pb2.ScoreResponse, target: Target, answer: Answer) -> None:
    if target.kind is Kind.BINARY:
        response.probability, response.logit = answer.probability[0], answer.output[0]
    elif target.kind is Kind.REGRESSION:
        response.value = answer.value[0]
        response.quantiles.extend(_quantiles(answer.output))
    elif target.kind is Kind.FORECAST:
        levels = len(QUANTILES)
        for step, value in enumerate(answer.value):
            quantiles = _quantiles(answer.output[step * levels : (step + 1) * levels])
            response.steps.add(value=value, quantiles=quantiles)
    else:
        for name, probability, logit in zip(target.classes, answer.probability, answer.output, strict=True):
            response.classes.add(name=name, probability=probability, logit=logit)


def _quantiles(values: Sequence[float]) -> Iterator[service_pb2.Quantile]:
    return (service_pb2.Quantile(level=level, value=value) for level, value in zip(QUANTILES, values, strict=True))


def position_of(position: GraphPosition) -> service_pb2.GraphPosition:
    """The wire's form of a graph position, partitions in a stable order."""
    return service_pb2.GraphPosition(
        generation=position.generation,
        sequence=position.sequence,
        partitions=[
            service_pb2.PartitionPosition(topic=topic, partition=partition, next_offset=next_offset)
            for (topic, partition), next_offset in sorted(position.offsets.items())
        ],
    )
