"""A search begins with the plan, ends in time, is repeatable, and never gives a plan that validates worse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from graph_transformer.errors import TaskError, TrainingDiverged
from graph_transformer.finetune.cuts import CutExamples, CutFit
from graph_transformer.finetune.search import Study, Trial, line_of, search
from graph_transformer.plan import ModelPlan
from graph_transformer.task import Task

Fake = Callable[[Task, int], float]


class Clock:
    """Time that passes only when a fit says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Takes the place of the search's clock."""
    found = Clock()
    monkeypatch.setattr("graph_transformer.finetune.search.time", found)
    return found


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Callable[..., list[tuple[Task, int]]]:
    """Fits take ten seconds per 1,000 steps and score what a function says of task and cut; gives what was fitted."""

    def install(score: Fake) -> list[tuple[Task, int]]:
        fitted: list[tuple[Task, int]] = []
        starts: list[int] = []

        def run(self: CutFit, task: Task, part: CutExamples, **_: Any) -> float:
            start = part.cut.validation.start_us
            starts.extend([start] if start not in starts else [])
            fitted.append((task, starts.index(start)))
            clock.now += task.training.steps / 100
            return score(task, starts.index(start))

        monkeypatch.setattr(CutFit, "run", run)
        return fitted

    return install


def by_dropout(task: Task, cut: int) -> float:
    """Better the less dropout; cuts differ in level."""
    return 0.9 - task.model.dropout - 0.1 * cut


def test_the_best_of_all_cuts_wins_and_the_plan_is_the_first_trial(world: Any, task: Task, fake: Callable) -> None:
    """The winner has the best mean; trial 0 is the plan itself; the table has the best first."""
    fake(by_dropout)
    plan, study = search(world.view, task, world.labels(task), trials=12, seed=1)
    assert study.trials[0].changes == {}
    assert study.trials[0].score == pytest.approx(0.9 - task.model.dropout - 0.1)
    assert len(study.trials[0].cuts) == len(study.cuts) == 3
    assert study.best.score == max(trial.score for trial in study.trials if trial.score is not None)
    assert plan.model.dropout < task.model.dropout
    assert plan.apply(task).splits == task.splits
    table = study.table()
    assert table[0]["trial"] == study.best.number
    assert len(table) == 12


def test_it_is_never_worse_than_the_plan(world: Any, task: Task, fake: Callable) -> None:
    """Where nothing is better the plan comes back as it was, also when others are as good."""
    own = ModelPlan.of(task)
    fake(lambda tried, _: 0.5 if ModelPlan.of(tried) == own else 0.4)
    assert search(world.view, task, world.labels(task), trials=6)[0] == own
    fake(lambda *_: 0.5)
    assert search(world.view, task, world.labels(task), trials=6)[0] == own


def test_lower_is_better_of_a_loss(world: Any, task: Task, fake: Callable) -> None:
    """A metric that should fall is minimized."""
    fake(lambda tried, _: tried.model.dropout)
    by_loss = replace(task, metric="log_loss")
    plan, study = search(world.view, by_loss, world.labels(task), trials=8)
    assert not study.higher_is_better
    assert plan.model.dropout < task.model.dropout


def test_equal_seeds_try_the_same(world: Any, task: Task, fake: Callable) -> None:
    """Trials, scores and winner are equal for equal seeds, and others for another."""
    fake(by_dropout)
    once, again, other = (search(world.view, task, world.labels(task), trials=8, seed=s) for s in (3, 3, 4))
    tried = [[replace(trial, seconds=0.0) for trial in study.trials] for _, study in (once, again, other)]
    assert once[0] == again[0]
    assert tried[0] == tried[1]
    assert tried[0] != tried[2]


