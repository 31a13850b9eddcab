from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graph_transformer.encoding import comparisons as module
from graph_transformer.encoding.collate import Encoding, collate
from graph_transformer.encoding.comparisons import DEVIATION_LEAST, FARTHEST, VALUES
from graph_transformer.encoding.quantile import signed_log
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.encoding.tallies import Read
from graph_transformer.target import Kind, Target
from temporal_graph.time_rule import ALWAYS_US

DAY_US = 86_400_000_000
NOW_US = 400 * DAY_US
FRAUD = Target(Kind.BINARY, "transactions", event_level=True, column="fraud")
Amounts = list[float | None]


def encoding_of(drawing: Any, neighborhood: Any, target: Target = FRAUD, *, comparisons: bool = True) -> Encoding:
    """Statistics bound to the dictionaries."""
    statistics = fit_statistics([neighborhood], drawing.schema, drawing.strings, target=target, comparisons=comparisons)
    return Encoding(statistics, drawing.schema, drawing.strings)


def dated(rows: Iterable[dict[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """Cells of rows, each a day earlier than the one before, with the times."""
    return [(NOW_US - day * DAY_US, cells) for day, cells in enumerate(rows, start=1)]


def draw(drawing: Any, amount: float | None, of_customer: Amounts, of_terminal: Amounts = []) -> Any:  # noqa: B006  # read only
    """Adds a payment with what was paid before, by the customer and at the terminal, a day apart."""
    seed = drawing.seed("transactions", NOW_US, {"amount": amount})
    for column, history in (("customer_id", of_customer), ("terminal_id", of_terminal)):
        drawing.siblings(seed, column, dated({"amount": paid} for paid in history))
    return drawing


def compared(neighborhood: Any, encoding: Encoding, *, columns: int = 1) -> NDArray[np.float32]:
    """The comparisons of B seeds, float32[B, paths, columns, VALUES]."""
    found = collate(neighborhood, encoding).comparisons
    assert found is not None
    assert found.shape[1] == encoding.layout().comparisons_width
    return found.numpy().reshape(len(found), -1, columns, VALUES)


def naive(own: float | None, history: Amounts, std: float) -> list[float]:
    """What a loop finds for one path and column."""
    paid = [each for each in history if each is not None]
    if own is None or not paid:
        return [0.0] * VALUES

    def log(value: float) -> float:
        return float(signed_log(np.array([value]))[0]) / std

    mean = float(np.mean(paid))
    return [
        float(np.clip(value, -FARTHEST, FARTHEST))
        for value in (
            log(own) - log(mean),
            (own - mean) / (np.std(paid) + DEVIATION_LEAST * abs(mean) + 1e-9) / 2.0,
            log(own) - log(max(paid)),
            (sum(each < own for each in paid) - sum(each > own for each in paid)) / (len(paid) + 1),
            1.0,
        )
    ]


def test_comparisons_are_what_a_loop_finds(payments: Any, ways: Any) -> None:
    """Of each seed and path, with amounts that are null, below zero, equal, or far from all others."""
    random = np.random.default_rng(3)
    cases: list[tuple[float | None, Amounts, Amounts]] = [
        (30.0, [10.0, 20.0, None, 30.0], [60.0]),
        (None, [10.0], [20.0]),
        (5.0, [], [None, None]),
        (7.0, [7.0, 7.0], [0.0, 0.0]),
        (-3.0, [-10.0, 4.0], [1e6, -1e6]),
        (1e9, [1.0, 2.0], [1e9]),
        *((float(random.lognormal(3, 1)), random.normal(20, 9, 40).tolist(), [8.0] * count) for count in range(4)),
    ]
    for case in cases:
        draw(payments, *case)
    neighborhood = payments.build()
    encoding = encoding_of(payments, neighborhood)
    assert tuple(path.links for path in encoding.statistics.paths if path.hop > 1) == ways
    (std,) = (c.std for c in encoding.statistics.columns if c.column == "amount")
    expected = [[naive(own, history, std) for history in histories] for own, *histories in cases]
    assert np.allclose(compared(neighborhood, encoding)[:, :, 0], expected, atol=1e-5)


def test_five_times_the_usual_is_far_and_the_usual_is_not(payments: Any) -> None:
    """Among payments of about 20, one of 100 lies beyond all of them, and one of 21 among them."""
    usual: Amounts = [18.0, 22.0, 19.0, 21.0, 20.0, 25.0, 15.0]
    draw(payments, 100.0, usual)
    neighborhood = draw(payments, 21.0, usual).build()
    (stolen, own) = compared(neighborhood, encoding_of(payments, neighborhood))[:, 0, 0]
    assert (stolen[:3] > 1.5).all()
    assert stolen[3] == pytest.approx(7 / 8)
    assert (np.abs(own[:2]) < 0.3).all()
    assert own[2] < 0.0


def test_what_is_to_come_and_what_has_no_time_is_not_compared(payments: Any) -> None:
    """A row of the calendar and a bare row count for nothing; a row of this moment does."""
    neighborhood = draw(payments, 30.0, [10.0, 90.0]).build()
    encoding = encoding_of(payments, neighborhood)
    neighborhood = replace(neighborhood, event_time_us=neighborhood.event_time_us.copy())
    for last_us, largest in ((NOW_US + 1, 10.0), (ALWAYS_US, 10.0), (NOW_US, 90.0)):
        neighborhood.event_time_us[-1] = last_us
        assert (compared(neighborhood, encoding)[0, 0, 0, 2] > 0) == (largest < 30.0)


def test_a_row_on_two_paths_is_compared_on_both(payments: Any, ways: Any) -> None:
    """A payment of this customer at this terminal is among the customer's and among the terminal's."""
    seed = payments.seed("transactions", NOW_US, {"amount": 30.0})
    both = 1 + payments.siblings(seed, "customer_id", [(NOW_US - DAY_US, {"amount": 20.0})])
    terminal = payments.siblings(seed, "terminal_id", [(NOW_US - 2 * DAY_US, {"amount": 40.0})])
    payments.edge(terminal, both, ways[1][1])
    neighborhood = payments.build()
    found = compared(neighborhood, encoding_of(payments, neighborhood))[0, :, 0, 3]
    assert sorted(found.tolist()) == [0.0, 0.5]


def test_comparisons_are_the_same_in_any_company(payments: Any, draw_history: Callable[..., Any]) -> None:
    """A seed's numbers are equal to the last bit alone and in a batch."""
    many = draw_history(payments, 9, 25)
    encoding = encoding_of(payments, many)
    together = collate(many, encoding)
    alone = collate(draw_history(payments, 1, 25), encoding).comparisons
    assert together.comparisons is not None
    assert alone is not None
    assert alone[0].equal(together.comparisons[0])
    for seed in range(9):
        cut = together.alone(many.seed_offset, seed).comparisons
        assert cut is not None
        assert cut[0].equal(together.comparisons[seed])


@pytest.mark.parametrize("wild", [1e300, -1e300])
def test_no_number_is_too_large(payments: Any, wild: float) -> None:
    """Squares of the largest numbers have a sum still, on both sides."""
    draw(payments, wild, [1.0, wild, 2.0])
    neighborhood = draw(payments, 3.0, [wild, -wild]).build()
    encoding = encoding_of(payments, neighborhood)
    assert encoding.comparisons is not None
    sample = np.repeat(np.arange(2), np.diff(neighborhood.seed_offset))
    path = encoding.paths.of_nodes(neighborhood)
    read = Read(sample, path, path, np.zeros_like(path), neighborhood.cutoff_time_us[sample])
    with np.errstate(all="raise"):
        found = encoding.comparisons.of(neighborhood, read)
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= FARTHEST


def test_several_columns_are_told_apart(orders: Any) -> None:
    """Each number is compared with its own column, a null in one leaves the other alone."""
    target = Target(Kind.BINARY, "orders", event_level=True, column="returned")
    seed = orders.seed("orders", NOW_US, {"total": 30.0, "weight": 1.0})
    orders.siblings(seed, "customer_id", dated([{"total": 10.0, "weight": 2.0}, {"total": 20.0}]))
    neighborhood = orders.build()
    found = compared(neighborhood, encoding_of(orders, neighborhood, target), columns=2)[0, 0, :, 3]
    assert found.tolist() == pytest.approx([2 / 3, -1 / 2])


def test_an_outcome_is_never_compared(payments: Any) -> None:
    """Where the number itself is asked about, there is nothing to compare."""
    neighborhood = draw(payments, None, [10.0]).build()
    encoding = encoding_of(
        payments, neighborhood, Target(Kind.REGRESSION, "transactions", event_level=True, column="amount")
    )
    assert (encoding.comparisons, encoding.layout().comparisons_width) == (None, 0)


def test_beside_an_outcome_that_is_a_number_the_others_are_compared(orders: Any) -> None:
    """What a seed's own outcome is changes nothing."""
    target = Target(Kind.REGRESSION, "orders", event_level=True, column="total")
    found = []
    for total in (30.0, None, 7.0):
        seed = orders.seed("orders", NOW_US, {"total": total, "weight": 1.0})
        orders.siblings(seed, "customer_id", dated([{"total": 10.0, "weight": 2.0}]))
        neighborhood = orders.build()
        found.append(compared(neighborhood, encoding_of(orders, neighborhood, target)))
    assert found[0][0, 0, 0, 3] == -0.5
    assert all(np.array_equal(each, found[0]) for each in found)


def test_a_column_that_came_later_changes_nothing(
    payments: Any, grown_payments: Any, draw_history: Callable[..., Any]
) -> None:
    """A number that the schema has now, before those that training knew, is not compared."""
    known, later = (draw_history(drawing, 4, 9) for drawing in (payments, grown_payments))
    encoding = encoding_of(payments, known)
    grown = Encoding(encoding.statistics, grown_payments.schema, grown_payments.strings)
    assert later.columns["transactions"].numerical_names == ("tip", "amount")
    assert np.array_equal(compared(known, encoding), compared(later, grown))


def test_no_way_back_is_no_comparison(payments: Any) -> None:
    """A question without history, and a model that reads none, have none in their batches."""
    seed = payments.seed("transactions", NOW_US, {"amount": 3.0})
    payments.siblings(seed, "customer_id", [])
    bare = payments.build()
    assert collate(bare, encoding_of(payments, bare)).comparisons is None
    neighborhood = draw(payments, 3.0, [1.0]).build()
    assert collate(neighborhood, encoding_of(payments, neighborhood, comparisons=False)).comparisons is None


def test_what_is_compared_is_bounded(payments: Any, draw_history: Any, monkeypatch: Any) -> None:
    """The nearest and most frequent paths stay, and the first columns."""
    neighborhood = draw_history(payments, 4, 9)
    assert encoding_of(payments, neighborhood).layout().comparisons_width == 2 * VALUES
    monkeypatch.setattr(module, "PATHS_MAX", 1)
    assert encoding_of(payments, neighborhood).layout().comparisons_width == VALUES
    monkeypatch.setattr(module, "NUMBERS_MAX", 0)
    assert encoding_of(payments, neighborhood).layout().comparisons_width == 0
