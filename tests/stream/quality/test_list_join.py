from __future__ import annotations

from stream.quality.config import QualityTask
from stream.quality.list_join import ListJoin
from stream.quality.records import Interaction, ShownList, Stream

STREAM = Stream("", "next_click", "v1")


def test_a_users_memory_is_bounded(next_click: QualityTask) -> None:
    """Beyond the limits the oldest lists and interactions of a user make way, and are counted."""
    join = ListJoin(next_click, lists_max=3, interactions_max=2)
    for number in range(5):
        join.shown(ShownList(STREAM, ("u",), number, number, str(number), (number,)))
        join.interaction(Interaction("next_click", ("u",), bytes([number]), 10 + number, 10 + number, number))
    assert len(join) == 5
    assert join.dropped == 5
    assert [one.event_time_us for one in join.followed()[STREAM]] == [2, 3, 4]
    assert [one.taken for one in join.followed()[STREAM]] == [2, 2, 2]


def test_a_request_that_is_answered_again_is_one_list(next_click: QualityTask) -> None:
    """The list that was answered last counts, in either order."""
    first = ShownList(STREAM, ("u",), 5, 6, "r", (1, 2))
    second = ShownList(STREAM, ("u",), 5, 7, "r", (2, 1))
    done = Interaction("next_click", ("u",), b"1", 8, 8, 2)
    for order in ([first, second], [second, first]):
        join = ListJoin(next_click, lists_max=9, interactions_max=9)
        for shown in order:
            join.shown(shown)
        join.interaction(done)
        assert [one.ranks for one in join.followed()[STREAM]] == [(1,)]


def test_users_without_lists_are_unmatched_until_forgotten(next_click: QualityTask) -> None:
    """Their interactions wait for a list that comes late, and leave with their time."""
    join = ListJoin(next_click, lists_max=9, interactions_max=9)
    join.interaction(Interaction("next_click", ("u",), b"1", 8, 8, 2))
    assert join.unmatched_outcomes() == 1
    join.forget(7)
    assert len(join) == 1
    join.forget(8)
    assert len(join) == 0


def test_thinning_leaves_whole_users(next_click: QualityTask) -> None:
    """A user stays with all that is known of them, or goes."""
    join = ListJoin(next_click, lists_max=9, interactions_max=9)
    for user in range(100):
        join.shown(ShownList(STREAM, (user,), 5, 6, "r", (1,)))
        join.interaction(Interaction("next_click", (user,), b"%d" % user, 8, 8, 1))
    join.thin((1 << 127).to_bytes(16, "big"))
    assert 60 <= len(join) <= 140
    assert all(one.taken == 1 for one in join.followed()[STREAM])
    assert len(join.followed()[STREAM]) * 2 == len(join)
    join.drop(STREAM)
    assert join.followed() == {}
