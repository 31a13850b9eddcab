"""The plan of a ranking without one: as many steps as its questions bear."""

from __future__ import annotations

import pytest

from graph_transformer.finetune.ranking.sizing import BATCHES, STEPS_LEAST, STEPS_MOST, ranking_plan
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.ranking.plans import default_plan
from graph_transformer.target import Kind, Ranked, Target
from temporal_graph.schema import Schema

TARGET = Target(
    Kind.RANKING, "users", event_level=False, horizon_us=10, ranked=Ranked("orders", "user_id", "item_id", "items", 5)
)


def test_the_plan_reads_the_history_at_the_vectors_width(shop: Schema) -> None:
    """The ranking's options decide what is sampled and how wide rows are, and travel with the plan."""
    config = RankingConfig(tower_history=7, dimension=20)
    plan = ranking_plan(shop, TARGET, config, 5_000)
    assert plan.sampling_plan == default_plan(shop, TARGET, config)
    assert (plan.model.width, plan.model.heads, plan.ranking) == (20, 4, config)


@pytest.mark.parametrize(("questions", "epochs"), [(1_000, 20.0), (20_000, 10.0), (100_000, 8.0), (1_000_000, 3.0)])
def test_each_question_is_seen_as_often_as_was_measured(shop: Schema, questions: int, epochs: float) -> None:
    """At the measured numbers exactly; the batch is one of the sizes."""
    training = ranking_plan(shop, TARGET, RankingConfig(), questions).training
    assert training.batch in {size for _, size in BATCHES}
    assert training.steps * training.batch / questions == pytest.approx(epochs, rel=0.02)
    assert 0 < training.evaluate_every < training.steps


def test_between_them_steps_rise_and_epochs_fall(shop: Schema) -> None:
    """More questions are never fitted in fewer steps than a tenth of them needs; both ends are bounded."""
    numbers = [10, 300, 3_000, 30_000, 300_000, 3_000_000, 10**8]
    plans = [ranking_plan(shop, TARGET, RankingConfig(), number).training for number in numbers]
    epochs = [plan.steps * plan.batch / number for plan, number in zip(plans, numbers, strict=True)]
    assert epochs == sorted(epochs, reverse=True)
    assert plans[0].steps == STEPS_LEAST
    assert plans[-1].steps == STEPS_MOST
