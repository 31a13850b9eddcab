"""The fitting of towers: a softmax that is right on average, and a shop whose rule is learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from graph_transformer.config import ModelConfig
from graph_transformer.errors import NotEnoughExamples
from graph_transformer.finetune.loop import Limits
from graph_transformer.finetune.ranking.presence import Presence
from graph_transformer.finetune.ranking.questions import RankingQuestions
from graph_transformer.finetune.ranking.tower import answerable, fit_towers, softmax_loss
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.ranking.plans import default_plan
from graph_transformer.splits import Interval, Splits
from graph_transformer.target import Kind, Ranked, Target
from graph_transformer.task import Task, Training
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import Schema
from temporal_graph.view import GraphView

from .conftest import item_event

TARGET = Target(
    Kind.RANKING, "users", event_level=False, horizon_us=10, ranked=Ranked("orders", "user_id", "item_id", "items", 1)
)
USERS, ITEMS, ORDERS = 60, 20, 10
START_US = 10**12


@pytest.fixture(scope="module")
def circle(shop: Schema) -> Iterator[GraphView]:
    """A shop in which after item i each user buys item i + 1, from a start of their own; one order every 100."""
    with TemporalGraph.create(shop, arena_bytes=64 << 20) as graph:
        assert graph.apply([item_event(item, 1) for item in range(ITEMS)], backfill=True).rejected == ()
        user, place = np.divmod(np.arange(USERS * ORDERS), ORDERS)
        item = (user * 7 + place) % ITEMS
        parents = {"user_id": user, "item_id": item}
        order = np.argsort(place, kind="stable")
        graph.append(
            "orders",
            np.arange(len(user)),
            event_time_us=(START_US + place * 100)[order],
            parents={name: row[order] for name, row in parents.items()},
        )
        yield graph.view()


def questions_at(view: GraphView, places: range) -> RankingQuestions:
    """What each user buys at these places, asked one microsecond before."""
    user, place = (grid.reshape(-1) for grid in np.meshgrid(np.arange(USERS), np.array(places), indexing="ij"))
    item = view.row_index("items", (user * 7 + place) % ITEMS)
    times = START_US + place * 100
    order = np.argsort(times, kind="stable")
    offset = np.arange(len(user) + 1)
    rows = view.row_index("users", user)
    return RankingQuestions(rows[order], times[order] - 1, times[order] - 1, times[order], offset, item[order])


def task_of(view: GraphView, *, steps: int, members: int = 1) -> Task:
    """A small model of the shop."""
    ranking = RankingConfig(dimension=32, tower_history=4, negatives=20, identity_dropout=0.0)
    model = ModelConfig(width=32, heads=4, sums=0, dropout=0.0, token_dropout=0.0, members=members)
    training = Training(steps=steps, batch=64, learning_rate=1e-2, weight_decay=0.0, ema=0.9, evaluate_every=steps)
    plan = default_plan(view.schema, TARGET, ranking)
    return Task("next", TARGET, Splits(Interval(0, 10**13)), plan, model, training, ranking=ranking)


@pytest.mark.parametrize("members", [1, 2])
def test_the_rule_of_the_shop_is_learned(circle: GraphView, members: int) -> None:
    """What comes after the last item is on top for nearly all users, in a later time than the towers saw."""
    task = task_of(circle, steps=60, members=members)
    fitted = fit_towers(circle, task, questions_at(circle, range(1, 8)), later=questions_at(circle, range(8, 10)))
    assert fitted.fitted.validations[-1][1] > 0.9
    assert fitted.known_by_us == START_US + 700


def test_equal_seeds_give_equal_weights_and_the_future_changes_none(circle: GraphView) -> None:
    """Twice the same; what came after the training's time is not read, though the graph holds it."""
    task, questions = task_of(circle, steps=3), questions_at(circle, range(1, 5))
    first, again = (fit_towers(circle, task, questions) for _ in range(2))
    assert first.identities == again.identities
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name
    other = fit_towers(circle, task, questions, seed=1)
    assert any(not torch.equal(w, other.model.state_dict()[n]) for n, w in first.model.state_dict().items())


