from collections.abc import Iterator

import pytest

from graph_transformer.errors import RankQuestionError
from graph_transformer.ranking.filters import Filters
from graph_transformer.ranking.lists import ItemFilter
from temporal_graph.graph import TemporalGraph

from .store import at, event, item, opened

NAMES = ["car", "train", "doll", "named"]


@pytest.fixture(scope="module")
def graph() -> Iterator[TemporalGraph]:
    """Three items, one of which is painted, and one that is only named."""
    events = [
        item("car", 0, color="red", tags=["toy", "wheels"], price=2.5, in_stock=True),
        item("train", 0, color="green", tags=["toy"], price=9.0, in_stock=False),
        item("train", 10, color="red"),
        item("doll", 0, tags=["soft"]),
        event("orders", 1, at(1), user_id=1, item_id="named"),
    ]
    with opened(events) as made:
        yield made


def kept(graph: TemporalGraph, *filters: ItemFilter, seconds: float = 5) -> set[str]:
    view = graph.view()
    found = Filters(view, "items").keep(view.row_index("items", NAMES), at(seconds), filters)
    return {name for name, keep in zip(NAMES, found, strict=True) if keep}


@pytest.mark.parametrize(
    ("column", "values", "names"),
    [
        ("color", ("red",), {"car"}),
        ("color", ("red", "green"), {"car", "train"}),
        ("tags", ("wheels", "soft"), {"car", "doll"}),
        ("price", (9, 1), {"train"}),
        ("in_stock", (True,), {"car"}),
        ("in_stock", (False,), {"train"}),
        ("color", ("never seen",), set()),
        ("color", (), set()),
    ],
)
def test_items_with_such_a_cell_are_kept(
    graph: TemporalGraph, column: str, values: tuple[str | float | bool, ...], names: set[str]
) -> None:
    """One value, or one element, in common is enough; negated the others stay, those without a cell among them."""
    assert kept(graph, ItemFilter(column, values)) == names
    assert kept(graph, ItemFilter(column, values, negate=True)) == set(NAMES) - names


def test_all_filters_must_hold_as_of_the_cut_off(graph: TemporalGraph) -> None:
    """The train is red from the microsecond on at which it was painted."""
    both = (ItemFilter("color", ("red",)), ItemFilter("tags", ("wheels",), negate=True))

    assert kept(graph, *both, seconds=10 - 1e-6) == set()
    assert kept(graph, *both, seconds=10) == {"train"}


@pytest.mark.parametrize(
    ("column", "value", "path"),
    [
        ("colour", "red", "filters[1].column"),
        ("maker", "ida", "filters[1].column"),
        ("color", 1.0, "filters[1].values"),
        ("price", "9", "filters[1].values"),
        ("price", True, "filters[1].values"),
        ("in_stock", 1.0, "filters[1].values"),
    ],
)
def test_a_filter_that_can_not_be_answered_is_named(
    graph: TemporalGraph, column: str, value: str | float, path: str
) -> None:
    """The error says which question, which filter, and whether its column or its values are wrong."""
    filters = (ItemFilter("color", ("red",)), ItemFilter(column, (value,)))

    with pytest.raises(RankQuestionError) as error:
        Filters(graph.view(), "items").check(7, filters)

    assert (error.value.question, error.value.path) == (7, path)
