"""The fitting of the towers: a sampled softmax of what came next over all items, corrected for how they were drawn.

questions ─► statistics, identities, start ─► Loop (TowerFed ─► softmax) ─► FittedTowers
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graph_transformer.encoding.encoding import Encoding
from graph_transformer.encoding.statistics import Statistics, fit_statistics
from graph_transformer.errors import NotEnoughExamples, TaskError
from graph_transformer.finetune.choice import Choice
from graph_transformer.finetune.loop import Fitted, Limits, Loop, Report, dice_kept, silent, take_weights
from graph_transformer.finetune.ranking.histories import Interactions
from graph_transformer.finetune.ranking.presence import Presence
from graph_transformer.finetune.ranking.questions import RankingQuestions
from graph_transformer.finetune.ranking.start import svd_start
from graph_transformer.finetune.ranking.tower_feed import ItemPool, TowerFed, TowerFeed, tower_feed
from graph_transformer.finetune.ranking.tower_score import TowerScorer, tower_validator
from graph_transformer.finetune.runtime import Runtime
from graph_transformer.finetune.state import key_of
from graph_transformer.finetune.steps import Steps
from graph_transformer.ranking.asked import offsets
from graph_transformer.ranking.identity import BoundIdentities, Identities, identities_of
from graph_transformer.ranking.model import RankingModel, build_ranking
from graph_transformer.ranking.parts import RankingParts
from graph_transformer.ranking.towers import BoundTowers, TowerBatches
from graph_transformer.task import Task
from online_sampler.sampler import Sampler

if TYPE_CHECKING:
    from temporal_graph.view import GraphView

STATISTICS_QUESTIONS = 2048
STATISTICS_SEEDS = 256
BUDGET_LEAST_S = 0.1
"""Of the steps themselves, where making ready took a budget's time: one step is always taken."""

Int64 = NDArray[np.int64]


@dataclass(frozen=True)
class FittedTowers:
    """Towers with all that is bound to their training questions; `known_by_us` is the time they stand for."""

    task: Task
    fitted: Fitted
    statistics: Statistics
    encoding: Encoding
    identities: Identities
    known_by_us: int
    device: str = "cpu"

    @property
    def model(self) -> RankingModel:
        """The kept weights, in evaluation mode."""
        assert isinstance(self.fitted.model, RankingModel)
        return self.fitted.model

    def bound(self, view: GraphView) -> BoundTowers:
        """Return the towers on the graph they were fitted on."""
        identities = BoundIdentities(self.identities, view)
        return BoundTowers(self.model, self.encoding, identities, view, self.task, device=self.device)

    def parts(self) -> RankingParts:
        """Return what a checkpoint needs beside weights and statistics; no fusion."""
        return RankingParts(self.identities)


def fit_towers(
    view: GraphView,
    task: Task,
    questions: RankingQuestions,
    *,
    later: RankingQuestions | None = None,
    known_by_us: int | None = None,
    phase: str = "towers",
    limits: Limits | None = None,
    seed: int = 0,
    runtime: Runtime | None = None,
    report: Report = silent,
    pretrained: Mapping[str, Tensor] | None = None,
) -> FittedTowers:
    """Fit new towers to questions; the step is chosen on `later` ones where there are any.

    A budget of `limits` counts from here: what is made ready before the first step takes its part of it.

    Nothing that was not known by `known_by_us` is learned from: by default the time when the last of the questions'
    items were known. Items without an interaction by then have no identity. `pretrained` weights replace the new
    model's where name and shape agree. Equal seeds on one machine and thread count give equal weights.

    Raises:
        NotEnoughExamples: no question has an item that existed at its cut-off.
        TaskError: the task is no ranking.
        StateMismatch, TrainingDiverged: as `finetune.loop.fit`.
    """
    began_s = time.monotonic()
    runtime = Runtime() if runtime is None else runtime
    ranked, training = task.target.ranked, task.training
    if ranked is None:
        raise TaskError("kind", "ranking", task.target.kind.value)
    known_by = int(questions.known_time_us.max(initial=0)) if known_by_us is None else known_by_us
    presence = Presence(view, ranked.items)
    asked = answerable(questions.known_by(known_by), presence)
    if not len(asked):
        raise NotEnoughExamples(f"{ranked.interactions}: no question with an item that existed when it was asked")
    interactions = Interactions.of(view, ranked)
    learned = interactions.visible(known_by)
    identities = identities_of(view, ranked.items, learned.item)
    bound = BoundIdentities(identities, view)
    encoding = Encoding(_statistics(view, task, asked, seed), view.schema, view.strings, identified=ranked.items)
    with dice_kept(runtime.device):
        torch.manual_seed(seed)
        model = build_ranking(encoding, task, identities.count)
    _begin(model, task, learned, bound, pretrained)
    pool = ItemPool.of(presence.first_us, asked)
    feed = TowerFeed(asked, pool, task.ranking.negatives, runtime.ranks, seed)
    batches = TowerBatches(view, task, encoding, bound)
    scorer = TowerScorer(task, batches, interactions, presence, pool, runtime.device)
    limits = _limits_left(Limits(training.steps) if limits is None else limits, time.monotonic() - began_s)
    fitted = Loop(
        steps=Steps(model, _loss_on(runtime.device), training, seed=seed, runtime=runtime),
        source=lambda first: tower_feed(view, task, feed, encoding, bound, samplers=runtime.samplers, first=first),
        training=training,
        limits=limits,
        phase=phase,
        key=key_of(
            {
                "task": task.to_dict(), "phase": phase, "steps": limits.steps, "seed": seed,
                "ranks": runtime.ranks.size, "statistics": encoding.statistics.to_dict(),
            },
            {"user": asked.user, "cutoff": asked.cutoff_time_us, "item": asked.item, "offset": asked.item_offset},
        ),
        runtime=runtime,
        choice=_choice(scorer, view, later, seed),
        report=report,
    ).run()  # fmt: skip
    return FittedTowers(task, fitted, encoding.statistics, encoding, identities, known_by, runtime.device)