def test_what_was_not_known_in_time_is_not_learned_from(circle: GraphView) -> None:
    """Questions answered after `known_by_us` are left out, and items that only they know have no identity."""
    task, questions = task_of(circle, steps=1), questions_at(circle, range(1, 8))
    early = fit_towers(circle, task, questions, known_by_us=START_US + 100, limits=Limits(1))
    bought = {(user * 7 + place) % ITEMS for user in range(USERS) for place in (0, 1)}
    assert set(early.identities.keys) == bought
    with pytest.raises(NotEnoughExamples):
        fit_towers(circle, task, questions, known_by_us=START_US + 50)


def test_bound_towers_are_the_fitted_ones(circle: GraphView) -> None:
    """Vectors of the task's size, finite."""
    fitted = fit_towers(circle, task_of(circle, steps=1), questions_at(circle, range(1, 3)))
    towers = fitted.bound(circle)
    found = towers.users(np.arange(3), np.full(3, START_US)) @ towers.items(np.arange(4), np.full(4, START_US)).T
    assert found.shape == (3, 4)
    assert np.isfinite(found).all()
    assert fitted.parts().identities == fitted.identities


def test_items_that_did_not_exist_are_no_answers(opened: Callable[..., GraphView]) -> None:
    """A question keeps the items that were there, and one without any is not asked."""
    view = opened([(0, 0, 20), (0, 1, 30)], [10, 25])
    base = questions_one(np.array([0, 0]), np.array([19, 22]), np.array([0, 2, 3]), np.array([0, 1, 1]))
    kept = answerable(base, Presence(view, "items"))
    assert kept.item.tolist() == [0]
    assert kept.item_offset.tolist() == [0, 1]
    assert kept.cutoff_time_us.tolist() == [19]


def questions_one(user: np.ndarray, cutoff: np.ndarray, offset: np.ndarray, item: np.ndarray) -> RankingQuestions:
    """Questions of plain arrays."""
    return RankingQuestions(user, cutoff, cutoff, cutoff + 1, offset, item)


def test_the_loss_of_all_items_is_the_softmax_over_them() -> None:
    """Nothing hidden but a user's own item, nothing to correct: cross entropy."""
    random = torch.Generator().manual_seed(0)
    users, every = torch.randn(1, 2, 5, generator=random), torch.randn(1, 6, 5, generator=random)
    own = torch.tensor([4, 1])
    items = torch.cat([every[:, own], every], dim=1)
    hidden = torch.zeros(2, 8, dtype=torch.bool)
    hidden[:, :2] = True
    hidden[torch.arange(2), own + 2] = True
    found = softmax_loss(users, items, torch.zeros(8), hidden)
    wanted = torch.nn.functional.cross_entropy((users @ every.transpose(1, 2))[0], own)
    torch.testing.assert_close(found, wanted)


def test_items_drawn_count_for_those_that_were_not() -> None:
    """The mean over many draws of the corrected sum is the sum over all items, whatever the chances were."""
    random = np.random.default_rng(0)
    score = torch.tensor([0.3, -0.5, 1.2, 0.0, -1.0, 0.8])
    chance = np.array([0.4, 0.2, 0.1, 0.1, 0.1, 0.1])
    users = torch.ones(1, 1, 1)
    sums = []
    for _ in range(3000):
        drawn = random.choice(6, 4, p=chance)
        items = torch.cat([torch.tensor([0.5]), score[drawn]]).view(1, -1, 1)
        correction = torch.from_numpy(np.log(np.append(1.0, 4 * chance[drawn])).astype(np.float32))
        hidden = torch.tensor([[True] + [False] * 4])
        sums.append(np.exp(softmax_loss(users, items, correction, hidden).item() + 0.5))
    wanted = float(torch.exp(score).sum()) + np.exp(0.5)
    assert np.mean(sums) == pytest.approx(wanted, rel=0.03)


def test_pretrained_weights_are_begun_with(circle: GraphView) -> None:
    """What fits by name and shape is taken: after no step to speak of they are still there."""
    task, questions = task_of(circle, steps=1), questions_at(circle, range(1, 3))
    task = replace(task, training=replace(task.training, learning_rate=1e-9, weight_decay=0.0))
    wanted = torch.full((32, 32), 0.25)
    fitted = fit_towers(circle, task, questions, pretrained={"towers.0.vector.weight": wanted})
    torch.testing.assert_close(fitted.model.state_dict()["towers.0.vector.weight"], wanted)
