from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graph_transformer.encoding import tallies as module
from graph_transformer.encoding.clock import log_age
from graph_transformer.encoding.collate import Encoding, collate
from graph_transformer.encoding.quantile import signed_log
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.encoding.tallies import (
    AGES,
    DEVIATIONS_MAX,
    NEWEST,
    WINDOWS,
    PathTally,
    Read,
    Tallies,
    fit_tallies,
)
from graph_transformer.target import Kind, Target
from temporal_graph.time_rule import ALWAYS_US

DAY_US = 86_400_000_000
NOW_US = 400 * DAY_US
FRAUD = Target(Kind.BINARY, "transactions", event_level=True, column="fraud")
Payment = tuple[float, float | None, int | None]
"""Age in days, amount, fraud."""


def encoding_of(drawing: Any, neighborhoods: list[Any]) -> Encoding:
    """Statistics with tallies, bound to the dictionaries."""
    statistics = fit_statistics(neighborhoods, drawing.schema, drawing.strings, target=FRAUD, tallies=True)
    return Encoding(statistics, drawing.schema, drawing.strings)


def draw(
    drawing: Any,
    of_customer: list[Payment],
    of_terminal: list[Payment] = [],  # noqa: B006  # read only
    *,
    own: tuple[float, int] = (7.0, 1),
) -> Any:
    """Adds a payment, of its own amount and outcome, with what was paid before by the customer and at the terminal."""
    seed = drawing.seed("transactions", NOW_US, {"amount": own[0], "fraud": own[1]})
    for column, history in (("customer_id", of_customer), ("terminal_id", of_terminal)):
        rows = ((NOW_US - round(age * DAY_US), {"amount": amount, "fraud": fraud}) for age, amount, fraud in history)
        drawing.siblings(seed, column, rows)
    return drawing


def read_of(neighborhood: Any, encoding: Encoding) -> Read:
    """What `collate` knows of the rows."""
    sample = np.repeat(np.arange(len(neighborhood.cutoff_time_us)), np.diff(neighborhood.seed_offset))
    path = encoding.paths.of_nodes(neighborhood)
    also = encoding.paths.of_edges(neighborhood, path)
    state = collate(neighborhood, encoding).state.numpy()
    return Read(sample, path, also, state, neighborhood.cutoff_time_us[sample])


