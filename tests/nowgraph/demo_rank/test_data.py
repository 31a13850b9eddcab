from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graph_transformer.finetune.question import question_of
from nowgraph.demo_rank.data import EXAMPLE, demo_data, given_lines, simulated_clicks
from nowgraph.demo_rank.settings import RankDemoSettings
from nowgraph.demo_rank.shop import ShopSettings, generate
from nowgraph.errors import NowgraphError
from temporal_graph.schema import load_schema

SETTINGS = RankDemoSettings(shop=ShopSettings(customers=60, days=30))


def raw_lines(folder: Path, products: int) -> None:
    """Invoice lines as UCI has them: one basket of so many products, and one of a single one, later."""
    when = [datetime(2011, 11, 1, 9, 0)] * products + [datetime(2011, 11, 2, 9, 0)]
    count = len(when)
    table = pa.table(
        {
            "invoice_no": ["1"] * products + ["2"],
            "stock_code": [f"{number}a" for number in range(products)] + ["0a"],
            "description": [f"product {number}" for number in range(products)] + [None],
            "quantity": pa.array([1] * count, pa.int64()),
            "invoice_date": pa.array(when, pa.timestamp("us")),
            "unit_price": [2.5] * count,
            "customer_id": pa.array([17850] * count, pa.int64()),
            "country": ["France"] * count,
        }
    )
    (folder / "retail").mkdir(parents=True)
    pq.write_table(table, folder / "retail" / "invoice_lines.parquet")


@pytest.fixture(autouse=True)
def no_real_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine has is not what these tests are about."""
    monkeypatch.delenv("NOWGRAPH_DATA", raising=False)


def test_a_simulated_shop_stands_in_for_a_real_one(tmp_path: Path) -> None:
    """Its tables are written, its question fits the example's schema, its visitor and lines are new."""
    data = demo_data(SETTINGS, tmp_path)
    assert "simulated" in data.name
    lines = pq.read_table(tmp_path / "lines.parquet")
    assert data.visitor not in lines["customer_id"].to_pylist()
    assert data.first_line == lines.num_rows
    assert data.start_us > lines["invoiced_at"].cast("int64").to_numpy().max()
    assert set(data.clicks) <= set(data.product_names) == set(data.prices)
    (tmp_path / "task.yaml").write_text(data.task)
    question = question_of(load_schema(EXAMPLE / "schema.yaml"), task=tmp_path / "task.yaml", query=None, labels=None)
    assert question.name == "next_product"


def test_the_visitor_looks_at_one_theme_and_then_at_another() -> None:
    """A best seller and what goes with it, twice: four different products of two themes."""
    shop = generate(SETTINGS.shop)
    clicks = simulated_clicks(shop, 4)
    place = {key: index for index, key in enumerate(shop.products["product_id"].to_pylist())}
    theme = [name.split()[1] for name in shop.products["description"].to_pylist()]
    assert len(set(clicks)) == 4
    first, second, third, fourth = (theme[place[key]] for key in clicks)
    assert first == second != third == fourth
    assert place[clicks[1]] in shop.companion[place[clicks[0]]]
    assert len(simulated_clicks(shop, 3)) == 3


def test_a_real_shop_is_prepared_by_the_examples_own_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest basket that is long enough is the session; a product without a description has its key for a name."""
    raw_lines(tmp_path / "real", 5)
    monkeypatch.setenv("NOWGRAPH_DATA", str(tmp_path / "real"))
    assert given_lines() == tmp_path / "real" / "retail"
    data = demo_data(SETTINGS, tmp_path / "tables")
    assert "Online Retail" in data.name
    assert data.clicks == ("0A", "1A", "2A", "3A")
    assert data.product_names["1A"] == "product 1"
    assert (data.visitor, data.first_line) == (17851, 7)
    assert "next_basket" in data.task
    simulated = demo_data(SETTINGS, tmp_path / "simulated", real=False)
    assert "simulated" in simulated.name


def test_data_without_a_session_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In words, before anything is trained."""
    raw_lines(tmp_path, 2)
    monkeypatch.setenv("NOWGRAPH_DATA", str(tmp_path))
    with pytest.raises(NowgraphError, match="a basket of 4 products"):
        demo_data(SETTINGS, tmp_path / "tables")


def test_without_data_nothing_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that lacks the file is no data either."""
    assert given_lines() is None
    monkeypatch.setenv("NOWGRAPH_DATA", str(tmp_path))
    assert given_lines() is None
