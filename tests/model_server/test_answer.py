from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graph_transformer.predictor import answer
from graph_transformer.target import QUANTILES, Kind, Target
from model_server.answer import (
    KINDS,
    Answer,
    History,
    Shared,
    answer_of,
    answers_of,
    history_of,
    position_of,
    write_answer,
)
from model_server.request import AskedRow
from model_server.scorer import Scored, Stages
from online_sampler.sampler import Sampler
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.view import GraphPosition


def written(target: Target, output: list[list[float]]) -> list[service_pb2.ScoreResponse]:
    """The responses of calibrated outputs [seeds][outputs]."""
    responses = []
    for one in answers_of(answer(target, np.array(output, dtype=np.float64))):
        responses.append(service_pb2.ScoreResponse())
        write_answer(responses[-1], target, one)
    return responses


def test_yes_or_no_is_a_probability_and_its_logit() -> None:
    """What callers have read since the first version stays where it is; nothing else is set."""
    first, second = written(Target(Kind.BINARY, "t", event_level=True, column="c"), [[0.0], [2.0]])
    assert (first.probability, first.logit) == (0.5, 0.0)
    assert second.logit == 2.0
    assert second.kind == service_pb2.TARGET_KIND_BINARY
    assert {field.name for field, _ in second.ListFields()} == {"probability", "logit", "kind"}


def test_classes_come_with_their_names_in_the_tasks_order() -> None:
    """Of one class out of several the probabilities sum to 1; of any of several each is its own."""
    classes = ("b", "a", "c")
    (one,) = written(Target(Kind.MULTICLASS, "t", event_level=False, classes=classes), [[0.0, 1.0, 2.0]])
    assert [part.name for part in one.classes] == list(classes)
    assert [part.logit for part in one.classes] == [0.0, 1.0, 2.0]
    assert sum(part.probability for part in one.classes) == pytest.approx(1.0)
    (many,) = written(Target(Kind.MULTILABEL, "t", event_level=False, classes=classes), [[0.0, 1.0, 2.0]])
    assert many.classes[0].probability == 0.5
    assert sum(part.probability for part in many.classes) > 1.0
    assert {field.name for field, _ in many.ListFields()} == {"classes", "kind"}


def test_a_number_is_its_median_and_its_quantiles() -> None:
    """In the unit of what is predicted, by rising level; a value of zero is there and not absent."""
    values = [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]
    (one,) = written(Target(Kind.REGRESSION, "t", event_level=False), [values])
    assert one.HasField("value")
    assert one.value == 0.0
    assert [(part.level, part.value) for part in one.quantiles] == list(zip(QUANTILES, values, strict=True))
    assert {field.name for field, _ in one.ListFields()} == {"value", "quantiles", "kind"}


def test_a_forecast_is_a_number_for_each_window_the_nearest_first() -> None:
    """Each window has its own median and quantiles, also where there is only one window."""
    levels = len(QUANTILES)
    output = [float(number) for number in range(3 * levels)]
    (one,) = written(Target(Kind.FORECAST, "t", event_level=False, steps=3), [output])
    assert [step.value for step in one.steps] == [3.0, 3.0 + levels, 3.0 + 2 * levels]
    assert [part.value for part in one.steps[1].quantiles] == output[levels : 2 * levels]
    (short,) = written(Target(Kind.FORECAST, "t", event_level=False), [output[:levels]])
    assert [step.value for step in short.steps] == [3.0]
    assert not short.HasField("value")


def test_every_kind_but_an_order_of_items_can_be_answered() -> None:
    """A kind that is added to the targets is added to the wire, or left out on purpose."""
    assert set(Kind) - set(KINDS) == {Kind.RANKING}
    assert set(KINDS.values()) == set(service_pb2.TargetKind.values()) - {service_pb2.TARGET_KIND_UNSPECIFIED}


def test_history_counts_timed_rows_and_finds_the_newest(world: Any) -> None:
    """Per seed: neighbors without the seed, those with a time, and the newest event time; nobody's seed counts."""
    view = world.graph.view()
    sampler = Sampler(view, world.predictor(view).plan)
    minute_us = 60_000_000
    time_us = world.start_us + 50 * minute_us
    events = [
        world.event(900, time_us, customer=3, terminal=999),  # 3, 23 and 43 minutes before
        world.event(901, time_us, customer=998, terminal=999),  # nobody knows them
    ]
    found = sampler.sample_events(events, np.array([time_us - 1, time_us - 1]))
    known, unknown = history_of(found)
    assert known.history_count == 3
    assert known.newest_event_time_us == world.start_us + 43 * minute_us
    assert known.neighbor_count >= 3
    assert unknown == History(unknown.neighbor_count, 0, None)
    assert history_of(sampler.sample_events([], np.array([], dtype=np.int64))) == []


@pytest.mark.parametrize(("newest_us", "age_us"), [(5, 2**62 - 5), (1 - 2**63, 2**63 - 1)])
def test_an_age_is_one_that_the_wire_can_say(newest_us: int, age_us: int) -> None:
    """A row may be of a time so long ago that its age does not fit: then it is the greatest that does."""
    asked = AskedRow("r", row_event_pb2.RowEvent(), b"", 2**62)
    answered = Answer([0.0], [0.5], ())
    scored = Scored(answered, History(1, 1, newest_us), GraphPosition(1, 1, {}), "v", Stages(0, 0, 0, 0))
    target = Target(Kind.BINARY, "t", event_level=True, column="c")
    assert answer_of(asked, scored, Shared("t", target), waited_s=0, total_s=0).newest_neighbor_age_us == age_us


def test_answers_share_what_their_batch_has_in_common() -> None:
    """Answers of one batch name the same position and version; the next batch's, a swapped model's, are its own."""
    asked = AskedRow("r", row_event_pb2.RowEvent(), b"", 10)
    shared = Shared("t", Target(Kind.BINARY, "t", event_level=True, column="c"))
    first, second = GraphPosition(1, 1, {("a", 0): 5}), GraphPosition(1, 2, {("a", 0): 6})
    found = []
    for position, version, newest_us in ((first, "v", 4), (first, "v", None), (second, "v", 4), (second, "w", None)):
        scored = Scored(Answer([1.0], [0.5], ()), History(2, 1, newest_us), position, version, Stages(1, 2, 3, 4))
        found.append(answer_of(asked, scored, shared, waited_s=0, total_s=0))
    at = [
        (one.graph_position.partitions[0].next_offset, one.graph_position.sequence, one.model_version) for one in found
    ]
    assert at == [(5, 1, "v"), (5, 1, "v"), (6, 2, "v"), (6, 2, "w")]
    assert [one.HasField("newest_neighbor_age_us") for one in found] == [True, False, True, False]
    assert {(one.task, one.kind, one.probability, one.logit) for one in found} == {("t", KINDS[Kind.BINARY], 0.5, 1.0)}


def test_positions_are_told_in_a_stable_order() -> None:
    """The same position is the same message, however the offsets were ordered."""
    one = position_of(GraphPosition(2, 7, {("b", 0): 3, ("a", 1): 2, ("a", 0): 1}))
    two = position_of(GraphPosition(2, 7, {("a", 0): 1, ("a", 1): 2, ("b", 0): 3}))
    assert one.SerializeToString() == two.SerializeToString()
    assert [(part.topic, part.partition, part.next_offset) for part in one.partitions] == [
        ("a", 0, 1),
        ("a", 1, 2),
        ("b", 0, 3),
    ]
