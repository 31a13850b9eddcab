import numpy as np

from graph_transformer.ranking.asked import Asked, Ragged, among, distinct, longer, offsets, taken


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_lists_are_kept_side_by_side() -> None:
    """Lists of any length, empty ones too, are told apart by their offsets and picked by their places."""
    lists = Ragged.of([[4, 2], [], [7]])

    assert lists.question.tolist() == [0, 0, 2]
    picked = lists.select(ints(2, 1, 0))
    assert (picked.offset.tolist(), picked.row.tolist()) == ([0, 1, 1, 3], [7, 4, 2])
    assert Ragged.none(2).question.tolist() == []


def test_lines_of_zeros_are_put_behind_an_array() -> None:
    """Of the array's own kind and width; what was there stays as it is."""
    assert longer(np.array([True]), 2).tolist() == [True, False, False]
    vectors = longer(np.ones((1, 2), dtype=np.float32), 1)
    assert (vectors.dtype, vectors.tolist()) == (np.float32, [[1.0, 1.0], [0.0, 0.0]])


def test_sizes_and_positions_of_parts() -> None:
    """What lies in chosen parts is found in the order in which they were chosen; none of none."""
    count, at = taken(offsets(ints(2, 0, 3)), ints(2, 0))

    assert (count.tolist(), at.tolist()) == ([3, 2], [2, 3, 4, 0, 1])
    assert taken(offsets(ints(2)), ints())[1].tolist() == []


def test_numbers_once_and_rising() -> None:
    """Each number stands once, in order; of none there are none."""
    assert distinct(ints(5, -1, 5, 3, -1)).tolist() == [-1, 3, 5]
    assert distinct(ints()).tolist() == []


def test_pairs_among_others() -> None:
    """A pair is found by both of its parts, listed once or twice; an item below 0 never is."""
    owner, item = np.array([[0], [1]]), np.array([[4, 7, -1], [4, 9, -1]])
    found = among(owner, item, ints(0, 1, 1, 1, 0), ints(7, 9, 9, -1, -1))
    assert found.tolist() == [[False, True, False], [False, True, False]]
    assert not among(owner, item, ints(), ints()).any()


def test_chosen_questions_keep_what_is_theirs() -> None:
    """A question that is picked out of several takes its session, its times and its lists along."""
    asked = Asked.plain(ints(5, 6, 7), ints(10, 20, 30), exclude_seen=True)
    asked = asked.with_sessions(Ragged.of([[1], [], [2, 3]]), ints(8, 28, 29), ((b"a",), (), (b"b", b"c")))

    one = asked.select(ints(2))

    assert (one.user.tolist(), one.cutoff_time_us.tolist(), one.asked_time_us.tolist()) == ([7], [30], [30])
    assert (one.session.row.tolist(), one.session_time_us.tolist()) == ([2, 3], [28, 29])
    assert one.events == ((b"b", b"c"),)
    assert one.exclude_seen.tolist() == [True]
    assert len(asked) == 3
