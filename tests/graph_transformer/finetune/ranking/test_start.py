"""The start of identities: what stands near in histories stands near as vectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from graph_transformer.finetune.ranking import start
from graph_transformer.finetune.ranking.histories import Interactions
from graph_transformer.finetune.ranking.start import svd_start
from graph_transformer.ranking.config import RankingConfig

CONFIG = RankingConfig()


def interactions(histories: list[list[int]]) -> Interactions:
    """Each history a user's items, one after the other."""
    user = np.repeat(np.arange(len(histories)), [len(items) for items in histories])
    item = np.concatenate([np.array(items, dtype=np.int64) for items in histories])
    times = np.arange(len(item), dtype=np.int64)
    return Interactions(times, user, item, times, times, np.full(len(item), 2**62))


def likeness(vectors: torch.Tensor, one: int, other: int) -> float:
    """The cosine of two entries."""
    return float(torch.nn.functional.cosine_similarity(vectors[one], vectors[other], dim=0))


def test_items_of_the_same_histories_are_near() -> None:
    """Codes 1 to 3 are bought together and 4 to 6 are, by other users: near within, far between."""
    known = interactions([[1, 2, 3], [3, 1, 2], [2, 3, 1]] * 3 + [[4, 5, 6], [5, 6, 4], [6, 4, 5]] * 3)
    vectors = svd_start(known, known.item, 8, 4, CONFIG)
    assert vectors.shape == (8, 4)
    assert likeness(vectors, 1, 2) > likeness(vectors, 1, 4) + 0.5
    assert not vectors[0].any()
    assert not vectors[7].any()


def test_a_user_is_no_bridge_to_the_next() -> None:
    """Where one history ends and another begins stand items that have nothing to do with each other."""
    known = interactions([[1], [2]] * 20)
    assert not svd_start(known, known.item, 3, 2, CONFIG).any()


def test_unknown_items_and_nobody_are_left_out() -> None:
    """Code 0 has no neighbors, nor have interactions of no user."""
    known = interactions([[1, 1, 2]] * 5)
    some = svd_start(known, np.where(known.item == 2, 0, known.item), 3, 2, CONFIG)
    assert not some.any()
    nobody = replace(known, user=np.full(len(known), -1))
    assert not svd_start(nobody, known.item, 3, 2, CONFIG).any()


def test_equal_interactions_give_equal_vectors() -> None:
    """And leave the caller's dice as they were."""
    known = interactions([list(np.random.default_rng(user).integers(1, 30, 8)) for user in range(40)])
    torch.manual_seed(1)
    first = svd_start(known, known.item, 30, 8, CONFIG)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(svd_start(known, known.item, 30, 8, CONFIG), first)


def test_of_too_many_the_newest_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was visible last decides."""
    monkeypatch.setattr(start, "INTERACTIONS_MOST", 6)
    known = interactions([[1, 2]] * 10 + [[3, 4]] * 3)
    vectors = svd_start(known, known.item, 5, 2, CONFIG)
    assert not vectors[1:3].any()
    assert vectors[3:].any()
