import numpy as np

from graph_transformer.errors import RankQuestionError
from graph_transformer.ranking.lists import RankedList, RankedLists, Source
from temporal_graph.view import GraphPosition


def test_sources_of_one_item_add_up() -> None:
    """An item that came by several ways says all of them in one number, and each can be told apart."""
    found = Source.CO_VISIT | Source.NEAREST

    assert int(found) == 9
    assert Source(9) & Source.NEAREST
    assert not Source(9) & Source.POPULAR


def test_lengths_are_of_items_and_of_questions() -> None:
    """A list is as long as its items, an answer as its questions."""
    empty = np.empty(0, dtype=np.int64)
    ranked = RankedList(
        np.array([4, 2]), [14, 12], np.array([1.0, 0.5]), np.array([1, 2]), np.array([0, 0]), 3, 0, 5, 2
    )
    none = RankedList(empty, [], np.empty(0), empty, empty, 0, 0, None, 0)
    answer = RankedLists((ranked, none), GraphPosition(1, 2, {}), 10, 20)

    assert (len(answer), len(ranked), len(none)) == (2, 2, 0)


def test_an_error_names_the_question_and_its_field() -> None:
    """A server can tell the caller which of a batch's questions was wrong, and where."""
    error = RankQuestionError(3, "filters[0].column", "a column of products", "colour")

    assert (error.question, error.path) == (3, "filters[0].column")
    assert "question 3: filters[0].column" in str(error)