def windows_of(encoding: Encoding, values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The windowed values of B seeds per path: float64[B, quantities, WINDOWS], as they were before the logarithm."""
    found, start = [], 0
    for tally in encoding.statistics.tallies:
        end = start + tally.quantities * WINDOWS
        part = values[:, start:end]
        found.append((np.sign(part) * np.expm1(np.abs(part))).reshape(len(values), -1, WINDOWS))
        start = end
    return found


def ages_of(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ages of B seeds, float64[B, paths, AGES]."""
    return values[:, -2 * AGES :].reshape(len(values), 2, AGES)


def naive(payments: list[Payment], tally: PathTally) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a loop over the rows of a path finds: quantities float64[quantities, WINDOWS] and ages float64[AGES]."""
    quantities = np.zeros((tally.quantities, WINDOWS))
    for window, end_us in enumerate([*tally.ends_us, NOW_US]):
        inside = [each for each in payments if 0 <= round(each[0] * DAY_US) <= end_us]
        quantities[0, window] = len(inside)
        quantities[1, window] = len({age for age, _, _ in inside})
        quantities[2, window] = sum(fraud is not None for _, _, fraud in inside)
        quantities[3, window] = sum(fraud == 1 for _, _, fraud in inside)
        quantities[4, window] = sum(amount for _, amount, _ in inside if amount is not None)
    visits = sorted({round(age * DAY_US) for age, _, _ in payments if age >= 0})
    ages = np.full(AGES, np.nan)
    for place, nth in enumerate(NEWEST):
        if len(visits) >= nth:
            ages[place] = visits[nth - 1]
    if visits:
        ages[AGES - 2] = visits[-1]
    if len(visits) > 1:
        ages[AGES - 1] = np.diff(visits).mean()
    return quantities, np.log1p(ages * 1e-6) * log_age(np.array([1_000_000]))[0] / np.log(2.0)


def drawn_payments(random: np.random.Generator, count: int) -> list[Payment]:
    """Payments of the last 300 days, several at one time, some without amount, some with a known outcome."""
    ages = np.round(random.uniform(0.01, 300.0, count), 2)
    ages[: count // 3] = ages[count // 3 : 2 * (count // 3)]
    amounts = [None if random.random() < 0.2 else float(random.normal(5.0, 30.0)) for _ in range(count)]
    frauds = [None if random.random() < 0.5 else int(random.random() < 0.3) for _ in range(count)]
    return list(zip(ages.tolist(), amounts, frauds, strict=True))


def test_tallies_are_what_a_loop_finds(payments: Any, ways: Any) -> None:
    """Rows, visits, known and true outcomes and sums per window, and the ages of visits: of each seed and path."""
    random = np.random.default_rng(5)
    histories = [(drawn_payments(random, count), drawn_payments(random, 3 * count)) for count in (0, 1, 2, 9, 40)]
    for of_customer, of_terminal in histories:
        draw(payments, of_customer, of_terminal)
    neighborhood = payments.build()
    encoding = encoding_of(payments, [neighborhood])
    assert encoding.tallies is not None
    values = encoding.tallies.values(neighborhood, read_of(neighborhood, encoding))
    found = windows_of(encoding, values)
    for path, tally in enumerate(encoding.statistics.tallies):
        assert encoding.statistics.paths[tally.path].links == ways[path]
        for seed, history in enumerate(histories):
            quantities, ages = naive(history[path], tally)
            assert np.allclose(found[path][seed], quantities)
            assert np.allclose(ages_of(values)[seed, path], ages, equal_nan=True)


def test_windows_grow_to_all_there_is(payments: Any) -> None:
    """Each window is twice as long as the one before and holds what lies in it; its end belongs to it."""
    draw(payments, [(float(age), 1.0, None) for age in range(1, 101)])
    neighborhood = payments.build()
    encoding = encoding_of(payments, [neighborhood])
    ends = np.array(encoding.statistics.tallies[0].ends_us)
    assert np.allclose(ends[1:] / ends[:-1], 2.0)
    (tally, *_) = encoding.statistics.tallies
    days = replace(tally, ends_us=tuple((np.arange(1, WINDOWS) * DAY_US).tolist()))
    found = Tallies([days], encoding.statistics.paths, payments.schema).values(
        neighborhood, read_of(neighborhood, encoding)
    )
    assert np.allclose(np.expm1(found[0, :WINDOWS]), [1, 2, 3, 4, 5, 6, 7, 100])


def test_what_is_to_come_and_what_has_no_time_do_not_count(payments: Any) -> None:
    """A row of the calendar and a bare row are on the path, and in no window; a row of this moment is."""
    seed = draw(payments, [(0.0, 2.0, None), (-3.0, 50.0, 1)])
    neighborhood = seed.build()
    encoding = encoding_of(payments, [neighborhood])
    neighborhood = replace(neighborhood, event_time_us=neighborhood.event_time_us.copy())
    for count, last_us in ((1, NOW_US + DAY_US), (1, ALWAYS_US), (2, NOW_US)):
        neighborhood.event_time_us[-1] = last_us
        assert encoding.tallies is not None
        values = encoding.tallies.values(neighborhood, read_of(neighborhood, encoding))
        rows, visits, *_ = windows_of(encoding, values)[0][0]
        assert (round(rows[-1]), round(visits[-1])) == (count, 1)


def test_the_seed_is_never_tallied(payments: Any) -> None:
    """Neither its amount nor its outcome is in any number: another seed with the same history has the same ones."""
    history: list[Payment] = [(1.0, 3.0, 0), (2.0, 4.0, 1)]
    first = draw(payments, history, history).build()
    encoding = encoding_of(payments, [first])
    second = collate(draw(payments, history, history, own=(1e9, 0)).build(), encoding).tallies
    assert second is not None
    assert second.equal(collate(first, encoding).tallies)


def test_a_row_on_two_paths_counts_on_both(payments: Any, ways: Any) -> None:
    """A payment of this customer at this terminal is in the windows of the customer and in those of the terminal."""
    seed = payments.seed("transactions", NOW_US)
    both = 1 + payments.siblings(seed, "customer_id", [(NOW_US - DAY_US, {"amount": 5.0, "fraud": 1})])
    terminal = payments.siblings(seed, "terminal_id", [(NOW_US - 2 * DAY_US, {"amount": 2.0})])
    payments.edge(terminal, both, ways[1][1])
    neighborhood = payments.build()
    encoding = encoding_of(payments, [neighborhood])
    assert encoding.tallies is not None
    values = encoding.tallies.values(neighborhood, read_of(neighborhood, encoding))
    of_customer, of_terminal = (found[0, :, -1] for found in windows_of(encoding, values))
    assert np.allclose(of_customer, [1, 1, 1, 1, 5.0])
    assert np.allclose(of_terminal, [2, 2, 1, 1, 7.0])


def test_tallies_are_the_same_in_any_company(payments: Any, draw_history: Callable[..., Any]) -> None:
    """A seed's numbers are equal to the last bit alone and in a batch, whatever the order of the others."""
    many = draw_history(payments, 9, 25)
    encoding = encoding_of(payments, [many])
    together = collate(many, encoding)
    assert together.tallies is not None
    alone = collate(draw_history(payments, 1, 25), encoding).tallies
    assert alone is not None
    assert alone[0].equal(together.tallies[0])
    for seed in range(9):
        cut = together.alone(many.seed_offset, seed).tallies
        assert cut is not None
        assert cut[0].equal(together.tallies[seed])


def test_two_keys_sort_as_one_does(payments: Any, draw_history: Callable[..., Any], monkeypatch: Any) -> None:
    """Where seeds, paths and ages are too many for one number the tallies are the same, bit for bit."""
    neighborhood = draw_history(payments, 9, 25)
    encoding = encoding_of(payments, [neighborhood])
    found = collate(neighborhood, encoding).tallies
    monkeypatch.setattr(module, "KEY_END", 0)
    again = collate(neighborhood, encoding).tallies
    assert found is not None
    assert again is not None
    assert found.equal(again)


def test_training_gives_the_scale(payments: Any, draw_history: Callable[..., Any]) -> None:
    """Over the training neighborhoods values have mean 0 and deviation 1, those that never vary say 0, none is wild."""
    neighborhood = draw_history(payments, 60, 25)
    encoding = encoding_of(payments, [neighborhood])
    assert encoding.tallies is not None
    batch = collate(neighborhood, encoding)
    assert batch.tallies is not None
    assert tuple(batch.tallies.shape) == (60, encoding.layout().tallies_width)
    plain = encoding.tallies.values(neighborhood, read_of(neighborhood, encoding))
    found = batch.tallies.numpy()[:, : plain.shape[1]]
    varies = (np.nanstd(plain, axis=0) > 1e-6) & ~np.isnan(plain).any(axis=0) & (np.abs(found).max(axis=0) < 4.9)
    assert varies.sum() > WINDOWS
    assert np.allclose(found[:, varies].mean(axis=0), 0.0, atol=1e-5)
    assert np.allclose(found[:, varies].std(axis=0), 1.0, atol=1e-4)
    assert (found[:, np.nanstd(plain, axis=0) == 0.0] == 0.0).all()
    assert np.abs(found).max() <= DEVIATIONS_MAX
    later = draw(payments, [(1.0, 1e30, None)]).build()
    assert float(abs(collate(later, encoding).tallies).max()) <= DEVIATIONS_MAX  # type: ignore[arg-type]


def test_a_missing_visit_is_told_apart_from_a_mean_one(payments: Any) -> None:
    """Where there is no such visit the value is 0 and its flag is 1, and nowhere else."""
    draw(payments, [(1.0, 1.0, None), (5.0, 1.0, None)], [(2.0, 1.0, None)])
    neighborhood = draw(payments, []).build()
    encoding = encoding_of(payments, [neighborhood])
    tallied = collate(neighborhood, encoding).tallies
    assert tallied is not None
    flags = tallied.numpy()[:, -2 * AGES :].reshape(2, 2, AGES)
    assert flags[0, 0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]
    assert flags[0, 1].tolist() == [0, 1, 1, 1, 1, 1, 0, 1]
    assert flags[1].tolist() == [[1] * AGES] * 2
    assert (tallied.numpy()[1, -4 * AGES : -2 * AGES] == 0.0).all()


def test_ages_are_counted_from_the_time_asked_about(payments: Any) -> None:
    """Asked a year after the graph ended, everything is a year older and long windows alone hold it."""
    neighborhood = draw(payments, [(1.0, 3.0, 0), (9.0, 4.0, None)]).build()
    encoding = encoding_of(payments, [neighborhood])
    assert encoding.tallies is not None
    read = read_of(neighborhood, encoding)
    later = read._replace(asked_time_us=read.asked_time_us + 365 * DAY_US)
    values = [encoding.tallies.values(neighborhood, each) for each in (read, later)]
    newest = [np.expm1(each[0, -AGES] * np.log(2.0) / log_age(np.array([1_000_000]))[0]) for each in values]
    assert newest[1] - newest[0] == pytest.approx(365 * DAY_US * 1e-6)
    rows = [windows_of(encoding, each)[0][0, 0] for each in values]
    assert (rows[0][-2], rows[1][-2]) == pytest.approx((1.0, 0.0))
    assert rows[1][-1] == pytest.approx(2.0)
    asked = collate(neighborhood, encoding, asked_time_us=neighborhood.cutoff_time_us + 365 * DAY_US).tallies
    assert asked is not None
    assert np.array_equal(asked.numpy(), encoding.tallies.of(neighborhood, later))


def test_what_is_tallied_is_bounded(payments: Any, draw_history: Callable[..., Any], monkeypatch: Any) -> None:
    """The nearest and most frequent paths stay, and the first numerical columns."""
    neighborhood = draw_history(payments, 4, 9)
    encoding = encoding_of(payments, [neighborhood])
    paths = encoding.statistics.paths
    assert [tally.columns for tally in encoding.statistics.tallies] == [("amount",)] * 2
    monkeypatch.setattr(module, "PATHS_MAX", 1)
    monkeypatch.setattr(module, "NUMBERS_MAX", 0)
    (kept,) = fit_tallies([neighborhood], payments.schema, paths)
    assert paths[kept.path].share == max(paths[tally.path].share for tally in encoding.statistics.tallies)
    assert kept.columns == ()


def test_a_column_that_came_later_changes_nothing(
    payments: Any, grown_payments: Any, draw_history: Callable[..., Any]
) -> None:
    """A number that the schema has now, before those that training knew, is in no sum."""
    known, later = (draw_history(drawing, 4, 9) for drawing in (payments, grown_payments))
    encoding = encoding_of(payments, [known])
    grown = Encoding(encoding.statistics, grown_payments.schema, grown_payments.strings)
    assert later.columns["transactions"].numerical_names == ("tip", "amount")
    expected, found = collate(known, encoding).tallies, collate(later, grown).tallies
    assert expected is not None
    assert found is not None
    assert expected.equal(found)


def test_no_events_are_no_tallies(payments: Any) -> None:
    """Parents alone, as of a question without history, are not tallied; nor is the event that a seed points to."""
    seed = payments.seed("transactions", NOW_US)
    payments.siblings(seed, "customer_id", [])
    encoding = encoding_of(payments, [payments.build()])
    assert (encoding.statistics.tallies, encoding.tallies, encoding.layout().tallies_width) == ((), None, 0)


def test_tallies_travel_as_plain_values(payments: Any, draw_history: Callable[..., Any]) -> None:
    """What is read back from JSON is the same, to the last digit; what is no tally is refused."""
    encoding = encoding_of(payments, [draw_history(payments, 4, 9)])
    for tally in encoding.statistics.tallies:
        assert PathTally.from_dict(json.loads(json.dumps(asdict(tally)))) == tally
    with pytest.raises(TypeError):
        PathTally.from_dict({"path": 1, "windows": 3})


def test_values_are_logarithms_with_a_sign(payments: Any) -> None:
    """A sum below zero stays below zero, and one of nulls alone is zero."""
    neighborhood = draw(payments, [(1.0, -20.0, None)], [(1.0, None, None)]).build()
    encoding = encoding_of(payments, [neighborhood])
    assert encoding.tallies is not None
    values = encoding.tallies.values(neighborhood, read_of(neighborhood, encoding))
    sums = values[0, 4 * WINDOWS : 5 * WINDOWS], values[0, 9 * WINDOWS : 10 * WINDOWS]
    assert sums[0][-1] == pytest.approx(float(signed_log(np.array([-20.0]))[0]))
    assert (sums[1] == 0.0).all()
