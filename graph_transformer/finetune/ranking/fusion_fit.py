"""The fitting of the fusion: lists of candidates with the right answers among them, and a softmax over each list.

    Scorer over past questions ─► FusionLists ─► listwise softmax, all members at once ─► Fusion

The lists are of questions that the towers did not learn from: what their scores are worth is seen as it will be later.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graph_transformer.errors import NotEnoughExamples, TrainingDiverged
from graph_transformer.ranking.asked import offsets, owners, taken
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.ranking.fusion import Fusion, FusionConfig

Int64 = NDArray[np.int64]
Floats = NDArray[np.float16]
Mask = NDArray[np.bool_]

LISTS_MIN = 10
"""Fewer lists with a right answer say nothing about forty features."""
LISTS_MAX = 20_000
"""More lists no longer helped, and each holds hundreds of lines of forty numbers."""
OTHERS_MAX = 300
"""Wrong candidates of a list that are learned from, drawn alike: all of them were no better."""
BATCH = 64
PASSES, STEPS_MIN = 6, 100
"""Times that every list is seen, as far as the task's steps allow it: more no longer helped."""
RATE, DECAY = 2e-3, 1e-3
WARM_UP = 0.1
SPREAD_MIN = 1e-3

Judge = Callable[[Fusion], float]
Told = Callable[[int, int], None]
"""Hears how much there was time for, and of how much."""


def untold(done: int, wanted: int) -> None:
    """Hear nothing."""


@dataclass(frozen=True, slots=True)
class FusionLists:
    """n lists of candidates: features float16[m, F] by names, the lines of list i are offset[i] : offset[i + 1].

    right bool[m]: candidates that are answers; each list has at least one.
    """

    names: tuple[str, ...]
    offset: Int64
    features: Floats
    right: Mask

    def __len__(self) -> int:
        """The number of lists."""
        return len(self.offset) - 1

    @classmethod
    def joined(cls, parts: Sequence[FusionLists]) -> FusionLists:
        """Return the lists of all parts, which have the same features."""
        count = np.concatenate([np.diff(part.offset) for part in parts])
        features = np.concatenate([part.features for part in parts])
        return cls(parts[0].names, offsets(count), features, np.concatenate([part.right for part in parts]))


def learned_lists(
    names: tuple[str, ...], offset: Int64, features: NDArray[np.float32], right: Mask, random: np.random.Generator
) -> FusionLists:
    """Return what is learned from scored candidates: lists with a right one, and at most OTHERS_MAX wrong ones each."""
    owner = owners(offset)
    some = np.bincount(owner[right], minlength=len(offset) - 1) > 0
    draw = np.where(right, -1.0, random.random(len(right)))
    order = np.lexsort((draw, owner))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - offset[:-1][owner[order]]
    answers = np.bincount(owner[right], minlength=len(offset) - 1)
    kept = some[owner] & (rank < (answers + OTHERS_MAX)[owner])
    count = np.bincount(owner[kept], minlength=len(offset) - 1)[some]
    return FusionLists(names, offsets(count), features[kept].astype(np.float16), right[kept])


def fit_fusion(
    lists: FusionLists,
    config: RankingConfig,
    *,
    members: int,
    steps: int | None = None,
    judge: Judge | None = None,
    looks: int = 3,
    seed: int = 0,
    most_s: float | None = None,
    told: Told = untold,
) -> tuple[Fusion, int]:
    """Return a fusion fitted to lists and for how many steps; of `looks` looks the one that `judge` likes best.

    `steps` defaults to `steps_wanted`; they are fewer, and the schedule shorter, where `most_s` seconds do not suffice:
    `told` hears how many were taken, and of how many.
    Equal seeds on one machine and thread count give equal weights, unless time ends them.

    Raises:
        NotEnoughExamples: fewer than LISTS_MIN lists.
        TrainingDiverged: the loss is no number any more.
    """
    if len(lists) < LISTS_MIN:
        raise NotEnoughExamples(f"{len(lists)} lists of candidates hold a right answer: {LISTS_MIN} are needed")
    total = steps_wanted(lists, config) if steps is None else steps
    clock = _Clock(total, most_s)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fusion = Fusion(_shape(lists, config, members))
        optimizer = torch.optim.AdamW(fusion.parameters(), lr=RATE, weight_decay=DECAY)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, clock.share)
        best: tuple[float, int, dict[str, Tensor]] | None = None
        at = [round(total * (look + 1) / looks) for look in range(looks)]
        step = 0
        for step, chosen in enumerate(_drawn(len(lists), total, seed), start=1):
            fusion.train()
            loss = _loss(fusion, lists, chosen)
            if not torch.isfinite(loss):
                raise TrainingDiverged(f"the loss of the fusion is {loss.item()} at step {step}")
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            reached = clock.reached(step)
            if judge is not None and at and reached >= at[0]:
                at = [each for each in at if each > reached]
                value = judge(fusion.eval())
                if best is None or value > best[0]:
                    best = (value, step, {name: kept.clone() for name, kept in fusion.state_dict().items()})
            if reached >= total:
                break
    told(step, total)
    if best is not None:
        fusion.load_state_dict(best[2])
        step = best[1]
    return fusion.eval(), step


