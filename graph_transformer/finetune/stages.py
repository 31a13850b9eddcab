"""The stages of one training: fit with early choice on later time, calibrate there, refit on later rows, test.

train rows ─► fit ─► validation chooses the step and calibrates ─► refit rows, as many steps ─► test rows
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from graph_transformer.calibration import Calibration, fit_calibration, prior_correction
from graph_transformer.encoding.collate import Encoding
from graph_transformer.encoding.statistics import Statistics
from graph_transformer.finetune.evaluation import Evaluation, Scorer, test_split, validator
from graph_transformer.finetune.examples import Examples, Labels, examples_of
from graph_transformer.finetune.feed import rare_share, statistics_of
from graph_transformer.finetune.loop import Fitted, Limits, Report, fit
from graph_transformer.finetune.refit import kept_back
from graph_transformer.finetune.runtime import Runtime
from graph_transformer.heads import Unit, fit_unit
from graph_transformer.pretrain.pretrained import Pretrained
from graph_transformer.splits import Interval
from graph_transformer.target import Kind
from graph_transformer.task import Task

if TYPE_CHECKING:
    from temporal_graph.view import GraphView

STATISTICS_EXAMPLES = 2048
"""Training examples whose neighborhoods give scales and bins: about a quarter of a million rows at 128 a seed."""
STATISTICS_SEEDS = 256
CALIBRATION_EXAMPLES = 100_000
"""Validation examples that calibration is fitted on, at most."""


@dataclass(frozen=True)
class Stage:
    """One fitted model with all that is bound to its training rows; `prior` corrects for its sampled negatives."""

    fitted: Fitted
    statistics: Statistics
    encoding: Encoding
    unit: Unit
    prior: float


@dataclass(frozen=True)
class Outcome:
    """The finished model, its calibration, and the evaluations of the splits the task has."""

    stage: Stage
    calibration: Calibration
    evaluations: dict[str, Evaluation]


@dataclass(frozen=True)
class Stages:
    """What all stages share."""

    view: GraphView
    task: Task
    labels: Labels
    report: Report
    seed: int = 0
    budget_s: float | None = None
    runtime: Runtime = field(default_factory=Runtime)
    pretrained: Pretrained | None = None

    def run(self) -> Outcome:
        """Go through the stages the task's splits ask for.

        Raises:
            NotEnoughExamples: a split has no labels of one kind that are known in time; before anything is fitted.
        """
        splits, target = self.task.splits, self.task.target
        budget_s = self.budget_s if splits.refit is None or self.budget_s is None else self.budget_s / 2
        later, known_by_us = None, splits.trained_by_us
        if splits.validation is not None:
            later = examples_of(self.labels, target, splits.validation, known_by_us=splits.trained_by_us)
            known_by_us = splits.validation.start_us
        first = examples_of(self.labels, target, splits.train, known_by_us=known_by_us)
        # Before the hour of fitting, as a split that cannot be measured ends it.
        test = None if splits.test is None else test_split(self.view, self.task, self.labels, splits.test)
        stage = self.stage("train", first, later, Limits(self.task.training.steps, budget_s))
        calibration, evaluations = Calibration.of(target, prior=stage.prior), {}
        if later is not None:
            part = self._part(later)
            scorer = self._scorer(stage, self._frozen_us())
            calibration = fit_calibration(target, scorer.raw(part), part.label, prior=stage.prior)
            evaluations["validation"] = scorer.measured(calibration, part)
        if splits.refit is not None:
            again, calibration = self._refit(splits.refit, calibration, Limits(stage.fitted.step, budget_s))
            fitted = replace(again.fitted, validations=stage.fitted.validations, losses=stage.fitted.losses)
            stage = replace(again, fitted=fitted)
        if test is not None:
            evaluations["test"] = self._scorer(stage, splits.frozen_us).measured(calibration, test)
        return Outcome(stage, calibration, evaluations)

    def stage(self, phase: str, examples: Examples, later: Examples | None, limits: Limits) -> Stage:
        """Fit a model to examples; the step is chosen on later ones where there are any."""
        view, task, seed = self.view, self.task, self.seed
        statistics = self._statistics(examples)
        encoding = Encoding(statistics, view.schema, view.strings)
        unit = fit_unit(task.target, examples.label, task.training.transform)
        judge = None
        if later is not None:
            frozen_us = self._frozen_us()
            scorer = Scorer(view, task, None, encoding, unit, self.runtime.device, frozen_us)  # type: ignore[arg-type]  # models follow
            judge = validator(scorer, later, seed=seed)
        fitted = fit(
            view,
            task,
            examples,
            encoding,
            phase=phase,
            limits=limits,
            unit=unit,
            validator=judge,
            seed=seed,
            runtime=self.runtime,
            report=self.report,
            pretrained=None if self.pretrained is None else self.pretrained.beginning(),
        )
        return Stage(fitted, statistics, encoding, unit, _prior(task, examples))

    def _refit(self, interval: Interval, calibration: Calibration, limits: Limits) -> tuple[Stage, Calibration]:
        """Fit the recipe again on later rows; return it with its calibration, fitted on what it kept back."""
        splits, target = self.task.splits, self.task.target
        rows = examples_of(self.labels, target, interval, known_by_us=splits.trained_by_us)
        kept = np.zeros(len(rows), dtype=bool)
        if splits.validation is not None:
            kept = kept_back(target, rows, splits.validation, seed=self.seed)
        again = self.stage("refit", rows.select(~kept), None, limits)
        if not kept.any():
            # What was calibrated carries over from the model that validation saw; the prior is the new rows' own.
            return again, replace(calibration, prior=again.prior)
        part = self._part(rows.select(kept))
        raw = self._scorer(again, self._frozen_us()).raw(part)
        return again, fit_calibration(target, raw, part.label, prior=again.prior)

    def _statistics(self, examples: Examples) -> Statistics:
        if self.pretrained is not None:
            # Its weights mean what they mean in its own scales, bins and vocabularies.
            return self.pretrained.statistics
        chosen = np.random.default_rng(self.seed).permutation(len(examples))[:STATISTICS_EXAMPLES]
        parts = (
            examples.select(np.sort(chosen[start : start + STATISTICS_SEEDS]))
            for start in range(0, len(chosen), STATISTICS_SEEDS)
        )
        return statistics_of(self.view, self.task, parts, seed=self.seed)

    def _part(self, examples: Examples) -> Examples:
        """Return at most CALIBRATION_EXAMPLES of them, drawn alike from all so that shares stay."""
        if len(examples) <= CALIBRATION_EXAMPLES:
            return examples
        drawn = np.random.default_rng(self.seed).permutation(len(examples))[:CALIBRATION_EXAMPLES]
        return examples.select(np.sort(drawn))

    def _frozen_us(self) -> int | None:
        """Return where the graph ends for validation: at its start, if the test is asked of a graph that has ended."""
        splits = self.task.splits
        return None if splits.frozen_us is None or splits.validation is None else splits.validation.start_us

    def _scorer(self, stage: Stage, frozen_us: int | None = None) -> Scorer:
        fitted = stage.fitted
        return Scorer(self.view, self.task, fitted.model, stage.encoding, stage.unit, self.runtime.device, frozen_us)


def _prior(task: Task, examples: Examples) -> float:
    """Return what to add to the logits of a model whose batches held more positives than its examples."""
    if task.target.kind is not Kind.BINARY:
        return 0.0
    share, trained = float(examples.label.mean()), rare_share(task.target, examples.label, task.training)
    return 0.0 if share == trained else prior_correction(share, trained)
