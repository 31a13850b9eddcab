"""A small search over a plan: trials on several validation cuts, within a time budget, from the plan itself on.

    plan ─► trial 0, TPE's trials ─► each fitted on every cut (the worse half ends after the first) ─► best plan, Study

The test split is never looked at. A trial's score is the mean of its cuts, so that one period does not decide.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from graph_transformer.errors import TrainingDiverged
from graph_transformer.finetune.cuts import CUTS, CutExamples, CutFit, cut_examples
from graph_transformer.finetune.examples import Labels
from graph_transformer.finetune.loop import Report, silent
from graph_transformer.finetune.metrics.primary import primary
from graph_transformer.finetune.runtime import Runtime
from graph_transformer.finetune.variation import Values, Variation
from graph_transformer.plan import ModelPlan
from graph_transformer.task import Task
from temporal_graph.duration import format_duration

if TYPE_CHECKING:
    import optuna

    from temporal_graph.view import GraphView

TRIALS_LEAST = 4
"""Where the budget has no room for so many trials on all cuts, there are fewer cuts, at least two."""
TRIALS_RANDOM = 6
"""Trials before TPE follows what it has seen."""
TRIALS_UNPRUNED = 3
MARGIN = 1.15
"""A trial is started if this many times its expected time is left."""
REFUSED_MOST = 5
"""Proposals in a row that would not fit into what is left, before the search ends."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One plan that was tried: what of it differs from the first, its metric per cut, their mean, and its seconds.

    state: done, pruned (the first cuts were worse than most) or failed (the loss was no number); score is None then.
    """

    number: int
    state: str
    changes: Values
    cuts: tuple[float, ...]
    score: float | None
    seconds: float


@dataclass(frozen=True)
class Study:
    """What a search tried: the metric, whether more of it is better, the cuts' validation intervals, the trials."""

    metric: str
    higher_is_better: bool
    cuts: tuple[tuple[int, int], ...]
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        """The trial with the best mean; of equals the first."""
        sign = -1.0 if self.higher_is_better else 1.0
        done = [trial for trial in self.trials if trial.score is not None]
        return min(done, key=lambda trial: (sign * (trial.score or 0.0), trial.number))

    def table(self) -> list[dict[str, Any]]:
        """Return one line per trial, the best first, those that did not end last."""
        sign = -1.0 if self.higher_is_better else 1.0
        ordered = sorted(self.trials, key=lambda t: (t.score is None, sign * (t.score or 0.0), t.number))
        return [
            {
                "trial": trial.number,
                self.metric: trial.score,
                **{f"cut {n + 1}": trial.cuts[n] if n < len(trial.cuts) else None for n in range(len(self.cuts))},
                "seconds": round(trial.seconds, 1),
                "state": trial.state,
                "changes": ", ".join(f"{name} {value}" for name, value in trial.changes.items()) or "the plan itself",
            }
            for trial in ordered
        ]


def search(
    view: GraphView,
    task: Task,
    labels: Labels,
    *,
    budget_s: float | None = None,
    seed: int = 0,
    trials: int | None = None,
    cuts: int = CUTS,
    runtime: Runtime | None = None,
    report: Report = silent,
    on_trial: Callable[[Trial], None] | None = None,
) -> tuple[ModelPlan, Study]:
    """Search around the task's plan; return the best plan and what was tried. The plan itself is the first trial.

    It ends after `budget_s` seconds or so many `trials`, whichever is first; one of them must be given. A trial that
    would not fit into the time left is not started. With `trials` alone equal seeds give equal results on one machine.
    `report` hears of every step, `on_trial` of every trial.

    Raises:
        TaskError: the task has no validation split.
        NotEnoughExamples: there are no labels to choose by.
        TrainingDiverged: the plan itself can not be fitted.
    """
    if budget_s is None and trials is None:
        raise ValueError("a search ends by a time budget or a number of trials: give one")
    parts = cut_examples(task, labels, count=cuts)
    runtime = replace(runtime or Runtime(), state=None, resume=False, logs=None)
    fits = CutFit(view, task.target, seed, runtime, report)
    running = _Search(task, Variation.around(ModelPlan.of(task), view.schema), fits, parts, budget_s, seed, trials)
    running.run(on_trial or (lambda _: None))
    study = running.study()
    return running.plans[study.best.number], study


