from dataclasses import replace

import numpy as np
import pytest
import torch

from graph_transformer.errors import TaskError
from graph_transformer.ranking import scoring
from graph_transformer.ranking.asked import Asked
from graph_transformer.ranking.features import feature_names
from graph_transformer.ranking.fusion import Fusion, FusionConfig
from graph_transformer.ranking.lists import Source
from graph_transformer.ranking.scoring import UNTRAINED, Float32, Int64, Scorer
from graph_transformer.ranking.towers import BoundTowers

from .conftest import ITEMS, Shop, item_event, order_event

NOW_US = 1_000


def asked(*users: int) -> Asked:
    return Asked.plain(np.array(users), np.full(len(users), NOW_US), exclude_seen=False)


def fusion(*, towers: bool) -> Fusion:
    """Scores a candidate by its first feature alone."""
    names = feature_names(towers=towers)
    made = Fusion(FusionConfig(names, (0.0,) * len(names), (1.0,) * len(names), width=2, members=1))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
        made.line[0, 0, 0] = 1.0
    return made.eval()


def test_the_graph_alone_ranks_without_towers_and_fusion(shop: Shop) -> None:
    """Nothing learned is needed: the score is then the walk's."""
    scorer = Scorer(shop.view, shop.task)
    scorer.refresh()

    found = scorer.scored(asked(1, 2))

    assert np.array_equal(found.score, found.features[:, scorer.feature_names.index(UNTRAINED)])
    assert not (found.found.source & Source.NEAREST).any()


def test_products_are_of_the_towers_vectors(shop: Shop) -> None:
    """What the fusion reads of the towers is a softmax over the products of vectors as of the cut-off."""
    towers = shop.towers()
    scorer = Scorer(shop.view, shop.task, towers=towers, fusion=fusion(towers=True))
    scorer.refresh()

    found = scorer.scored(asked(3))

    item = towers.items(found.found.item, np.full(len(found.found), NOW_US))
    product = item @ towers.users(np.array([3]), np.array([NOW_US]))[0]
    share = found.features[:, scorer.feature_names.index("tower")]
    assert np.allclose(share, product - np.logaddexp.reduce(product), atol=1e-4)
    assert np.allclose(found.score, found.features[:, 0].clip(-6, 6))
    assert (found.found.source & Source.NEAREST).all()
    assert len(found.found) == ITEMS


def test_near_items_are_as_many_as_the_task_says(shop: Shop) -> None:
    """The index gives the nearest of all items, the task's number of them, more where most will be filtered out."""
    config = replace(shop.task.ranking, co_visit=0, far=0, popular=0, new=0, nearest=2)
    scorer = Scorer(shop.view, replace(shop.task, ranking=config), towers=shop.towers())
    scorer.refresh()
    two = asked(3, 3)

    found = scorer.scored(two, filtered=np.array([False, True])).found

    near = (found.source & Source.NEAREST) != 0
    assert np.bincount(found.question[near]).tolist() == [2, 8]


def test_a_fusion_of_other_features_is_refused(shop: Shop) -> None:
    """A fusion that reads towers needs them, and one that does not is not for a scorer that has them."""
    with pytest.raises(TaskError):
        Scorer(shop.view, shop.task, fusion=fusion(towers=True))
    with pytest.raises(TaskError):
        Scorer(shop.view, shop.task, towers=shop.towers(), fusion=fusion(towers=False))


class Counted:
    """The shop's towers, and the items whose vectors were asked of them."""

    def __init__(self, towers: BoundTowers) -> None:
        self._towers, self.dimension, self.users = towers, towers.dimension, towers.users
        self.asked: list[int] = []

    def items(self, row: Int64, cutoff_time_us: Int64) -> Float32:
        self.asked += row.tolist()
        return self._towers.items(row, cutoff_time_us)


def test_only_vectors_of_items_that_changed_are_computed_anew(shop: Shop) -> None:
    """Each once a change, in the refresh after it; those of the others, and of all where nothing changed, never."""
    towers = Counted(shop.towers())
    scorer = Scorer(shop.view, shop.task, towers=towers)
    scorer.refresh()
    assert sorted(towers.asked) == list(range(ITEMS))
    towers.asked.clear()

    shop.graph.apply([order_event(900, 1, "item 3", NOW_US)])
    scorer.refresh()
    assert towers.asked == []
    shop.graph.apply([item_event("item 3", NOW_US + 1, 7.0, "book"), item_event("item 6", NOW_US + 2, 9.0)])
    scorer.refresh()
    scorer.refresh()
    assert sorted(towers.asked) == [3, 6]
    towers.asked.clear()
    shop.graph.apply([item_event("brand new", NOW_US + 3, 7.0), item_event("brand new", NOW_US + 4, 8.0)])
    scorer.refresh()
    scorer.refresh()
    assert towers.asked == [ITEMS, ITEMS]  # as it came, and as it became


def test_many_changes_at_once_are_read_a_few_at_a_time(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh computes so many vectors at most; those that wait are found by what the items were, until theirs is."""
    monkeypatch.setattr(scoring, "CHANGES_MAX", 4)
    towers = Counted(shop.towers())
    scorer = Scorer(shop.view, shop.task, towers=towers)
    scorer.refresh()
    towers.asked.clear()
    shop.graph.apply([item_event(f"item {index}", NOW_US + 1, 500.0) for index in range(ITEMS)])

    taken = []
    for _ in range(4):
        scorer.refresh()
        taken.append(len(towers.asked))

    assert taken == [4, 8, 10, 10]
    assert sorted(towers.asked) == list(range(ITEMS))


def test_items_that_change_all_the_time_take_no_more_memory(shop: Shop) -> None:
    """What is kept beside the graph is bounded by the items, however often they change and however seldom one asks."""
    scorer = Scorer(shop.view, shop.task, towers=shop.towers())
    scorer.refresh()
    events = [item_event(f"item {index}", NOW_US, 1.0) for index in range(ITEMS)]
    for change in range(100):
        shop.graph.apply([item_event("item 1", NOW_US + change, float(change))])
    shop.graph.apply(events)
    assert scorer._changes is not None
    assert scorer._index is not None
    scorer._changes.refresh()
    assert len(scorer._changes) == ITEMS + 1
    scorer.refresh()
    assert len(scorer._changes) == 0
    assert len(scorer._index) == ITEMS
