from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graph_transformer.encoding import statistics as module
from graph_transformer.encoding.codes import TEXT_BUCKETS
from graph_transformer.encoding.collate import Encoding, collate
from graph_transformer.encoding.statistics import Statistics, fit_statistics
from graph_transformer.errors import TaskError
from graph_transformer.target import Kind, Target

DAY_US = 86_400_000_000

RETURNED = Target(Kind.BINARY, "orders", event_level=True, column="returned")


def orders_drawn(orders: Any, notes: tuple[str | None, ...] = ("fast", "fast", None)) -> Any:
    """One order of a customer with an earlier order per note."""
    seed = orders.seed("orders", 100 * DAY_US, {"total": 10.0, "note": "fast"})
    tags = {"country": "de", "tags": "new\x1fvip", "born": 50 * DAY_US}
    customer = orders.row(seed, "orders.customer_id->customers.customer_id", tags)
    for age, note in enumerate(notes, start=1):
        cells = {"total": float(age), "weight": None, "express": 1, "note": note, "picture": [1.0, 2.0, 3.0]}
        orders.row(customer, "customers.customer_id->orders.customer_id", cells, event=(100 - age) * DAY_US)
    return orders.build()


def fitted(orders: Any, neighborhoods: list[Any]) -> Statistics:
    """Statistics of the orders' neighborhoods."""
    return fit_statistics(neighborhoods, orders.schema, orders.strings, target=RETURNED)


def test_scales_are_those_of_the_rows_that_were_sampled(orders: Any) -> None:
    """Mean and spread of a number are of its signed log over the sampled rows; a column of nulls keeps 0 and 1."""
    found = {c.column: c for c in fitted(orders, [orders_drawn(orders)]).columns}
    logs = np.log1p([10.0, 1.0, 2.0, 3.0])
    assert found["total"].mean == pytest.approx(logs.mean())
    assert found["total"].std == pytest.approx(logs.std())
    assert (found["weight"].mean, found["weight"].std) == (0.0, 1.0)


def test_vocabularies_hold_what_was_seen_more_than_once(orders: Any) -> None:
    """A category seen once is left to the unseen one, so that it is trained; bags count elements, not strings."""
    found = {c.column: c for c in fitted(orders, [orders_drawn(orders), orders_drawn(orders)]).columns}
    assert found["country"].values == ("de",)
    assert found["tags"].values == ("new", "vip")
    once = {c.column: c for c in fitted(orders, [orders_drawn(orders)]).columns}
    assert once["country"].values == ()


def test_vocabularies_are_bounded(orders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the most frequent categories keep a vector of their own."""
    monkeypatch.setattr(module, "VOCABULARY_MAX", 1)
    neighborhoods = []
    for country in ("de", "de", "de", "fr", "fr"):
        seed = orders.seed("orders", DAY_US)
        orders.row(seed, "orders.customer_id->customers.customer_id", {"country": country})
        neighborhoods.append(orders.build())
    found = {c.column: c for c in fitted(orders, neighborhoods).columns}
    assert found["country"].values == ("de",)


def test_statistics_travel_as_plain_values(orders: Any) -> None:
    """Statistics read back from a checkpoint's JSON are the same, to the last digit."""
    statistics = fitted(orders, [orders_drawn(orders)])
    assert Statistics.from_dict(json.loads(json.dumps(statistics.to_dict()))) == statistics


def test_numbers_of_a_seed_are_told_where_they_are_asked_for(orders: Any) -> None:
    """Both travel with the rest; without them the values are those of statistics that knew of none."""
    drawn = [orders_drawn(orders)]
    found = fit_statistics(drawn, orders.schema, orders.strings, target=RETURNED, tallies=True, comparisons=True)
    assert [tally.columns for tally in found.tallies] == [("total", "weight")]
    assert Statistics.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    plain = fitted(orders, drawn)
    assert plain == replace(found, tallies=(), comparisons=False)
    assert plain.to_dict().keys() == found.to_dict().keys() - {"tallies", "comparisons"}


def test_a_model_reads_the_tables_of_its_paths(orders: Any) -> None:
    """The tables a fingerprint has to cover are those that were sampled, with all their columns."""
    tables = fitted(orders, [orders_drawn(orders)]).tables()
    assert set(tables) == {"orders", "customers"}
    assert tables["customers"] == ("country", "tags", "born")


def test_seeds_alone_have_statistics_too(orders: Any) -> None:
    """Neighborhoods without neighbors (own columns alone) give scales, and bins of age that work."""
    orders.seed("orders", DAY_US, {"total": 3.0})
    statistics = fitted(orders, [orders.build()])
    assert [path.links for path in statistics.paths] == [()]
    assert statistics.age_edges[-1] > statistics.age_edges[0]


def spelled(texts: Sequence[str]) -> NDArray[np.float32]:
    """Stands for a sentence encoder: length and vowels."""
    return np.array([[len(text), sum(letter in "aeiou" for letter in text)] for text in texts], dtype=np.float32)


def test_a_sentence_encoder_is_known_by_its_path_and_length(orders: Any) -> None:
    """Texts keep the path of what reads them and how many floats it gives; without one they are n-grams."""
    drawn = orders_drawn(orders)
    path = f"{__name__}:spelled"
    statistics = fit_statistics([drawn], orders.schema, orders.strings, target=RETURNED, text_encoder=path)
    (note,) = (column for column in statistics.columns if column.column == "note")
    assert (note.encoder, note.dim) == (path, 2)
    assert Statistics.from_dict(json.loads(json.dumps(statistics.to_dict()))) == statistics
    batch = collate(drawn, Encoding(statistics, orders.schema, orders.strings))
    plain = collate(drawn, Encoding(fitted(orders, [drawn]), orders.schema, orders.strings))
    widths = [next(t.dense.shape[1] for t in found.tables if t.table == "orders") for found in (batch, plain)]
    assert widths[1] - widths[0] == TEXT_BUCKETS - 2
    with pytest.raises(TaskError):
        fit_statistics([drawn], orders.schema, orders.strings, target=RETURNED, text_encoder="no_such:encoder")