@dataclass
class _Search:
    task: Task
    variation: Variation
    fits: CutFit
    parts: list[CutExamples]
    budget_s: float | None
    seed: int
    most: int | None
    done: list[Trial] = field(default_factory=list)
    plans: dict[int, ModelPlan] = field(default_factory=dict)
    second_s: float = 0.0  # of a trial of cost 1, on one cut

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.primary = primary(self.task.target, self.task.metric)

    def left_s(self) -> float:
        return math.inf if self.budget_s is None else self.budget_s - (time.monotonic() - self.started)

    def run(self, on_trial: Callable[[Trial], None]) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            direction="maximize" if self.primary.higher_is_better else "minimize",
            sampler=optuna.samplers.TPESampler(seed=self.seed, n_startup_trials=TRIALS_RANDOM),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=TRIALS_UNPRUNED),
        )
        study.enqueue_trial(self.variation.start())
        refused = 0
        while (self.most is None or len(self.done) < self.most) and refused < REFUSED_MOST:
            asked = study.ask()
            values = self.variation.suggest(asked)
            if self.done and not self._fits(values):
                study.tell(asked, state=optuna.trial.TrialState.FAIL)
                refused += 1
                continue
            refused = 0
            trial = self._try(asked, values)
            states = {"done": optuna.trial.TrialState.COMPLETE, "pruned": optuna.trial.TrialState.PRUNED}
            study.tell(asked, trial.score, state=states.get(trial.state, optuna.trial.TrialState.FAIL))
            self.done.append(trial)
            on_trial(trial)
            if self.left_s() <= 0:
                break

    def _fits(self, values: Values) -> bool:
        expected_s = self.second_s * self.variation.cost(values) * len(self.parts)
        return MARGIN * expected_s <= self.left_s()

    def _try(self, asked: optuna.Trial, values: Values) -> Trial:
        number, plan, began = len(self.done), self.variation.plan(values), time.monotonic()
        self.plans[number] = plan
        task, scores, state = plan.apply(self.task), list[float](), "done"
        try:
            while len(scores) < len(self.parts):
                at = len(scores)
                phase = f"trial {number}, cut {at + 1} of {len(self.parts)}"
                scores.append(self.fits.run(task, self.parts[at], phase=phase, budget_s=self._share_s(number, at)))
                if number == 0 and at == 0:
                    self._afford(time.monotonic() - began)
                asked.report(sum(scores) / len(scores), at)
                if len(scores) < len(self.parts) and asked.should_prune():
                    state = "pruned"
                    break
        except TrainingDiverged:
            if number == 0:
                raise
            state = "failed"
        seconds = time.monotonic() - began
        if scores:
            self.second_s = max(self.second_s, seconds / len(scores) / self.variation.cost(values))
        score = sum(scores) / len(scores) if state == "done" else None
        return Trial(number, state, self.variation.changes(values), tuple(scores), score, seconds)

    def _share_s(self, number: int, at: int) -> float | None:
        """Return the seconds that a fit may take: the first trial's are shared by its cuts."""
        if self.budget_s is None:
            return None
        left_s = max(1.0, self.left_s())
        return left_s / (len(self.parts) - at) if number == 0 else left_s

    def _afford(self, first_s: float) -> None:
        """Keep as many cuts as let the budget hold a few trials."""
        if self.budget_s is not None:
            most = int(self.budget_s / (TRIALS_LEAST * max(first_s, 1e-3)))
            self.parts = self.parts[: max(min(2, len(self.parts)), most)]

    def study(self) -> Study:
        intervals = tuple((part.cut.validation.start_us, part.cut.validation.end_us) for part in self.parts)
        return Study(self.primary.metric, self.primary.higher_is_better, intervals, tuple(self.done))


def line_of(trial: Trial, study_metric: str) -> str:
    """Return a trial as one line for people."""
    score = trial.state if trial.score is None else f"{study_metric} {trial.score:.4f}"
    changes = ", ".join(f"{name} {value}" for name, value in trial.changes.items()) or "the plan itself"
    took = format_duration(round(trial.seconds) * 1_000_000)
    return f"trial {trial.number}: {score} in {took}: {changes}"
