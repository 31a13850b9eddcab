"""What towers are fitted on: positives, negatives that existed, and the mask and correction of each batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from graph_transformer.encoding.encoding import Encoding
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.finetune.ranking.presence import Presence
from graph_transformer.finetune.ranking.questions import RankingQuestions
from graph_transformer.finetune.ranking.tower_feed import ItemPool, TowerFeed, known_since, owned, tower_feed
from graph_transformer.finetune.ranks import Ranks
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.ranking.identity import BoundIdentities, identities_of
from graph_transformer.ranking.plans import default_plan
from graph_transformer.ranking.towers import TowerBatches
from graph_transformer.splits import Interval, Splits
from graph_transformer.target import Kind, Ranked, Target
from graph_transformer.task import Task, Training
from online_sampler.sampler import Sampler
from temporal_graph.time_rule import ALWAYS_US, TIME_MAX_US
from temporal_graph.view import GraphView

from .conftest import item_event

TARGET = Target(
    Kind.RANKING, "users", event_level=False, horizon_us=10, ranked=Ranked("orders", "user_id", "item_id", "items", 2)
)
SINCE = [10, 10, 10, 40, 60]
"""When the five items appear."""
ORDERS = [(0, 0, 20), (1, 1, 20), (0, 1, 30), (1, 2, 45), (0, 3, 50), (1, 4, 70)]


def asked(rows: list[tuple[int, int, list[int]]]) -> RankingQuestions:
    """Questions of (user, cut-off, items)."""
    user, cutoff, items = (list(column) for column in zip(*rows, strict=True))
    offset = np.concatenate([[0], np.cumsum([len(each) for each in items])]).astype(np.int64)
    times = np.array(cutoff, dtype=np.int64)
    item = np.array([one for each in items for one in each], dtype=np.int64)
    return RankingQuestions(np.array(user), times, times, times + 1, offset, item)


QUESTIONS = asked([(0, 29, [1]), (1, 44, [2]), (0, 49, [0, 3]), (1, 69, [4])])


def batches_of(view: GraphView) -> TowerBatches:
    """Batches of a task of the shop."""
    plan = default_plan(view.schema, TARGET, RankingConfig())
    users = Sampler(view, plan).sample_rows("users", np.array([0, 1]), np.array([50, 70]), as_of=True)
    statistics = fit_statistics([users], view.schema, view.strings, target=TARGET)
    encoding = Encoding(statistics, view.schema, view.strings, identified="items")
    identities = BoundIdentities(identities_of(view, "items", np.arange(5)), view)
    return TowerBatches(view, task_of(view), encoding, identities)


def task_of(view: GraphView, **training: int) -> Task:
    """A ranking of the shop's items."""
    plan = default_plan(view.schema, TARGET, RankingConfig())
    return Task("next", TARGET, Splits(Interval(0, 100)), plan, training=Training(**training))


def feed_of(view: GraphView, questions: RankingQuestions = QUESTIONS, negatives: int = 3) -> TowerFeed:
    """The feed of questions of the shop."""
    pool = ItemPool.of(Presence(view, "items").first_us, questions)
    return TowerFeed(questions, pool, negatives, Ranks(), 0)


def test_negatives_existed_at_the_cut_off(opened: Callable[..., GraphView]) -> None:
    """Of all five items drawn, a question may be shown those that were visible, and its own is no negative."""
    view = opened(ORDERS, SINCE)
    fed = feed_of(view, negatives=5).made(batches_of(view), 0, np.arange(4))
    code = fed.items.identity_code
    assert code is not None
    item = code.numpy() - 1
    for question, (cutoff, own) in enumerate([(29, {1}), (44, {2}), (49, {0, 3}), (69, {4})]):
        shown = {int(item[column]) for column in range(len(item)) if not fed.hidden[question, column]}
        assert shown == {at for at in range(5) if SINCE[at] <= cutoff} - own


def test_an_item_that_changed_is_shown_to_those_who_could_know(opened: Callable[..., GraphView]) -> None:
    """A second version counts from the cut-off it is shown at, a first one from when it was visible."""
    view = opened(ORDERS, SINCE, more=[item_event(1, 35)])
    items = batches_of(view).sampled_items(np.array([1, 1, 3]), np.array([34, 48, 80]))
    assert known_since(items).tolist() == [10, 48, 40]


