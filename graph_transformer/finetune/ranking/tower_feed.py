"""Batches for the towers: users at their cut-offs, the item that came next, and items that did not.

questions ─► a positive each ─► users' neighborhoods ─────────────┐
items drawn alike, and the positives of the others ─► own rows ───┴─► TowerFed

The items of a batch are read once for all its questions, each as it was at some cut-off of the batch. It counts as
a negative only of questions that could have seen all that is shown of it: none of an item that did not exist yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from graph_transformer.encoding.batch import Batch
from graph_transformer.encoding.encoding import Encoding
from graph_transformer.finetune.ahead import Ahead
from graph_transformer.finetune.feed import rounds
from graph_transformer.finetune.ranking.questions import RankingQuestions
from graph_transformer.finetune.ranks import Ranks
from graph_transformer.ranking.asked import spans
from graph_transformer.ranking.identity import BoundIdentities
from graph_transformer.ranking.towers import TowerBatches
from graph_transformer.task import Task
from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US

if TYPE_CHECKING:
    from online_sampler.neighborhood import Neighborhood
    from temporal_graph.view import GraphView

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TowerFed:
    """One step's input: B users and C items, of which item b is the positive of user b.

    correction float32[C]: log of how often an item is expected among the others' C - 1, by which a softmax over
    drawn items is one over all. hidden bool[B, C]: items that are no negative of a user. weight: what the mean loss
    counts among those of several processes.
    """

    users: Batch
    items: Batch
    correction: torch.Tensor
    hidden: torch.Tensor
    weight: float = 1.0


@dataclass(frozen=True)
class ItemPool:
    """Items that negatives are drawn from: rows by the time they were first visible; the share of each as a positive.

    row, first_us int64 [n], by first_us; share float64 [rows].
    """

    row: Int64
    first_us: Int64
    share: NDArray[np.float64]

    @classmethod
    def of(cls, first_us: Int64, questions: RankingQuestions) -> ItemPool:
        """Build from when each row was first visible, int64 [rows] (TIME_MAX_US: never), and training questions."""
        row = np.argsort(first_us, kind="stable")
        row = row[first_us[row] < TIME_MAX_US]
        own = np.repeat(1.0 / np.maximum(np.diff(questions.item_offset), 1), np.diff(questions.item_offset))
        share = np.bincount(questions.item, own, minlength=len(first_us)) / max(1, len(questions))
        return cls(row, first_us[row], share)

    def drawn(self, count: int, cutoff_time_us: Int64, random: np.random.Generator) -> tuple[Int64, Int64, float]:
        """Return (rows int64 [m], the cut-offs they are shown at int64 [m], how often each is expected).

        Drawn alike from those visible at the newest of the cut-offs; all of them where `count` allows it. An item is
        shown at a cut-off of the batch drawn for it, at the newest where it did not exist then.
        """
        newest = int(cutoff_time_us.max())
        visible = int(np.searchsorted(self.first_us, newest, side="right"))
        if count >= visible:
            place, expected = np.arange(visible), 1.0
        else:
            place, expected = random.integers(0, visible, count), count / visible
        shown_us = random.choice(cutoff_time_us, len(place))
        return self.row[place], np.where(self.first_us[place] <= shown_us, shown_us, newest), expected


@dataclass(frozen=True)
class TowerFeed:
    """Makes the input of steps; `made` may be called from several threads, each with batches of its own."""

    questions: RankingQuestions
    pool: ItemPool
    negatives: int
    ranks: Ranks
    seed: int

    def made(self, batches: TowerBatches, step: int, chosen: Int64) -> TowerFed:
        """Return the input of a step: its questions, and a random positive of each."""
        asked = self.questions.select(self.ranks.part(chosen))
        random = np.random.default_rng([self.seed, self.ranks.rank, step])
        request = step * self.ranks.size + self.ranks.rank
        cutoff_us = asked.cutoff_time_us
        first = asked.item_offset[:-1]
        positive = asked.item[first + random.integers(0, np.diff(asked.item_offset))]
        drawn, shown_us, expected = self.pool.drawn(self.negatives, cutoff_us, random)
        item = np.concatenate([positive, drawn])
        users = batches.sampled_users(asked.user, cutoff_us, request=request)
        items = batches.sampled_items(item, np.concatenate([cutoff_us, shown_us]))
        hidden = known_since(items)[None, :] > cutoff_us[:, None]
        hidden[owned(asked, item)] = True
        often = np.full(len(item), expected)
        if expected < 1.0:
            often += (len(asked) - 1) * self.pool.share[item]
        else:  # every item is there once as it is; positives of others would count again
            hidden[:, : len(asked)] = True
        return TowerFed(
            batches.users(users, asked.time_us),
            batches.items(items),
            torch.from_numpy(np.log(often).astype(np.float32)),
            torch.from_numpy(hidden),
            self.ranks.weight(len(chosen)),
        )


def known_since(items: Neighborhood) -> Int64:
    """Return int64 [n]: from which cut-off on a question may be shown these items as they are.

    Where every row is shown in its first version, from when all are visible; else from the cut-off they are shown at.
    """
    owner = np.repeat(np.arange(len(items.cutoff_time_us)), np.diff(items.seed_offset))
    since = np.full(len(items.cutoff_time_us), ALWAYS_US)
    visible_us = np.maximum(items.event_time_us, items.known_time_us)
    np.maximum.at(since, owner, np.where(items.version > 0, items.cutoff_time_us[owner], visible_us))
    return since


def owned(questions: RankingQuestions, item: Int64) -> tuple[Int64, Int64]:
    """Return the places (question, column) where one of n questions' own items is among the columns' int64 [C]."""
    order = np.argsort(item, kind="stable")
    low = np.searchsorted(item[order], questions.item, side="left")
    at, which = spans(low, np.searchsorted(item[order], questions.item, side="right"))
    return questions.question[which], order[at]


def tower_feed(
    view: GraphView,
    task: Task,
    feed: TowerFeed,
    encoding: Encoding,
    identities: BoundIdentities,
    *,
    samplers: int = 1,
    first: int = 0,
) -> Ahead[Int64, TowerFed]:
    """Return the input of every step after `first`, made by `samplers` threads; a context, so that they end with it."""
    size = min(task.training.batch, len(feed.questions))
    drawn: Iterator[Int64] = rounds(np.arange(len(feed.questions)), size, np.random.default_rng(feed.seed))
    threads = [TowerBatches(view, task, encoding, identities, seed=feed.seed) for _ in range(samplers)]
    return Ahead([partial(feed.made, batches) for batches in threads], islice(drawn, first, None), first=first)
