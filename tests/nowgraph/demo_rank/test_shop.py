from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from nowgraph.demo_rank.shop import MINUTE_US, Shop, ShopSettings, generate

SMALL = ShopSettings(customers=60, days=30, seed=3)


@pytest.fixture(scope="module")
def shop() -> Shop:
    """A small shop."""
    return generate(SMALL)


def test_equal_settings_give_equal_shops(shop: Shop) -> None:
    """To the last line; another seed gives another shop."""
    again, other = generate(SMALL), generate(ShopSettings(customers=60, days=30, seed=4))
    assert again.lines.equals(shop.lines)
    assert again.products.equals(shop.products)
    assert not other.lines.equals(shop.lines)


def test_the_files_are_those_of_the_examples_schema(shop: Shop, tmp_path: Path, repository: Path) -> None:
    """Each table has the columns that the recommendation example's schema names, key and links included."""
    from temporal_graph.schema import load_schema

    shop.write(tmp_path)
    for table in load_schema(repository / "examples" / "recommendation" / "schema.yaml").tables:
        columns = {column.name for column in table.columns} | {part.name for part in table.primary_key}
        columns |= {link.name for link in table.links} | ({table.time_column} - {None})
        assert set(pq.read_schema(tmp_path / f"{table.name}.parquet").names) == columns


def test_nothing_is_sold_before_it_is_there(shop: Shop) -> None:
    """Lines are in the order of their time and their keys, within the shop's days."""
    first = dict(zip(*(shop.products[name].to_pylist() for name in ("product_id", "first_sold_at")), strict=True))
    lines = shop.lines.to_pylist()
    assert all(first[line["product_id"]] <= line["invoiced_at"] for line in lines)
    assert [line["line_id"] for line in lines] == list(range(len(lines)))
    times_us = shop.lines["invoiced_at"].cast("int64").to_numpy()
    assert (np.diff(times_us) >= 0).all()
    assert SMALL.start_us <= times_us[0] <= times_us[-1] < SMALL.end_us


def test_what_goes_together_is_bought_together(shop: Shop) -> None:
    """After a product its companions come far more often than chance would have it, and within the same theme."""
    place = {key: index for index, key in enumerate(shop.products["product_id"].to_pylist())}
    theme = [name.split()[1] for name in shop.products["description"].to_pylist()]
    assert all(theme[one] == theme[other] for one, row in enumerate(shop.companion) for other in row)
    lines = sorted(shop.lines.to_pylist(), key=lambda line: (line["customer_id"], line["invoiced_at"]))
    follows = of_all = 0
    for line, after in pairwise(lines):
        gap_us = (after["invoiced_at"] - line["invoiced_at"]).total_seconds() * 1e6
        if line["customer_id"] == after["customer_id"] and gap_us == MINUTE_US:
            of_all += 1
            follows += place[after["product_id"]] in shop.companion[place[line["product_id"]]]
    assert of_all > 100
    assert follows / of_all > 0.4  # by chance 2 of 240


@pytest.mark.parametrize("name", ["customers", "days", "companions"])
def test_a_shop_of_nothing_is_refused(name: str) -> None:
    """By the setting's name."""
    with pytest.raises(ValueError, match=name):
        ShopSettings(**{name: 0})
