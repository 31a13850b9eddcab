"""Towers on a graph: vectors as of a cut-off, the same in any batch and in any graph that holds the same rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from graph_transformer.errors import TaskError
from graph_transformer.ranking.towers import BoundTowers
from graph_transformer.target import Kind, Target

from .conftest import ITEMS, USERS, Opened, Shop, item_event, order_event, shop_events

CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-5}


def times(count: int, cutoff_time_us: int) -> NDArray[np.int64]:
    """The same cut-off for several."""
    return np.full(count, cutoff_time_us, dtype=np.int64)


def test_a_user_is_what_was_visible_at_the_cut_off(shop: Shop) -> None:
    """An order changes the vector from its own microsecond on, and not one before; other users' orders never do."""
    towers = shop.towers()
    user = np.array([2])
    before, at, after = (towers.users(user, times(1, 112 + step)) for step in (-1, 0, 1))
    shop.graph.apply([order_event(900, 2, "item 1", 112), order_event(901, 3, "item 1", 111)], backfill=True)
    np.testing.assert_array_equal(towers.users(user, times(1, 111)), before)
    assert np.abs(towers.users(user, times(1, 112)) - at).max() > 1e-4
    assert np.abs(towers.users(user, times(1, 113)) - after).max() > 1e-4


def test_an_item_is_what_was_visible_at_the_cut_off(shop: Shop) -> None:
    """A new price counts from its own time on; other items stay as they are."""
    towers = shop.towers()
    row = shop.view.row_index("items", ["item 3", "item 4"])
    before, after = towers.items(row, times(2, 199)), towers.items(row, times(2, 200))
    shop.graph.apply([item_event("item 3", 200, 50.0)], backfill=True)
    np.testing.assert_array_equal(towers.items(row, times(2, 199)), before)
    assert np.abs(towers.items(row, times(2, 200))[0] - after[0]).max() > 1e-4
    np.testing.assert_array_equal(towers.items(row, times(2, 200))[1], after[1])


def test_vectors_do_not_depend_on_who_else_is_asked(shop: Shop) -> None:
    """One by one or together, with histories of other lengths beside them."""
    towers = shop.towers()
    users, items, cutoff = np.arange(USERS), np.arange(ITEMS), 100 + 13 * np.arange(ITEMS)
    together = towers.users(users, cutoff[:USERS]), towers.items(items, cutoff)
    alone = (
        np.concatenate([towers.users(users[[at]], cutoff[[at]]) for at in range(USERS)]),
        np.concatenate([towers.items(items[[at]], cutoff[[at]]) for at in range(ITEMS)]),
    )
    for both, each in zip(together, alone, strict=True):
        np.testing.assert_allclose(both, each, **CLOSE)


def test_the_same_rows_in_another_graph_have_the_same_vectors(shop: Shop, opened: Opened) -> None:
    """The other graph met its items in the opposite order, so that rows and dictionary codes differ."""
    names = [f"item {index}" for index in range(ITEMS)]
    events = shop_events(names)
    view = opened([*reversed(events[:ITEMS]), *events[ITEMS:]]).view()
    found = []
    for towers, at in ((shop.towers(), shop.view), (shop.towers(view), view)):
        users, items = at.row_index("users", list(range(USERS))), at.row_index("items", names)
        found.append((towers.users(users, times(USERS, 150)), towers.items(items, times(ITEMS, 150))))
    np.testing.assert_allclose(found[0][0], found[1][0], **CLOSE)
    np.testing.assert_allclose(found[0][1], found[1][1], **CLOSE)


def test_items_without_an_identity_live_from_their_cells(shop: Shop) -> None:
    """Of equal cells two new items have one vector; two known ones have two; a new one with another price another."""
    events = [item_event("new a", 10, 4.0), item_event("new b", 10, 4.0), item_event("new c", 10, 90.0)]
    events += [item_event("item 0", 12, 4.0), item_event("item 2", 12, 4.0)]
    shop.graph.apply(events, backfill=True)
    row = shop.view.row_index("items", ["new a", "new b", "new c", "item 0", "item 2"])
    a, b, c, known, other = shop.towers().items(row, times(5, 50))
    np.testing.assert_allclose(a, b, **CLOSE)
    assert np.abs(a - c).max() > 1e-4
    assert np.abs(known - other).max() > 1e-2


def test_nobody_has_a_vector(shop: Shop) -> None:
    """Row -1 is a user of whom nothing is known, the same whoever it is."""
    found = shop.towers().users(np.array([-1, -1]), times(2, 150))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[0], found[1], **CLOSE)


def test_none_have_none(shop: Shop) -> None:
    """No users and no items are answered by empty arrays."""
    towers = shop.towers()
    assert towers.users(np.zeros(0, dtype=np.int64), times(0, 1)).shape == (0, towers.dimension)
    assert towers.items(np.zeros(0, dtype=np.int64), times(0, 1)).shape == (0, towers.dimension)


def test_ages_are_counted_from_the_time_asked(shop: Shop) -> None:
    """A graph read up to 150 but asked at 10 days later shows the same rows, older."""
    towers = shop.towers()
    late = times(1, 150 + 10 * 86_400_000_000)
    stale = towers.users(np.array([0]), times(1, 150), asked_time_us=late)
    assert np.abs(stale - towers.users(np.array([0]), times(1, 150))).max() > 1e-4


def test_only_a_ranking_has_towers(shop: Shop) -> None:
    """Another kind of task is refused by name."""
    task = replace(shop.task, target=Target(Kind.REGRESSION, "users", event_level=False))
    bound = shop.towers()
    with pytest.raises(TaskError, match="ranking"):
        BoundTowers(bound.model, shop.encoding, bound._batches._identities, shop.view, task)


def test_evaluation_has_no_dice(shop: Shop) -> None:
    """With dropout in the options, equal questions still have equal answers."""
    for module in shop.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    towers = shop.towers()
    first, second = (towers.users(np.arange(3), times(3, 150)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_session_counts_as_if_the_graph_had_it(shop: Shop) -> None:
    """Orders that come with the question give the vector that they give once the graph has them, oldest first."""
    towers, user, cutoff = shop.towers(), np.array([2, 3]), times(2, 155)
    events = [order_event(900, 2, "item 1", 151), order_event(901, 2, "item 4", 153)]
    session = towers.users(user, cutoff, [events, []])
    without = towers.users(user, cutoff)
    assert np.abs(session[0] - without[0]).max() > 1e-3
    np.testing.assert_allclose(session[1], without[1], **CLOSE)
    shop.graph.apply(events, backfill=True)
    np.testing.assert_allclose(towers.users(user, cutoff), session, **CLOSE)
    np.testing.assert_allclose(towers.users(user, cutoff, [events, []]), session, **CLOSE)


def test_a_session_of_nobody_is_read(shop: Shop) -> None:
    """A visitor without a user is what they just did; what they did last weighs most."""
    events = [order_event(900, 2, "item 1", 151), order_event(901, 2, "item 4", 153)]
    nobody = np.array([-1, -1, -1])
    found = shop.towers().users(nobody, times(3, 155), [events, events[:1], []])
    assert np.abs(found[0] - found[1]).max() > 1e-3
    assert np.abs(found[1] - found[2]).max() > 1e-3
