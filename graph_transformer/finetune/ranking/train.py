"""The training of a ranking: towers, the fusion on questions they did not learn from, and figures of all of it.

spans ─► towers before the fusion's span ─► lists ─► fusion, chosen on validation with towers of its time
                                            └─► the final towers, the fusion fitted to all lists ─► OUT_DIR
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graph_transformer.calibration import Calibration
from graph_transformer.checkpoint import Checkpoint
from graph_transformer.errors import NotEnoughExamples, TaskError
from graph_transformer.finetune.loop import Limits, Report, silent
from graph_transformer.finetune.ranking.asking import KeptTowers
from graph_transformer.finetune.ranking.evaluation import (
    Judged,
    answers,
    fusion_lists,
    graph_lists,
    wide_recall,
)
from graph_transformer.finetune.ranking.floors import measure_floors
from graph_transformer.finetune.ranking.fusion_fit import LISTS_MIN, FusionLists, Judge, fit_fusion
from graph_transformer.finetune.ranking.histories import Interactions
from graph_transformer.finetune.ranking.metrics import LISTED, Measured, RankingMetrics
from graph_transformer.finetune.ranking.presence import Presence
from graph_transformer.finetune.ranking.questions import RankingQuestions
from graph_transformer.finetune.ranking.result import RankingResult, metrics_to_dict
from graph_transformer.finetune.ranking.spans import Span, Spans
from graph_transformer.finetune.ranking.time_budget import (
    AGAIN,
    EARLIER,
    FINAL,
    FUSIONS,
    JUDGED,
    LISTS,
    MORE_LISTS,
    TOWERS,
    TimeBudget,
)
from graph_transformer.finetune.ranking.tower import FittedTowers, fit_towers
from graph_transformer.heads import Unit
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.ranking.fusion import Fusion
from graph_transformer.ranking.scoring import Scorer
from graph_transformer.splits import Interval
from graph_transformer.target import Ranked
from graph_transformer.task import Task

if TYPE_CHECKING:
    from temporal_graph.schema import Schema
    from temporal_graph.view import GraphView

MEMBERS = 2
"""Members of the fusion: what its draw of weights makes of one is up to .001 of NDCG@10; more lists bring more."""
WIDE = 500
"""Candidates of each walk, and near ones, that recall is told for beside the task's own numbers."""