def test_a_trial_that_would_not_fit_is_not_started(world: Any, task: Task, fake: Callable, clock: Clock) -> None:
    """The budget holds: no trial begins that is expected to end after it, and several trials are made within."""
    fake(by_dropout)
    started = clock.now
    one_s = 3 * task.training.steps / 100
    _, study = search(world.view, task, world.labels(task), budget_s=15 * one_s)
    assert clock.now - started <= 15 * one_s
    assert len(study.trials) >= 5


def test_a_short_budget_takes_fewer_cuts_and_tries_the_plan_at_least(
    world: Any, task: Task, fake: Callable, clock: Clock
) -> None:
    """With room for little there are two cuts; with room for nothing the plan alone is tried."""
    fake(by_dropout)
    cut_s = task.training.steps / 100
    _, study = search(world.view, task, world.labels(task), budget_s=9 * cut_s)
    assert {len(trial.cuts) for trial in study.trials if trial.state == "done"} == {2}
    plan, study = search(world.view, task, world.labels(task), budget_s=0.1 * cut_s)
    assert (plan, len(study.trials)) == (ModelPlan.of(task), 1)


def test_bad_trials_end_after_their_first_cuts(world: Any, task: Task, fake: Callable) -> None:
    """A trial below the median is not fitted on the other cuts, and can not win by the cuts it had."""
    fitted = fake(by_dropout)
    _, study = search(world.view, task, world.labels(task), trials=20, seed=2)
    pruned = [trial for trial in study.trials if trial.state == "pruned"]
    assert pruned
    assert all(trial.score is None and len(trial.cuts) < 3 for trial in pruned)
    assert len(fitted) == sum(len(trial.cuts) for trial in study.trials)


def test_a_trial_that_diverges_is_left_out(world: Any, task: Task, fake: Callable) -> None:
    """Its line says failed; if the plan itself diverges, that is an error."""

    def score(tried: Task, _: int) -> float:
        if tried.training.learning_rate > task.training.learning_rate:
            raise TrainingDiverged("too fast")
        return 0.5

    fake(score)
    _, study = search(world.view, task, world.labels(task), trials=10)
    assert {trial.state for trial in study.trials} >= {"done", "failed"}
    assert study.best.number == 0

    def diverges(*_: object) -> float:
        raise TrainingDiverged("at once")

    fake(diverges)
    with pytest.raises(TrainingDiverged):
        search(world.view, task, world.labels(task), trials=2)


def test_what_it_needs_is_asked_for(world: Any, task: Task) -> None:
    """An end, and a validation split."""
    with pytest.raises(ValueError, match="budget"):
        search(world.view, task, world.labels(task))
    without = replace(task, splits=replace(task.splits, validation=None))
    with pytest.raises(TaskError, match="validation"):
        search(world.view, without, world.labels(task), trials=1)


def test_a_real_search_in_a_small_world(world: Any, quick: Task) -> None:
    """Two trials on two cuts are fitted for real; listeners hear of steps and trials; the plan can be applied."""
    trials: list[Trial] = []
    phases: set[str] = set()
    brief = replace(quick, training=replace(quick.training, steps=4, evaluate_every=2, validation_examples=100))
    plan, study = search(
        world.view,
        brief,
        world.labels(brief),
        trials=2,
        cuts=2,
        report=lambda progress: phases.add(progress.phase),
        on_trial=trials.append,
    )
    assert tuple(trials) == study.trials
    assert "trial 0, cut 2 of 2" in phases
    assert all(0 < score < 1 for trial in trials for score in trial.cuts)
    assert plan.apply(brief).target == brief.target


def test_a_line_for_people() -> None:
    """Metric, time and what was changed; of a trial that ended early, that."""
    done = Trial(3, "done", {"width": 64}, (0.5,), 0.51234, 12.2)
    assert line_of(done, "roc_auc") == "trial 3: roc_auc 0.5123 in 12s: width 64"
    assert line_of(replace(done, state="pruned", score=None, changes={}), "roc_auc").startswith("trial 3: pruned")
    assert Study("roc_auc", True, (), (done,)).best is done
