from dataclasses import replace

import numpy as np
import pytest
import torch

from graph_transformer.errors import TaskError
from graph_transformer.ranking.asked import Asked
from graph_transformer.ranking.features import feature_names
from graph_transformer.ranking.fusion import Fusion, FusionConfig
from graph_transformer.ranking.lists import Source
from graph_transformer.ranking.scoring import UNTRAINED, Scorer

from .conftest import ITEMS, Shop

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