def test_items_without_time_were_always_there() -> None:
    """ALWAYS_US is before every cut-off."""
    pool = ItemPool.of(np.array([ALWAYS_US, TIME_MAX_US, 5]), asked([(0, 9, [0])]))
    assert pool.row.tolist() == [0, 2]
    row, shown_us, expected = pool.drawn(9, np.array([3, 3]), np.random.default_rng(0))
    assert (row.tolist(), shown_us.tolist(), expected) == ([0], [3], 1.0)


def test_items_are_shown_when_they_existed() -> None:
    """At a cut-off of the batch, and never before they were visible."""
    pool = ItemPool.of(np.array([0, 50, 90]), asked([(0, 95, [0])]))
    row, shown_us, _ = pool.drawn(300, np.array([20, 60, 95]), np.random.default_rng(0))
    assert set(row.tolist()) == {0, 1, 2}
    row, shown_us, expected = pool.drawn(2, np.array([20, 60]), np.random.default_rng(0))
    assert (shown_us >= np.array([0, 50, 90])[row]).all()
    assert set(shown_us.tolist()) <= {20, 60}
    assert expected == 1.0


def test_the_correction_is_how_often_an_item_is_expected(opened: Callable[..., GraphView]) -> None:
    """Drawn alike, plus as a positive of the others: over many batches columns come as often as the numbers say."""
    view = opened(ORDERS, [10] * 5)
    questions = asked([(0, 49, [1]), (1, 49, [1]), (0, 51, [1, 2]), (1, 51, [3])])
    feed, batches = feed_of(view, questions, negatives=2), batches_of(view)
    seen, expected = np.zeros(5), np.zeros(5)
    for step in range(400):
        fed = feed.made(batches, step, np.arange(4))
        assert fed.items.identity_code is not None
        item = fed.items.identity_code.numpy() - 1
        # What the first question meets beside its own column; the mask hides it where it is its own item again.
        seen += np.bincount(item[1:], minlength=5) / 400
        expected[item] = np.exp(fed.correction.numpy())
    assert expected == pytest.approx([0.4, 0.4 + 3 * 0.625, 0.4 + 3 * 0.125, 0.4 + 3 * 0.25, 0.4])
    # Three others of four: what is expected of a batch drawn at random, where this one is always the same.
    assert seen == pytest.approx([0.4, 1.9, 0.9, 1.4, 0.4], abs=0.2)


def test_with_all_items_the_positives_of_others_do_not_count_twice(opened: Callable[..., GraphView]) -> None:
    """Each item stands once among the drawn; the columns of the others' positives are hidden."""
    view = opened(ORDERS, [10] * 5)
    fed = feed_of(view, negatives=5).made(batches_of(view), 0, np.arange(4))
    assert fed.hidden[:, :4].all()
    assert (~fed.hidden[:, 4:]).sum(dim=1).tolist() == [4, 4, 3, 4]
    assert not fed.correction.any()


def test_own_items_are_found_wherever_they_stand() -> None:
    """Each of a question's items, at every column that holds it."""
    questions = asked([(0, 1, [4, 7]), (1, 1, [5])])
    question, column = owned(questions, np.array([7, 5, 9, 4, 7]))
    assert sorted(zip(question.tolist(), column.tolist(), strict=True)) == [(0, 0), (0, 3), (0, 4), (1, 1)]


def test_steps_are_the_same_whichever_thread_makes_them(opened: Callable[..., GraphView]) -> None:
    """Positives and negatives depend on the seed and the step alone; a training that goes on has the same."""
    view = opened(ORDERS, SINCE)
    task, feed, batches = task_of(view, batch=2), feed_of(view), batches_of(view)
    found = []
    for samplers, first in ((1, 0), (2, 0), (1, 2)):
        identities, encoding = batches._identities, batches._encoding
        with tower_feed(view, task, feed, encoding, identities, samplers=samplers, first=first) as ahead:
            steps = [fed.items.identity_code for fed in islice(ahead, 4 - first)]
        found.append([code.tolist() for code in steps if code is not None])
    assert found[0] == found[1]
    assert found[0][2:] == found[2]


def test_processes_share_a_batch(opened: Callable[..., GraphView]) -> None:
    """Each has its part of the questions, and their weights add up to as many as there are."""
    view = opened(ORDERS, SINCE)
    feed, batches = feed_of(view), batches_of(view)
    parts = [replace(feed, ranks=Ranks(rank, 3)).made(batches, 0, np.arange(4)) for rank in range(3)]
    assert [part.users.size for part in parts] == [2, 1, 1]
    assert sum(part.weight for part in parts) == pytest.approx(3.0)
