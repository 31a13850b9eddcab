import numpy as np

from graph_transformer.ranking.evidence import PLAIN, Entries, damped, gathered, largest, places, second_histories
from online_sampler.co_visits import CoVisits, Histories


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def histories() -> Histories:
    """Two users: one with items 1 and 2 at one time and 3 before, one with item 1."""
    times = ints(50, 50, 20, 70)
    return Histories(ints(0, 3, 4), ints(10, 11, 12, 13), ints(1, 2, 3, 1), times, times)


def test_places_count_times_and_not_rows() -> None:
    """What was taken together stands in one place; the newest of each history is place 0."""
    assert places(ints(0, 3, 3, 4), ints(50, 50, 20, 70)).tolist() == [0, 0, 1, 0]
    assert Entries.of(histories(), 0.5).weight.tolist() == [1.0, 1.0, 0.5, 1.0]


def test_pairs_of_one_question_and_item_are_one_line() -> None:
    """Sums go over the history's entries: decayed, of the newest place, by kind of weight, and how many there were."""
    weight = np.array([[1, 0, 0], [2, 0, 0], [0, 1, 0], [0, 0, 4]], dtype=np.float32)
    total = np.array([[1, 0, 0], [0, 0, 0], [2, 1, 0], [0, 0, 4]], dtype=np.float32)
    pairs = CoVisits(ints(0, 3, 4), ints(0, 2, 2, 3), ints(5, 5, 6, 5), weight, total, ints(1, 0, 1, 1))

    found = gathered(pairs, Entries.of(histories(), 0.5), 10)

    def line(question: int, item: int) -> dict[str, float]:
        at = int(found.lines(ints(question), ints(item))[0])
        return dict(zip(PLAIN, found.sums[at].tolist(), strict=True))

    assert (found.question.tolist(), found.item.tolist()) == ([0, 0, 1], [5, 6, 5])
    both = line(0, 5)
    assert both["entries"] == 2
    assert np.isclose(both["last"], 1.0 / 4.0**0.35)
    assert np.isclose(both["even"], both["last"] + 2.0 / 5.3**0.35)
    assert np.isclose(both["decayed"], both["last"] + 0.5 * (both["even"] - both["last"]))
    assert line(0, 6)["forward"] == 0.0
    assert line(0, 6)["backward"] > 0.0
    assert line(1, 5)["same"] > 0.0
    assert found.lines(ints(1, 9), ints(6, 5)).tolist() == [3, 3]


def test_often_taken_items_are_damped() -> None:
    """The same walk is worth less for an item that everybody takes, and never nothing."""
    rare, common = damped(np.ones(2, dtype=np.float32), ints(0, 10_000)).tolist()

    assert 1.0 > rare > common > 0.1


def test_the_largest_of_each_question() -> None:
    """Each question has its own number, falling by score, ties by the smaller item."""
    score = np.array([1, 3, 3, 9, 8], dtype=np.float32)

    found = largest(ints(0, 0, 0, 1, 1), score, ints(4, 7, 2, 5, 6), ints(2, 1))

    assert found.tolist() == [2, 1, 3]


def test_the_largest_are_those_of_a_plain_sort() -> None:
    """Whatever is left out first: many scores or few, equal ones at the edge, and questions that want none."""
    random = np.random.default_rng(0)
    question = np.sort(random.integers(0, 6, 600))
    score, tie = random.integers(0, 8, 600).astype(np.float32), random.permutation(600)
    most = ints(0, 1, 3, 20, 90, 500)

    wanted: list[int] = []
    for one in range(6):
        mine = np.flatnonzero(question == one).tolist()
        wanted += sorted(mine, key=lambda at: (-score[at], tie[at]))[: most[one]]
    assert largest(question, score, tie, most).tolist() == wanted
    assert largest(question[:0], score[:0], tie[:0], most).tolist() == []


def test_a_second_walk_starts_from_shares() -> None:
    """What is walked on from weighs its share of its question's score, whatever the order it comes in."""
    started, entries = second_histories(ints(1, 0, 1), ints(5, 6, 7), np.array([3, 2, 1], dtype=np.float32), 3)

    assert started.offset.tolist() == [0, 1, 3, 3]
    assert started.item.tolist() == [6, 5, 7]
    assert entries.weight.tolist() == [1.0, 0.75, 0.25]
