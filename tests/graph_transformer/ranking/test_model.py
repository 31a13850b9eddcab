"""The ranking model: what a history's means are, how members answer together, and what training sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from graph_transformer.encoding.batch import Batch
from graph_transformer.encoding.collate import collate
from graph_transformer.errors import TaskError
from graph_transformer.ranking.identity import BoundIdentities
from graph_transformer.ranking.model import RECENCY_STARTS, HistoryMeans, RankingModel, build_ranking, history_layout
from graph_transformer.ranking.plans import item_plan
from online_sampler.sampler import Sampler

from .conftest import USERS, Shop


def users_of(shop: Shop, users: np.ndarray, cutoff_time_us: int) -> Batch:
    """The batch of users' neighborhoods at a cut-off."""
    sampler = Sampler(shop.view, shop.task.sampling_plan)
    found = sampler.sample_rows("users", users, np.full(len(users), cutoff_time_us), as_of=True)
    return BoundIdentities(shop.identities, shop.view).of_batch(collate(found, shop.encoding), found)


def items_of(shop: Shop, items: np.ndarray, cutoff_time_us: int) -> Batch:
    """The batch of items' neighborhoods at a cut-off."""
    sampler = Sampler(shop.view, item_plan(shop.view.schema, "items"))
    found = sampler.sample_rows("items", items, np.full(len(items), cutoff_time_us), as_of=True)
    return BoundIdentities(shop.identities, shop.view).of_batch(collate(found, shop.encoding), found)


def with_members(shop: Shop, members: int) -> RankingModel:
    """A model of several members with random weights."""
    torch.manual_seed(7)
    task = replace(shop.task, model=replace(shop.task.model, members=members))
    return build_ranking(shop.encoding, task, shop.identities.count).eval()


def test_a_mean_of_the_history_weighs_by_recency(shop: Shop) -> None:
    """Each head is the mean of the users' item vectors, (1 + place) ** -slope heavy; the batch's other rows are not."""
    batch = users_of(shop, np.arange(USERS), 135)
    history = history_layout(shop.encoding, shop.view.schema.table("orders"), shop.task.target.ranked)  # type: ignore[arg-type]
    means = HistoryMeans(history, 2, 0.0).eval()
    node = batch.identity_node
    assert node is not None
    vector = torch.randn(len(node), 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        means.output.weight.copy_(
            torch.eye(2).repeat(1, len(RECENCY_STARTS)) * torch.tensor([0.0, 0, 1, 1, 0, 0, 0, 0])
        )
        found = means(batch, vector, node).numpy()
    link = next(each for each in batch.links if each.link == history.link)
    sample = batch.samples().numpy()
    for user in range(USERS):
        places = [at for at in range(len(link.child)) if sample[link.child[at]] == user]
        assert len(places) == 4
        rank = batch.rank[link.child[places]].numpy()
        weight = np.exp(-rank * RECENCY_STARTS[1])
        seen = vector[np.searchsorted(node.numpy(), link.parent[places].numpy())].numpy()
        np.testing.assert_allclose(found[user], weight @ seen / weight.sum(), atol=1e-5)


def test_a_user_without_history_is_read_all_the_same(shop: Shop) -> None:
    """Before the first order there is nothing to take a mean of."""
    found = shop.model.users(users_of(shop, np.arange(2), 99))
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[0], found[1])


def test_members_answer_with_the_mean_of_their_dot_products(shop: Shop) -> None:
    """Vectors side by side: what they give together is what each gives, averaged."""
    model = with_members(shop, 3)
    users, items = users_of(shop, np.arange(3), 150), items_of(shop, np.arange(5), 150)
    joined = model.users(users) @ model.items(items).T
    each_user, each_item = model(users, items)
    assert each_user.shape == (3, 3, 8)
    torch.testing.assert_close(joined, (each_user @ each_item.transpose(1, 2)).mean(dim=0))
    assert model.dimension == joined.new_tensor(model.users(users).shape)[1].item()


def test_an_item_is_read_alike_in_a_history_and_as_a_candidate(shop: Shop) -> None:
    """The identity that training moves for one is moved for the other."""
    users, items = users_of(shop, np.arange(USERS), 150), items_of(shop, np.arange(4), 150)
    for found in (shop.model.users(users), shop.model.items(items)):
        shop.model.zero_grad()
        found.sum().backward()
        identity = shop.model.towers[0].graph.rows.identity.entries.weight  # type: ignore[union-attr]
        assert identity.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_identities_start_where_they_are_told(shop: Shop) -> None:
    """Every member begins there, and unknown items begin as nothing; more numbers than the width are left out."""
    model = with_members(shop, 2)
    start = torch.randn(shop.identities.count, 12)
    model.start_at(start)
    for tower in model.towers:
        weight = tower.graph.rows.identity.entries.weight  # type: ignore[union-attr]
        torch.testing.assert_close(weight[1:], start[1:, :8])
        assert not weight[0].any()


def test_in_training_a_share_of_items_is_read_as_unknown(shop: Shop) -> None:
    """With nearly all dropped, most vectors of known items are those of unknown ones; in evaluation none are."""
    model = with_members(shop, 1)
    identity = model.towers[0].graph.rows.identity  # type: ignore[union-attr]
    code = torch.ones(400, dtype=torch.int64)
    identity.dropout = 0.9  # type: ignore[union-attr]
    torch.manual_seed(0)
    model.train()
    unknown = (identity(code) == 0).all(dim=1).float().mean()  # type: ignore[operator]
    assert 0.8 < unknown < 1.0
    model.eval()
    assert not (identity(code) == 0).all(dim=1).any()  # type: ignore[operator]


def test_a_model_of_ones_own_is_refused(shop: Shop) -> None:
    """Towers are ours; so is their task."""
    task = replace(shop.task, model=replace(shop.task.model, module="some.where:Model"))
    with pytest.raises(TaskError, match=r"model\.module"):
        build_ranking(shop.encoding, task, 3)
