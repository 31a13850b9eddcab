"""Several validation cuts of one task: its training and validation moved back in time, none later than its own.

splits ─► Cut, Cut, Cut (train, validation) ─► CutFit: statistics once per plan, then one fit and its best look
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from graph_transformer.encoding.collate import Encoding
from graph_transformer.errors import NotEnoughExamples, TaskError
from graph_transformer.finetune.degrees import draw
from graph_transformer.finetune.evaluation import Scorer, validator
from graph_transformer.finetune.examples import Examples, Labels, examples_of
from graph_transformer.finetune.feed import statistics_of
from graph_transformer.finetune.loop import Limits, Report, fit, silent
from graph_transformer.finetune.runtime import Runtime
from graph_transformer.finetune.stages import STATISTICS_EXAMPLES, STATISTICS_SEEDS
from graph_transformer.heads import fit_unit
from graph_transformer.splits import Interval, Splits
from graph_transformer.target import Target
from graph_transformer.task import Task
from online_sampler.plan import SamplingPlan

if TYPE_CHECKING:
    from temporal_graph.view import GraphView

CUTS = 3
"""One cut misleads: on two tasks the setting that won a single validation lost on later time."""
SHORTEST = 0.5
"""A cut whose training is shorter than this part of the task's own answers another question."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One training and one later validation; labels of the first are those known when the second starts."""

    train: Interval
    validation: Interval


@dataclass(frozen=True, slots=True)
class CutExamples:
    """The examples of a cut."""

    cut: Cut
    train: Examples
    validation: Examples


def cuts_of(splits: Splits, first_us: int, *, count: int = CUTS) -> list[Cut]:
    """Return at most `count` cuts, the newest first, with validations one after the other back from the task's end.

    `first_us` is the time of the first label: training keeps its length where labels go back so far. Where the task's
    own validation is too long to be moved back by its whole length, its halves are used.

    Raises:
        TaskError: the task has no validation split.
    """
    if splits.validation is None:
        raise TaskError("splits.validation", "an interval to choose on", None)
    length = splits.validation.end_us - splits.validation.start_us
    whole = _back(splits, first_us, length, count)
    return whole if len(whole) > 1 else _back(splits, first_us, length // 2, count)


def _back(splits: Splits, first_us: int, length_us: int, count: int) -> list[Cut]:
    assert splits.validation is not None
    train, validation = splits.train, splits.validation
    gap_us, own_us = validation.start_us - train.end_us, train.end_us - train.start_us
    cuts = []
    for number in range(count):
        start_us = validation.end_us - (number + 1) * length_us
        end_us = start_us - gap_us
        begin_us = max(min(first_us, train.start_us), end_us - own_us)
        if end_us - begin_us < SHORTEST * own_us:
            break
        cuts.append(Cut(Interval(begin_us, end_us), Interval(start_us, start_us + length_us)))
    return cuts


def cut_examples(task: Task, labels: Labels, *, count: int = CUTS) -> list[CutExamples]:
    """Return the cuts that have labels of both kinds on both sides, the newest first.

    Nothing of the test is in them: neither its times, nor labels known only after the model's own time.

    Raises:
        TaskError: the task has no validation split.
        NotEnoughExamples: the newest cut, the task's own, lacks labels.
    """
    splits, known_by_us = task.splits, task.splits.trained_by_us
    times = labels.known(known_by_us).time_us
    found: list[CutExamples] = []
    for cut in cuts_of(splits, int(times.min(initial=splits.train.start_us)), count=count):
        try:
            train = examples_of(labels, task.target, cut.train, known_by_us=cut.validation.start_us)
            validation = examples_of(labels, task.target, cut.validation, known_by_us=known_by_us)
        except NotEnoughExamples:
            if not found:
                raise
            break
        found.append(CutExamples(cut, train, validation))
    return found


@dataclass
class CutFit:
    """Fits tasks that differ in their plans on a cut; statistics are kept for plans that sample the same."""

    view: GraphView
    target: Target
    seed: int = 0
    runtime: Runtime = field(default_factory=Runtime)
    report: Report = silent
    kept: dict[tuple[Cut, SamplingPlan], Encoding] = field(default_factory=dict)

    def run(self, task: Task, part: CutExamples, *, phase: str = "train", budget_s: float | None = None) -> float:
        """Return the validated metric of the kept weights.

        A task whose test is asked of a graph that has ended (`frozen`) is validated on one that ended when the
        validation starts.

        Raises:
            TrainingDiverged: the loss is no number any more.
        """
        encoding = self._encoding(task, part)
        unit = fit_unit(task.target, part.train.label, task.training.transform)
        frozen_us = part.cut.validation.start_us if task.splits.frozen_us is not None else None
        scorer = Scorer(self.view, task, None, encoding, unit, self.runtime.device, frozen_us)  # type: ignore[arg-type]  # models follow
        fitted = fit(
            self.view,
            task,
            part.train,
            encoding,
            phase=phase,
            limits=Limits(task.training.steps, budget_s),
            unit=unit,
            validator=validator(scorer, part.validation, seed=self.seed),
            seed=self.seed,
            runtime=self.runtime,
            report=self.report,
        )
        return dict(fitted.validations)[fitted.step]

    def _encoding(self, task: Task, part: CutExamples) -> Encoding:
        key = (part.cut, task.sampling_plan)
        if key not in self.kept:
            view, asked = self.view, draw(part.train, STATISTICS_EXAMPLES, seed=self.seed)
            parts = (
                asked.select(np.arange(start, min(start + STATISTICS_SEEDS, len(asked))))
                for start in range(0, len(asked), STATISTICS_SEEDS)
            )
            statistics = statistics_of(view, task, parts, seed=self.seed)
            self.kept[key] = Encoding(statistics, view.schema, view.strings)
        return self.kept[key]