def steps_wanted(lists: FusionLists, config: RankingConfig) -> int:
    """Return the steps of PASSES passes over the lists, the task's number at most."""
    return min(config.fusion_steps, max(STEPS_MIN, PASSES * len(lists) // BATCH))


def _shape(lists: FusionLists, config: RankingConfig, members: int) -> FusionConfig:
    """Return the fusion's shape, with each feature's mean and spread over candidates."""
    every = max(1, len(lists.features) // 200_000)
    seen = lists.features[::every].astype(np.float64)
    mean, spread = seen.mean(axis=0), np.maximum(seen.std(axis=0), SPREAD_MIN)
    return FusionConfig(
        lists.names,
        tuple(round(float(value), 6) for value in mean),
        tuple(round(float(value), 6) for value in spread),
        config.fusion_width,
        members,
        config.fusion_dropout,
    )


class _Clock:
    """How far a fitting of `total` steps is: by its steps or, where that is farther, by its time."""

    def __init__(self, total: int, most_s: float | None) -> None:
        self._total, self._most_s, self._began_s = total, most_s, time.monotonic()

    def reached(self, step: int) -> int:
        """Return the step of the schedule that is reached after `step` steps."""
        if self._most_s is None:
            return step
        spent = (time.monotonic() - self._began_s) / max(self._most_s, 1e-9)
        return max(step, int(min(1.0, spent) * self._total))

    def share(self, step: int) -> float:
        """Return the share of the rate at a step."""
        return _share(self.reached(step), self._total)


def _share(step: int, total: int) -> float:
    """Return the share of the rate at a step: rising in a line, then falling along a cosine."""
    warm = max(1.0, total * WARM_UP)
    if step < warm:
        return (step + 1) / warm if step + 1 < warm else 1.0
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warm) / max(1.0, total - warm))))


def _drawn(lists: int, steps: int, seed: int) -> Iterable[Int64]:
    """Yield the lists of each step: all in random order, again and again."""
    random = np.random.default_rng(seed)
    size = min(BATCH, lists)
    left = np.zeros(0, dtype=np.int64)
    for _ in range(steps):
        if len(left) < size:
            left = random.permutation(lists)
        yield left[:size]
        left = left[size:]


def _loss(fusion: Fusion, lists: FusionLists, chosen: Int64) -> Tensor:
    """Return the mean over members and lists of minus the log of the answers' shares in a softmax over the list."""
    count, at = taken(lists.offset, chosen)
    score = fusion.members(torch.from_numpy(lists.features[at].astype(np.float32)))
    owner = np.repeat(np.arange(len(chosen)), count)
    column = np.arange(len(at)) - np.repeat(np.cumsum(count) - count, count)
    padded = score.new_full((score.shape[0], len(chosen), int(count.max())), -torch.inf)
    padded[:, torch.from_numpy(owner), torch.from_numpy(column)] = score
    share = torch.log_softmax(padded, dim=2)
    right = np.flatnonzero(lists.right[at])
    answers = np.bincount(owner[right], minlength=len(chosen))
    weight = torch.from_numpy((1.0 / answers[owner[right]] / len(chosen)).astype(np.float32))
    found = share[:, torch.from_numpy(owner[right]), torch.from_numpy(column[right])]
    loss: Tensor = -(found * weight).sum(dim=1).mean()
    return loss
