"""The stages of one training: fit with early choice on later time, calibrate there, refit on later rows, test.

train rows ─► fit ─► validation chooses the step and calibrates ─► refit rows, as many steps ─► test rows
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from graph_transformer.calibration import Calibration, fit_platt, prior_correction
from graph_transformer.encoding.collate import Encoding
from graph_transformer.encoding.statistics import Statistics, fit_statistics
from graph_transformer.finetune.evaluation import Evaluation, Scorer, test_split, validator
from graph_transformer.finetune.examples import Examples, examples_of
from graph_transformer.finetune.feed import sample
from graph_transformer.finetune.loop import Fitted, Limits, Report, fit, trained_share
from graph_transformer.task import Task
from online_sampler.sampler import Sampler

if TYPE_CHECKING:
    from temporal_graph.view import GraphView

STATISTICS_EXAMPLES = 2048
"""Training examples whose neighborhoods give scales and bins: about a quarter of a million rows at 128 a seed."""
STATISTICS_SEEDS = 256
CALIBRATION_EXAMPLES = 100_000
"""Validation examples that fit two calibration numbers, at most."""


@dataclass(frozen=True)
class Stage:
    """One fitted model with all that is bound to its training rows; `prior` corrects for its sampled negatives."""

    fitted: Fitted
    statistics: Statistics
    encoding: Encoding
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
    report: Report
    seed: int = 0
    budget_s: float | None = None
    device: str = "cpu"

    def run(self) -> Outcome:
        """Go through the stages the task's splits ask for.

        Raises:
            NotEnoughExamples: a split has no labels of one kind that are known in time.
        """
        splits = self.task.splits
        budget_s = self.budget_s if splits.refit is None or self.budget_s is None else self.budget_s / 2
        later, known_by_us = None, splits.trained_by_us
        if splits.validation is not None:
            later = examples_of(self.view, self.task, splits.validation, known_by_us=splits.trained_by_us)
            known_by_us = splits.validation.start_us
        first = examples_of(self.view, self.task, splits.train, known_by_us=known_by_us)
        stage = self._fit("train", first, later, Limits(self.task.training.steps, budget_s))
        calibration, evaluations = Calibration(prior=stage.prior), {}
        if later is not None:
            part = self._part(later)
            calibration = self._calibrate(stage, part)
            evaluations["validation"] = self._scorer(stage).measured(calibration, part)
        if splits.refit is not None:
            rows = examples_of(self.view, self.task, splits.refit, known_by_us=splits.trained_by_us)
            again = self._fit("refit", rows, None, Limits(stage.fitted.step, budget_s))
            # Scale and offset carry over from the model that validation saw; the prior is the new rows' own.
            calibration = replace(calibration, prior=again.prior)
            stage = replace(again, fitted=replace(again.fitted, validations=stage.fitted.validations))
        if splits.test is not None:
            examples = test_split(self.view, self.task, splits.test)
            evaluations["test"] = self._scorer(stage).measured(calibration, examples)
        return Outcome(stage, calibration, evaluations)

    def _fit(self, phase: str, examples: Examples, later: Examples | None, limits: Limits) -> Stage:
        view, task, seed = self.view, self.task, self.seed
        statistics = self._statistics(examples)
        encoding = Encoding(statistics, view.schema, view.strings)
        validate = None
        if later is not None:
            validate = validator(view, task, encoding, later, seed=seed, device=self.device)
        fitted = fit(
            view,
            task,
            examples,
            encoding,
            phase=phase,
            limits=limits,
            validate=validate,
            seed=seed,
            device=self.device,
            report=self.report,
        )
        prior = prior_correction(float(examples.label.mean()), trained_share(examples, task.training))
        return Stage(fitted, statistics, encoding, prior)

    def _statistics(self, examples: Examples) -> Statistics:
        chosen = np.random.default_rng(self.seed).permutation(len(examples))[:STATISTICS_EXAMPLES]
        sampler = Sampler(self.view, self.task.sampling_plan, seed=self.seed)
        neighborhoods = [
            sample(sampler, self.task, examples.select(np.sort(chosen[start : start + STATISTICS_SEEDS])))
            for start in range(0, len(chosen), STATISTICS_SEEDS)
        ]
        schema, strings = self.view.schema, self.view.strings
        return fit_statistics(neighborhoods, schema, strings, seed_table=self.task.table, outcome=self.task.outcome)

    def _part(self, examples: Examples) -> Examples:
        """Return at most CALIBRATION_EXAMPLES of them, drawn alike from both kinds so that their share stays."""
        if len(examples) <= CALIBRATION_EXAMPLES:
            return examples
        drawn = np.random.default_rng(self.seed).permutation(len(examples))[:CALIBRATION_EXAMPLES]
        return examples.select(np.sort(drawn))

    def _scorer(self, stage: Stage) -> Scorer:
        return Scorer(self.view, self.task, stage.fitted.model, stage.encoding, self.device)

    def _calibrate(self, stage: Stage, part: Examples) -> Calibration:
        raw = self._scorer(stage).raw(part)
        scale, offset = fit_platt(raw + stage.prior, part.label.astype(np.float64))
        return Calibration(scale, offset, stage.prior)
