"""What of a record is compared, and which records no model can answer again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import json_format

from nowgraph.audit import Audited, answer_again, answers_in, position_of, refuse_draws, refuse_lists_and_rules
from nowgraph.errors import UsageError
from online_sampler.plan import SamplingPlan
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2


def record(**response: Any) -> service_pb2.Prediction:
    """A recorded answer."""
    given = {"request_id": "a", "model_version": "v", "probability": 0.25, "logit": -1.0, "history_count": 3}
    return service_pb2.Prediction(response=service_pb2.ScoreResponse(**{**given, **response}))


def test_every_bit_of_an_answer_counts_and_nothing_around_it() -> None:
    """The next double is another answer, and so is other history; times and names are not compared."""
    recorded = record(timing=service_pb2.Timing(total_us=5), task="fraud")
    same = record(task="fraud", request_id="b").response
    assert Audited(recorded, same).equal
    for other in ({"probability": 0.25000000000000006}, {"history_count": 4}, {"logit": -0.0}, {"task": "spend"}):
        assert not Audited(recorded, record(**{"task": "fraud", **other}).response).equal


def test_a_position_is_read_by_partition() -> None:
    """As the graph counts them: the first offset that is not in it."""
    one = record()
    one.response.graph_position.partitions.add(topic="t", partition=2, next_offset=9)
    assert position_of(one) == {("t", 2): 9}


def test_lists_and_rules_are_refused() -> None:
    """What no model answered alone is said by its request."""
    ranking = service_pb2.RankPrediction(request=service_pb2.RankRequest(request_id="page"))
    with pytest.raises(UsageError, match="'page' is a list"):
        refuse_lists_and_rules([service_pb2.Prediction(ranking=ranking)])
    rule = record(model_version="", degraded=service_pb2.Degraded(rule="large"))
    with pytest.raises(UsageError, match="'a' was answered by the rule 'large'"):
        refuse_lists_and_rules([rule])
    refuse_lists_and_rules([record()])


@pytest.mark.parametrize("strategy", ["uniform", "recency_weighted", [{"hop1": {"default": "uniform"}}]])
def test_a_plan_that_draws_is_refused(strategy: Any) -> None:
    """Other neighbors each time: nothing could be compared. The most recent are the same ones again."""
    given = {"num_neighbors": [{"hop1": {"default": 4}}], "strategy": strategy}
    with pytest.raises(UsageError, match="at random"):
        refuse_draws(SimpleNamespace(sampling_plan=SamplingPlan.from_dict(given), version="v"))  # type: ignore[arg-type]
    given["strategy"] = "most_recent"
    refuse_draws(SimpleNamespace(sampling_plan=SamplingPlan.from_dict(given), version="v"))  # type: ignore[arg-type]


def test_a_file_holds_one_record_a_line(tmp_path: Path) -> None:
    """Doubles come back with every bit."""
    records = [record(probability=0.1 + 0.2), record(probability=1 / 3)]
    lines = [json_format.MessageToJson(one, indent=None) for one in records]
    (tmp_path / "answers.json").write_text("\n\n".join(lines) + "\n")
    assert answers_in(tmp_path / "answers.json") == records


def test_an_answer_is_computed_by_the_path_that_serves(world: Any) -> None:
    """Of the row as it was recorded, private parts hashed: what the model says of its neighborhood now."""
    from protos.nowgraph.v1 import row_event_pb2

    view = world.graph.view()
    predictor = world.predictor(view, fixed_shape=True)
    row = row_event_pb2.RowEvent.FromString(world.event(9_000, world.start_us + 10**10, customer=3))
    prediction = record(cutoff_time_us=world.start_us + 10**10 - 1)
    prediction.row.CopyFrom(row)
    one = answer_again(prediction, predictor, view)
    assert not one.equal
    prediction.response.CopyFrom(one.again)
    assert one.again.history_count > 3
    assert answer_again(prediction, predictor, view).equal
