from __future__ import annotations

from typing import Any

import pytest
import torch

from graph_transformer.encoding.collate import Encoding
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.finetune.examples import Examples, examples_of
from graph_transformer.finetune.feed import sample
from graph_transformer.finetune.loop import (
    CHOICE_TOLERANCE,
    Average,
    Fitted,
    Limits,
    Progress,
    fit,
    learning_rate,
    trained_share,
)
from graph_transformer.model import GraphTransformer
from graph_transformer.task import Task, Training
from online_sampler.sampler import Sampler


@pytest.fixture(scope="module")
def examples(world: Any, task: Task) -> Examples:
    """The training examples of the small world."""
    return examples_of(world.view, task, task.splits.train, known_by_us=None)


@pytest.fixture(scope="module")
def encoding(world: Any, task: Task, examples: Examples) -> Encoding:
    """Statistics of some of them, bound to the world's graph."""
    view = world.view
    sampled = sample(Sampler(view, task.sampling_plan), task, examples.select(examples.label.nonzero()[0][:64]))
    statistics = fit_statistics([sampled], view.schema, view.strings, target=task.target)
    return Encoding(statistics, view.schema, view.strings)


def test_the_rate_warms_up_and_comes_down_to_zero() -> None:
    """Zero at the start, the full rate after the warm-up, half of it half way, zero at the end."""
    training = Training(learning_rate=1.0, warm_up=0.1)
    assert learning_rate(training, 0.0) == 0.0
    assert learning_rate(training, 0.05) == pytest.approx(0.5)
    assert learning_rate(training, 0.1) == pytest.approx(1.0)
    assert learning_rate(training, 0.55) == pytest.approx(0.5)
    assert learning_rate(training, 1.0) == pytest.approx(0.0)
    assert learning_rate(Training(learning_rate=1.0, warm_up=0.0), 0.0) == 1.0


def test_the_average_follows_fast_then_slowly(encoding: Encoding, task: Task) -> None:
    """Early the average is nearly the model, later it moves by one part in two hundred a step."""

    def build() -> GraphTransformer:
        return GraphTransformer(encoding.layout(), task.model, 1)

    model = build()
    average = Average(model, 0.995, build)
    weight, mean = model.head[-1].bias, average.model.head[-1].bias
    with torch.no_grad():
        weight.fill_(1.0)
        mean.fill_(0.0)
    average.update(1)
    assert mean.item() == pytest.approx(1.0 - 2.0 / 11.0)
    with torch.no_grad():
        mean.fill_(0.0)
    average.update(100_000)
    assert mean.item() == pytest.approx(0.005, rel=1e-3)


def test_the_best_validation_wins_and_of_equals_the_latest(
    world: Any, quick: Task, examples: Examples, encoding: Encoding
) -> None:
    """A clearly better step is kept although later ones follow; among equals the later is taken."""

    def chosen(*scores: float) -> Fitted:
        values = iter(scores)
        return fit(
            world.view, quick, examples, encoding, phase="train", limits=Limits(8), validate=lambda _: next(values)
        )

    assert chosen(0.9, 0.5).step == 4
    assert chosen(0.5, 0.5 - CHOICE_TOLERANCE / 2).step == 8
    assert chosen(0.5, 0.9).validations == ((4, 0.5), (8, 0.9))
    first, last = chosen(0.9, 0.5).model, chosen(0.5, 0.9).model
    assert not torch.equal(first.head[-1].bias, last.head[-1].bias)


def test_every_step_is_reported(world: Any, quick: Task, examples: Examples, encoding: Encoding) -> None:
    """Phase, step, loss and the last validation arrive in order; fewer steps than the schedule's may be asked for."""
    seen: list[Progress] = []
    fitted = fit(world.view, quick, examples, encoding, phase="refit", limits=Limits(5), report=seen.append)
    assert [(p.phase, p.step, p.steps) for p in seen] == [("refit", step, 5) for step in range(1, 6)]
    assert all(p.loss > 0 and p.average_precision is None for p in seen)
    assert (fitted.step, fitted.validations) == (5, ())


def test_the_loss_falls(world: Any, task: Task, examples: Examples, encoding: Encoding) -> None:
    """Sixty steps on the small world take the loss clearly below where it began."""
    losses: list[float] = []
    fit(world.view, task, examples, encoding, phase="train", limits=Limits(60), report=lambda p: losses.append(p.loss))
    assert sum(losses[-10:]) < 0.85 * sum(losses[:10])


def test_the_first_logit_is_the_share_of_positives(examples: Examples, encoding: Encoding, task: Task) -> None:
    """Batches of 24 positives and 40 negatives have a share of 3 in 8."""
    assert trained_share(examples, task.training) == 24 / 64
    assert trained_share(examples.select(examples.label.nonzero()[0][:6]), Training()) == 1.0
