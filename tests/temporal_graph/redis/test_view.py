from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from temporal_graph.redis.frames import unpack
from temporal_graph.redis.keys import entity, key_bytes
from temporal_graph.redis.view import UNKNOWN, ListWant, Want
from temporal_graph.time_rule import TIME_MAX_US

pytestmark = pytest.mark.integration


def test_a_want_finds_versions_and_the_newest_of_lists(cluster: Any, payment: Callable[..., bytes]) -> None:
    """Up to the cut-off of each; a row that is named only is empty, one that nobody named is unknown."""
    cluster.apply([payment(key, 10 * key, customer=7) for key in range(1, 6)])
    view = cluster.view
    names = view.names(view.state())
    parent, child, stranger = entity(0, key_bytes((7,))), entity(1, key_bytes((3,))), entity(0, key_bytes((8,)))
    wants = [
        Want(parent, 50, lists=(ListWant(0, 2, 40), ListWant(0, 9, 15))),
        Want(child, 29),
        Want(child, 30),
        Want(stranger, TIME_MAX_US, lists=(ListWant(0, 2, 40),)),
    ]
    bare, hidden, shown, unknown = view.read(names, wants)
    assert (bare.size, bare.frames) == (0, b"")
    assert bare.lists == (((40, key_bytes((4,))), (30, key_bytes((3,)))), ((10, key_bytes((1,))),))
    assert (hidden.size, hidden.frames) == (shown.size, b"")
    assert [version.visible_time_us for version, _ in unpack(shown.frames)] == [30]
    assert (unknown.size, unknown.lists) == (UNKNOWN, ((),))
