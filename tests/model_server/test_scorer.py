from __future__ import annotations

import time
from typing import Any

import pytest

from model_server.generation import Serving
from model_server.metrics import Metrics
from model_server.scorer import Question, Scorer
from online_sampler.errors import SeedError


@pytest.fixture
def scorer(world: Any, metrics: Metrics) -> Scorer:
    """Answers with the world's model."""
    view = world.graph.view()
    serving = Serving.over(view, world.predictor(view))
    return Scorer(lambda: serving, metrics)


def test_a_batch_is_scored_in_one_pass(world: Any, scorer: Scorer, metrics: Metrics) -> None:
    """Each question has its own answer, history and wait; stages are observed once."""
    time_us = world.start_us + 200 * 60_000_000
    questions = [
        Question(world.event(500 + n, time_us, customer=customer), time_us - 1, time.monotonic() + 10)
        for n, customer in enumerate((1, 999))
    ]
    known, unknown = scorer(questions, [5, 6])
    assert known.history.history_count > unknown.history.history_count
    assert (known.stages.queue_us, unknown.stages.queue_us) == (5, 6)
    assert known.stages.sample_us == unknown.stages.sample_us > 0
    assert known.position.sequence == 100
    for stage in ("sample", "collate", "forward"):
        assert metrics.registry.get_sample_value("nowgraph_stage_seconds_count", {"stage": stage}) == 1


def test_what_is_no_event_is_refused(scorer: Scorer) -> None:
    """The engine then asks each alone."""
    with pytest.raises(SeedError):
        scorer([Question(b"no event", 0, 0.0)], [0])