@dataclass(frozen=True)
class Figures:
    """What was measured, by split: metrics by ranker, recall by source of candidates."""

    metrics: dict[str, Mapping[str, RankingMetrics]] = field(default_factory=dict)
    recall: dict[str, Mapping[str, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, as a checkpoint keeps them."""
        recall = {split: dict(shares) for split, shares in self.recall.items()}
        return metrics_to_dict(self.metrics) | {"recall": recall}


@dataclass(frozen=True)
class Fusions:
    """The fusion, the one that knows no towers, how many steps each took, and what they were fitted to."""

    whole: Fusion
    graph: Fusion
    steps: int
    graph_steps: int
    lists: FusionLists


def train(
    view: GraphView,
    schema: Schema,
    task: Task,
    output: Path,
    *,
    questions: RankingQuestions,
    budget_s: float | None = None,
    seed: int = 0,
    progress: Report = silent,
    floors: bool = True,
) -> RankingResult:
    """Fit a ranking to questions whose items are known; save it, with figures of it, its parts and floors, in `output`.

    `budget_s` bounds the seconds of fitting: towers take fewer steps, and the fusion sees fewer lists; what was cut is
    in the result. Measuring comes on top. Equal seeds on one machine and thread count give equal weights, unless there
    is a budget.

    Raises:
        TaskError, SchemaError, PlanError: the task does not fit the schema, or its spans leave nothing to train on.
        NotEnoughExamples: too few questions, or none of their items are among the candidates.
        TrainingDiverged: a loss is no number any more.
        OSError: `output` can not be written.
    """
    started_s = time.monotonic()
    task.check(schema)
    ranked = task.target.ranked
    if ranked is None:
        raise TaskError("kind", "ranking", task.target.kind.value)
    training = Training(view, task, ranked, questions, budget_s=budget_s, seed=seed, progress=progress, floors=floors)
    figures = Figures()
    towers, fusions = training.validated(figures)
    towers, fusions = training.final(towers, fusions)
    if task.splits.test is not None:
        training.measure("test", task.splits.test, towers, fusions, figures)
    version = _checkpoint(schema, task, towers, fusions.whole, figures).save(output)
    seconds = time.monotonic() - started_s
    return RankingResult(output, version, task, figures.metrics, figures.recall, seconds, tuple(training.time.cuts))


class Training:
    """One training of a ranking: its spans, and what is fitted and measured on them."""

    def __init__(
        self,
        view: GraphView,
        task: Task,
        ranked: Ranked,
        questions: RankingQuestions,
        *,
        seed: int,
        progress: Report,
        floors: bool,
        budget_s: float | None = None,
    ) -> None:
        self.view, self.task, self.ranked, self.questions = view, task, ranked, questions
        self.seed, self.progress, self.floors = seed, progress, floors
        self.spans = Spans.of(task.splits, task.ranking.fusion_span_us)
        first = (
            (EARLIER, LISTS, FUSIONS) if self.spans.validation is None else (TOWERS, EARLIER, LISTS, JUDGED, FUSIONS)
        )
        last = (FINAL, MORE_LISTS, AGAIN) if self.spans.validation is not None else (FINAL,)
        self.time = TimeBudget(budget_s, (*first, *last) if self.spans.refits else first)
        self.interactions = Interactions.of(view, ranked)
        self.presence = Presence(view, ranked.items)

    def validated(self, figures: Figures) -> tuple[FittedTowers | None, Fusions]:
        """Fit what is known before validation and measure it there; None where there is no validation split."""
        spans, towers = self.spans, None
        if spans.validation is not None:
            later = self._asked(spans.validation.interval)
            towers = self._towers(TOWERS, spans.validation.known_by_us, later=later)
        earlier = self._towers(EARLIER, spans.fusion.known_by_us, after=towers)
        lists = self._lists(LISTS, self.scorer(earlier, spans.fusion), self._asked(spans.fusion.interval), self.seed)
        if len(lists) < LISTS_MIN:
            raise NotEnoughExamples(
                f"{len(lists)} of the questions in the fusion's span (ranking.fusion_span) have an item among their "
                f"candidates: {LISTS_MIN} are needed"
            )
        if towers is None or spans.validation is None:
            return None, self._fusions(lists, None)
        with self.time.phase(JUDGED) as most_s:
            judged = Judged(
                self.view,
                self.ranked,
                self.scorer(towers, spans.validation),
                self._asked(spans.validation.interval),
                top=self.ranked.top,
                seed=self.seed,
                most_s=most_s,
                told=partial(self.time.told, JUDGED, unit="questions"),
            )
        fusions = self._fusions(lists, judged)
        self.measure("validation", spans.validation.interval, towers, fusions, figures)
        return towers, fusions

    def final(self, towers: FittedTowers | None, fusions: Fusions) -> tuple[FittedTowers, Fusions]:
        """Fit the towers to all that may be known, and the fusion to the validation's lists too where that is so."""
        spans = self.spans
        if towers is not None and not spans.refits:
            return towers, fusions
        last = self._towers(FINAL, spans.final_by_us, after=towers)
        if towers is None or spans.validation is None:
            return last, fusions
        newest = self._asked(spans.validation.interval).known_by(spans.final_by_us)
        if not len(newest):
            return last, fusions
        scorer = self.scorer(towers, spans.validation)
        more = self._lists(MORE_LISTS, scorer, newest, self.seed + 1)
        return last, self._refitted(fusions, FusionLists.joined([fusions.lists, more]))

    def measure(self, split: str, interval: Interval, towers: FittedTowers, fusions: Fusions, figures: Figures) -> None:
        """Measure the ranking, its parts and the floors on a split."""
        questions = self._asked(interval)
        if not len(questions):
            raise TaskError(f"splits.{split}", "an interval in which users are asked", interval)
        span = Span(interval, interval.start_us - self.spans.lag_us)
        scorer = self.scorer(towers, span, fusions.whole)
        top = self.ranked.top
        found = answers(self.view, self.ranked, scorer, questions, graph=fusions.graph, width=max(LISTED, top))
        measured = self._measured(interval, questions)
        own = {name: measured.measure(lists, top) for name, lists in found.lists.items()}
        if split == "validation" and self.time.limited:  # what chooses nothing waits for the test
            figures.metrics[split], figures.recall[split] = own, found.recall
            return
        config = self.task.ranking
        config = replace(config, co_visit=WIDE, far=WIDE if config.far else 0, nearest=WIDE)
        wide = wide_recall(self.view, self.ranked, self.scorer(towers, span, config=config), questions, seed=self.seed)
        figures.metrics[split] = own | self._floors(split, measured)
        figures.recall[split] = {**found.recall, f"union, {WIDE} of each": wide}

    def scorer(
        self, towers: FittedTowers, span: Span, fusion: Fusion | None = None, *, config: RankingConfig | None = None
    ) -> Scorer:
        """Return a scorer for a span's questions, items as of its begin; `config` for other candidates."""
        as_of_us = span.known_by_us
        first_us = self.presence.first_us
        kept = KeptTowers(towers.bound(self.view), lambda row: first_us[row], as_of_us)
        task = self.task if config is None else replace(self.task, ranking=config)
        return Scorer(self.view, task, towers=kept, fusion=fusion, as_of_us=as_of_us)

    def _asked(self, interval: Interval) -> RankingQuestions:
        return self.spans.asked(self.questions, interval, self.view, self.ranked)

    def _towers(
        self,
        phase: str,
        known_by_us: int,
        *,
        later: RankingQuestions | None = None,
        after: FittedTowers | None = None,
    ) -> FittedTowers:
        """Fit towers; `after` others for the steps that were chosen of these, on the same schedule."""
        task, began_s = self.task if after is None else after.task, time.monotonic()
        steps = task.training.steps if after is None else max(1, after.fitted.step)
        with self.time.phase(phase) as most_s:
            found = fit_towers(
                self.view,
                task,
                self.spans.learned(self.questions, known_by_us),
                later=later,
                known_by_us=known_by_us,
                phase=phase,
                limits=Limits(steps, most_s),
                seed=self.seed,
                report=self.progress,
            )
        taken = found.fitted.losses[-1][0]
        if most_s is None or time.monotonic() - began_s < most_s or taken == steps:
            return found
        self.time.told(phase, taken, steps, "steps")
        return replace(found, task=replace(task, training=replace(task.training, steps=taken)))

    def _lists(self, phase: str, scorer: Scorer, questions: RankingQuestions, seed: int) -> FusionLists:
        told = partial(self.time.told, phase, unit="questions")
        with self.time.phase(phase) as most_s:
            return fusion_lists(self.view, self.ranked, scorer, questions, seed=seed, most_s=most_s, told=told)

    def _fusions(self, lists: FusionLists, judged: Judged | None) -> Fusions:
        """Fit both fusions, each for as many steps as validation likes best."""
        judge = None if judged is None else judged.ndcg
        with self.time.phase(FUSIONS) as most_s:
            fit = self._fit(FUSIONS, judge, most_s)
            whole, steps = fit(lists)
            graph, graph_steps = fit(graph_lists(lists))
        return Fusions(whole, graph, steps, graph_steps, lists)

    def _refitted(self, fusions: Fusions, lists: FusionLists) -> Fusions:
        """Fit both again to more lists, for as many passes over them."""
        ratio = len(lists) / len(fusions.lists)
        steps, graph_steps = round(fusions.steps * ratio), round(fusions.graph_steps * ratio)
        with self.time.phase(AGAIN) as most_s:
            fit = self._fit(AGAIN, None, most_s)
            whole, _ = fit(lists, steps=steps)
            graph, _ = fit(graph_lists(lists), steps=graph_steps)
        return Fusions(whole, graph, steps, graph_steps, lists)

    def _fit(self, phase: str, judge: Judge | None, most_s: float | None) -> Callable[..., tuple[Fusion, int]]:
        """Return what fits each of two fusions, in half of the time each."""
        return partial(
            fit_fusion,
            config=self.task.ranking,
            members=MEMBERS,
            judge=judge,
            seed=self.seed,
            most_s=None if most_s is None else most_s / 2,
            told=partial(self.time.told, phase, unit="steps"),
        )

    def _measured(self, interval: Interval, questions: RankingQuestions) -> Measured:
        return Measured.of(
            questions,
            self.interactions,
            self.presence,
            cold_from_us=interval.start_us,
            new_within_us=self.task.ranking.new_within_us,
        )

    def _floors(self, split: str, measured: Measured) -> dict[str, RankingMetrics]:
        if not self.floors:
            return {}
        validation = None
        if split == "test" and self.spans.validation is not None:
            interval = self.spans.validation.interval
            validation = self._measured(interval, self._asked(interval))
        exclude_seen = self.task.ranking.exclude_seen
        return measure_floors(measured, k=self.ranked.top, exclude_seen=exclude_seen, validation=validation)


def _checkpoint(schema: Schema, task: Task, towers: FittedTowers, fusion: Fusion, figures: Figures) -> Checkpoint:
    weights = {name: value.detach().cpu() for name, value in towers.model.state_dict().items()}
    weights |= {f"fusion.{name}": value.detach().cpu() for name, value in fusion.state_dict().items()}
    return Checkpoint(
        task=task,
        fingerprint=schema.fingerprint(towers.statistics.tables()),
        statistics=towers.statistics,
        model=task.model,
        unit=Unit(),
        calibration=Calibration.of(task.target),
        weights=weights,
        metrics=figures.to_dict(),
        ranking=replace(towers.parts(), fusion=fusion.to_dict()),
    )
