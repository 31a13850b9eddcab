"""Recorded answers, computed again: each at its graph position, by its model, and compared bit by bit.

predictions topic, or a file ─► Prediction
snapshot at or before its position ─► log up to exactly it ─► graph ─► the path that serves ─► equal, or not
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from google.protobuf import json_format

from graph_transformer.predictor import Predictor
from model_server.answer import Shared, answer_of
from model_server.generation import Serving
from model_server.metrics import Metrics
from model_server.request import AskedRow
from model_server.scorer import Question, Scorer
from model_server.seeds import key_of
from nowgraph.errors import UsageError
from online_sampler.plan import PerLink, Strategy
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from stream.batch import Positions
from stream.kafka_source import KafkaSource
from stream.present import present
from stream.settings import StreamSettings
from temporal_graph.view import GraphView


@dataclass(frozen=True, slots=True)
class Audited:
    """A recorded answer and the one that was computed again."""

    recorded: service_pb2.Prediction
    again: service_pb2.ScoreResponse

    @property
    def equal(self) -> bool:
        """Whether every bit of what was answered is the same."""
        return _bits(self.recorded.response) == _bits(self.again)


def answer_again(prediction: service_pb2.Prediction, predictor: Predictor, view: GraphView) -> Audited:
    """Answers what was asked anew; the graph stands where it stood then, and the model is the recorded version."""
    row, response, target = prediction.row, prediction.response, predictor.task.target
    key = None if target.event_level else key_of(row.key)
    asked = AskedRow(response.request_id, row, row.SerializeToString(), response.cutoff_time_us, key)
    serving = Serving.over(view, predictor)
    scorer = Scorer(lambda: serving, Metrics())
    (scored,) = scorer([Question(asked.event, asked.cutoff_time_us, math.inf, asked.key)], [0])
    again = answer_of(asked, scored, Shared(predictor.task.name, target), waited_s=0.0, total_s=0.0)
    return Audited(prediction, again)


def position_of(prediction: service_pb2.Prediction) -> Positions:
    """The next offset of every partition that the graph held when the answer was given."""
    partitions = prediction.response.graph_position.partitions
    return {(one.topic, one.partition): one.next_offset for one in partitions}


def refuse_lists_and_rules(predictions: Iterable[service_pb2.Prediction]) -> None:
    """Raises UsageError for an answer that no model gave alone: a list, or a rule's."""
    for one in predictions:
        if one.HasField("ranking"):
            raise UsageError(f"{one.ranking.request.request_id!r} is a list: lists are not made in a fixed shape")
        if not one.response.model_version:
            raise UsageError(f"{one.response.request_id!r} was answered by the rule {one.response.degraded.rule!r}")


def refuse_draws(predictor: Predictor) -> None:
    """Raises UsageError for a plan that draws other neighbors each time."""
    if any(strategy != PerLink(Strategy.MOST_RECENT) for strategy in predictor.sampling_plan.strategy):
        raise UsageError(
            f"model {predictor.version} draws its neighbors at random: its answers cannot be computed again"
        )


def recorded_answers(settings: StreamSettings, request_ids: Iterable[str]) -> list[service_pb2.Prediction]:
    """The records of the predictions topic with these request ids, all that there are at present.

    Raises:
        UsageError: an id is not there.
        SourceError: Kafka cannot be read.
    """
    wanted, found = set(request_ids), []
    with closing(KafkaSource([settings.predictions_topic], settings=settings)) as source:
        for value in chain.from_iterable(batch.values for batch in present(source)):
            one = service_pb2.Prediction.FromString(value or b"")
            if _id_of(one) in wanted:
                found.append(one)
    if missing := wanted - {_id_of(one) for one in found}:
        raise UsageError(f"topic {settings.predictions_topic!r} has no answer to {', '.join(sorted(missing))}")
    return found


def answers_in(path: Path) -> list[service_pb2.Prediction]:
    """The records of a file: one Prediction a line, in protobuf's JSON form. Raises UsageError, OSError."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                found.append(json_format.Parse(line, service_pb2.Prediction()))
            except json_format.ParseError as error:
                raise UsageError(f"{path}:{number}: no Prediction in protobuf's JSON form: {error}") from error
    return found


def _id_of(prediction: service_pb2.Prediction) -> str:
    return prediction.ranking.request.request_id or prediction.response.request_id


def _bits(response: service_pb2.ScoreResponse) -> bytes:
    """What was answered, without what names the request, where its time went, and where the graph stood."""
    answer = service_pb2.ScoreResponse()
    answer.CopyFrom(response)
    answer.ClearField("request_id")
    answer.ClearField("timing")
    answer.ClearField("graph_position")
    answer.ClearField("degraded")
    return answer.SerializeToString(deterministic=True)