def softmax_loss(users: Tensor, items: Tensor, correction: Tensor, hidden: Tensor) -> Tensor:
    """Return the mean loss of vectors float32[m, B, d] and float32[m, C, d], item b the positive of user b.

    Minus the log of the positive's share in a softmax over it and the other items, each divided by how often it was
    expected among them (`correction` float32[C], its log): what a softmax over all items would be, on average.
    `hidden` bool[B, C]: items that are no negative of a user.
    """
    own = (users * items[:, : users.shape[1]]).sum(dim=2, keepdim=True)
    other = torch.baddbmm(-correction.view(1, 1, -1), users, items.transpose(1, 2))
    other = other.masked_fill(hidden, -torch.inf)
    return (torch.logsumexp(torch.cat([own, other], dim=2), dim=2) - own.squeeze(2)).mean()


def answerable(questions: RankingQuestions, presence: Presence) -> RankingQuestions:
    """Return the questions with the items that existed at their cut-offs; those without any are left out."""
    owner = questions.question
    there = presence.at(questions.item, questions.cutoff_time_us[owner])
    if there.all():
        return questions
    count = np.bincount(owner[there], minlength=len(questions))
    return replace(questions, item_offset=offsets(count), item=questions.item[there]).select(count > 0)


def _begin(
    model: RankingModel,
    task: Task,
    learned: Interactions,
    bound: BoundIdentities,
    pretrained: Mapping[str, Tensor] | None,
) -> None:
    """Put identities where the task says that they begin, and pre-trained weights where there are any."""
    if task.ranking.start == "svd":
        codes, width = bound.codes(learned.item), task.model.width
        model.start_at(svd_start(learned, codes, bound.identities.count, width, task.ranking))
    if pretrained is not None:
        take_weights(model, pretrained)


def _limits_left(limits: Limits, spent_s: float) -> Limits:
    """Return the limits with what is left of their budget."""
    if limits.budget_s is None:
        return limits
    return replace(limits, budget_s=max(limits.budget_s - spent_s, BUDGET_LEAST_S))


def _choice(scorer: TowerScorer, view: GraphView, later: RankingQuestions | None, seed: int) -> Choice | None:
    if later is None or not len(later):
        return None
    return Choice(tower_validator(scorer, view, later, seed=seed), scorer.task.training.patience, [])


def _loss_on(device: str) -> Callable[[nn.Module, TowerFed], Tensor]:
    def loss(model: nn.Module, fed: TowerFed) -> Tensor:
        users, items = model(fed.users.to(device), fed.items.to(device))
        return softmax_loss(users, items, fed.correction.to(device), fed.hidden.to(device)) * fed.weight

    return loss


def _statistics(view: GraphView, task: Task, asked: RankingQuestions, seed: int) -> Statistics:
    chosen = np.sort(np.random.default_rng(seed).permutation(len(asked))[:STATISTICS_QUESTIONS])
    sampler = Sampler(view, task.sampling_plan, seed=seed)
    neighborhoods = []
    for start in range(0, len(chosen), STATISTICS_SEEDS):
        part = chosen[start : start + STATISTICS_SEEDS]
        users, cutoff_us = asked.user[part], asked.cutoff_time_us[part]
        neighborhoods.append(sampler.sample_rows(task.table, users, cutoff_us, as_of=True))
    encoder = task.model.text_encoder
    return fit_statistics(neighborhoods, view.schema, view.strings, target=task.target, text_encoder=encoder)
