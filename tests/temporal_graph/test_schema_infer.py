"""Drafts of schemas from data files, generated ones always, real ones where NOWGRAPH_DATA points to them."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from temporal_graph.errors import SchemaError
from temporal_graph.schema_infer import infer_schema
from temporal_graph.schema_types import ColumnKind, KeyColumn, KeyType, Schema

START = datetime(2024, 1, 1, tzinfo=UTC)


def draft(folder: Path, **tables: dict[str, Any]) -> Schema:
    """Infer the schema of tables given as columns."""
    paths = []
    for name, columns in tables.items():
        paths.append(folder / f"{name}.parquet")
        pq.write_table(pa.table(columns), paths[-1])
    return infer_schema(paths)


def kinds(schema: Schema, table: str) -> dict[str, str]:
    """The kinds of a table's columns by name."""
    return {column.name: column.kind.value for column in schema.table(table).columns}


def parents(schema: Schema, table: str) -> dict[str, str]:
    """The parents of a table by link."""
    return {link.name: link.parent for link in schema.table(table).links}


def times(count: int) -> list[datetime]:
    """So many days in a row."""
    return [START + timedelta(days=i) for i in range(count)]


def test_a_shop(tmp_path: Path) -> None:
    """From three files: keys, clocks, links to files and to a parent without one, and each column's kind."""
    schema = draft(
        tmp_path,
        customers={
            "customer_id": range(20),
            "city": ["Bern", "Rome"] * 10,
            "about": [f"a customer of long standing, number {i}" for i in range(20)],
        },
        products={"product_id": [f"p{i}" for i in range(20)], "tags": [["a", "b"]] * 20, "vector": [[0.5, 1.0]] * 20},
        orders={
            "order_id": range(40),
            "customer_id": [i % 20 for i in range(40)],
            "product_id": [f"p{i % 20}" for i in range(40)],
            "store_id": [i % 3 for i in range(40)],
            "ordered_at": times(40),
            "promised_until": times(40),
            "amount": [i * 1.5 for i in range(40)],
            "pieces": range(40, 80),
            "channel": [i % 4 for i in range(40)],
            "returned": [i % 2 for i in range(40)],
        },
    )
    assert [table.name for table in schema.tables] == ["stores", "customers", "products", "orders"]
    assert schema.table("orders").primary_key == (KeyColumn("order_id", KeyType.INTEGER),)
    assert schema.table("products").primary_key == (KeyColumn("product_id", KeyType.STRING),)
    assert schema.table("orders").time_column == "ordered_at"
    assert schema.table("customers").time_column is None
    assert parents(schema, "orders") == {"customer_id": "customers", "product_id": "products", "store_id": "stores"}
    assert schema.table("stores").primary_key == (KeyColumn("store_id", KeyType.INTEGER),)
    assert kinds(schema, "customers") == {"city": "categorical", "about": "text"}
    assert kinds(schema, "products") == {"tags": "multicategorical", "vector": "embedding"}
    assert schema.table("products").column("vector").dim == 2
    assert kinds(schema, "orders") == {
        "promised_until": "timestamp",
        "amount": "numerical",
        "pieces": "numerical",
        "channel": "categorical",
        "returned": "boolean",
    }


def test_a_key_is_unique_and_complete(tmp_path: Path) -> None:
    """A column with a repeated or a missing value is no primary key, whatever its name."""
    unique = {"id": [1, 2, 3], "x": [1.0, 2.0, 3.0]}
    assert draft(tmp_path, t=unique).table("t").primary_key == (KeyColumn("id", KeyType.INTEGER),)
    assert draft(tmp_path, t=unique | {"id": [1, 2, 2]}).table("t").primary_key == ()
    assert draft(tmp_path, t=unique | {"id": [1, 2, None]}).table("t").primary_key == ()


def test_the_name_of_a_key_counts(tmp_path: Path) -> None:
    """Of several unique columns: `id`, then the one named by the table, then one named as a key, then the first."""
    columns: dict[str, Any] = {"code": ["a", "b"], "other_id": [3, 4], "driverId": [5, 6], "id": [1, 2]}
    for expected in ("id", "driverId", "other_id", "code"):
        assert draft(tmp_path, drivers=columns).table("drivers").primary_key[0].name == expected
        del columns[expected]
        columns["last"] = ["x", "y"]
    assert draft(tmp_path, drivers={"points": [1.0, 2.0], "name": ["a", "b"]}).table("drivers").primary_key == ()


def test_values_decide_a_link(tmp_path: Path) -> None:
    """An equal name links only where the values are the parent's keys; otherwise the parent is one without a file."""
    customers = {"customer_id": range(10), "age": [1.5] * 10}
    linked = draft(tmp_path, customers=customers, orders={"customer_id": [1, 1, 2, 3]})
    assert parents(linked, "orders") == {"customer_id": "customers"}
    other = draft(tmp_path, people=customers, orders={"customer_id": [101, 101, 102, 103]})
    assert parents(other, "orders") == {"customer_id": "customers"}
    assert "age" not in kinds(other, "customers")


def test_roles_link_by_the_end_of_their_name(tmp_path: Path) -> None:
    """home_team_id links to the table of team_id when it holds its keys."""
    schema = draft(
        tmp_path,
        teams={"team_id": range(6), "city": ["x", "y"] * 3},
        games={"home_team_id": [0, 0, 1, 2], "guest_team_id": [3, 3, 4, 5], "points": [1.0, 2.0, 3.0, 4.0]},
    )
    assert parents(schema, "games") == {"home_team_id": "teams", "guest_team_id": "teams"}


@pytest.mark.parametrize("name", ["SalesRepCode", "salesRepCode", "SALESREPCODE", "sales_RepCode"])
def test_roles_link_however_words_are_joined(tmp_path: Path, name: str) -> None:
    """ShipCityId and SALESREPCODE end with a key's name as ship_city_id does; a word that only ends alike does not."""
    key = "REPCODE" if name.isupper() else "RepCode"
    schema = draft(
        tmp_path, staff={key: range(6), "city": ["x"] * 6}, sales={name: [0, 1, 2, 3] * 2, "points": [1.0] * 8}
    )
    assert parents(schema, "sales") == {name: "staff"}
    plain = draft(tmp_path, tiers={"tier": range(6), "fee": [0.5] * 6}, sales={"frontier": [0, 1, 2, 3] * 2})
    assert parents(plain, "sales") == {}


def test_a_plain_id_is_linked_by_its_table(tmp_path: Path) -> None:
    """`city_id` leads to the key `id` of `cities`."""
    schema = draft(tmp_path, cities={"id": range(5)}, shops={"id": range(9), "city_id": [i % 5 for i in range(9)]})
    assert parents(schema, "shops") == {"city_id": "cities"}


def test_a_shared_key_belongs_to_the_table_of_its_name(tmp_path: Path) -> None:
    """Of two tables with one key, the table named by it is the parent, and the other's key is a link to it."""
    schema = draft(tmp_path, labels={"payment_id": range(9), "y": [0.5] * 9}, payments={"payment_id": range(9)})
    assert parents(schema, "labels") == {"payment_id": "payments"}
    assert parents(schema, "payments") == {}
    assert schema.table("labels").primary_key == schema.table("payments").primary_key


def test_of_two_files_of_one_key_the_one_that_names_more_is_the_row(tmp_path: Path) -> None:
    """What names its storm is the observation; the other file of the same keys is news of it, whatever its name."""
    schema = draft(
        tmp_path,
        analyses={"obs_id": range(9), "wind": [0.5] * 9},
        observations={"obs_id": range(9), "storm_id": [0, 1, 2] * 3, "seen_at": times(9)},
    )
    assert parents(schema, "analyses") == {"obs_id": "observations"}
    assert parents(schema, "observations") == {"storm_id": "storms"}


def test_the_end_of_a_period_is_its_clock_where_no_other_is(tmp_path: Path) -> None:
    """What a season brought is known at its end; that comes last among times, and with gaps or as an expiry never."""
    day, gap = times(3), [None, *times(2)]
    assert draft(tmp_path, t={"season_end": day, "hits": [1.5] * 3}).table("t").time_column == "season_end"
    assert draft(tmp_path, t={"season_end": day, "opened": day}).table("t").time_column == "opened"
    for never in ({"end_date": gap}, {"valid_until": day}, {"deleted_at": day}):
        assert draft(tmp_path, t={**never, "hits": [1.5] * 3}).table("t").time_column is None


def test_clocks_are_chosen_by_name(tmp_path: Path) -> None:
    """A birth date or an expiry is no clock; of several times, the one named as the event's is."""
    day = times(3)
    schema = draft(tmp_path, t={"birth_date": day, "valid_until": day, "other_date": day, "created": day})
    assert schema.table("t").time_column == "created"
    assert kinds(schema, "t") == {"birth_date": "timestamp", "valid_until": "timestamp", "other_date": "timestamp"}
    assert draft(tmp_path, t={"dob": ["1985-01-07", "1977-05-10"], "x": [1.5, 2.5]}).table("t").time_column is None


def test_of_two_clocks_the_finer_is_taken(tmp_path: Path) -> None:
    """A time of the day says more than a date, unless the names say that it is of a later moment, or nobody's clock."""
    days = ["2024-01-01", "2024-01-02", "2024-01-03"]
    hours = [START + timedelta(hours=17 * i) for i in range(3)]

    def clock(**columns: list[Any]) -> str | None:
        return draft(tmp_path, t={**columns, "hits": [1.5] * 3}).table("t").time_column

    assert clock(order_date=days, ordered_at=hours) == "ordered_at"
    assert clock(ordered_at=hours, order_date=days) == "ordered_at"
    assert clock(order_date=times(3), ordered_at=hours) == "ordered_at"  # midnights
    assert clock(created_date=days, created_at=hours) == "created_at"
    assert clock(order_date=hours, ordered_at=hours) == "order_date"
    assert clock(order_date=days, delivered_at=hours) == "order_date"
    assert clock(created=days, seen_at=hours) == "created"
    assert clock(order_date=days, checked=hours) == "order_date"


def test_csv(tmp_path: Path) -> None:
    """A CSV file with ISO times is drafted as a Parquet file is."""
    rows = "".join(f"{i},{i % 3},2024-01-0{i + 1}T00:00:00Z,{i * 1.5}\n" for i in range(9))
    (tmp_path / "visits.csv").write_text("visit_id,user_id,at,minutes\n" + rows)
    schema = infer_schema([tmp_path / "visits.csv"])
    visits = schema.table("visits")
    assert (visits.primary_key[0].name, visits.time_column, parents(schema, "visits")) == (
        "visit_id",
        "at",
        {"user_id": "users"},
    )


def test_names_a_schema_cannot_hold(tmp_path: Path) -> None:
    """A column with spaces gets underscores; one without a letter a schema can hold, and two files of one name, are
    refused.
    """
    assert kinds(draft(tmp_path, t={"Invoice No.": [1.5], "2B": [2.5]}), "t") == {
        "Invoice_No": "numerical",
        "_2B": "numerical",
    }
    with pytest.raises(SchemaError, match=r"tables\.t\.columns\.名前: expected a name"):
        draft(tmp_path, t={"名前": [1.5]})
    (tmp_path / "t.csv").write_text("a\n1\n")
    with pytest.raises(SchemaError, match=r"tables\.t: expected one file for each table"):
        infer_schema([tmp_path / "t.parquet", tmp_path / "t.csv"])


@pytest.fixture
def data() -> Path:
    """The folder of real data sets."""
    folder = os.environ.get("NOWGRAPH_DATA")
    if not folder:
        pytest.skip("NOWGRAPH_DATA does not point to the real data sets")
    return Path(folder)


def test_real_payments(data: Path) -> None:
    """The payments: both clocks, the label as a boolean, and customers and terminals as parents without a file."""
    schema = infer_schema(sorted((data / "payments").glob("*.parquet")))
    transactions = schema.table("transactions")
    assert transactions.primary_key == (KeyColumn("transaction_id", KeyType.INTEGER),)
    assert transactions.time_column == "tx_datetime"
    assert kinds(schema, "transactions") == {"tx_amount": "numerical"}
    assert parents(schema, "transactions") == {"customer_id": "customers", "terminal_id": "terminals"}
    assert kinds(schema, "labels") == {"tx_fraud": "boolean"}
    assert parents(schema, "labels") == {"transaction_id": "transactions"}


def test_real_f1(data: Path) -> None:
    """Formula 1: every table's own key, every race table's clock, every link between the nine tables."""
    schema = infer_schema(sorted((data / "f1").glob("*.parquet")))
    keys = {table.name: table.primary_key[0].name for table in schema.tables}
    assert keys["standings"] == "driverStandingsId"
    assert keys["qualifying"] == "qualifyId"
    assert len(keys) == len(schema.tables) == 10
    assert parents(schema, "results") == {
        "raceId": "races",
        "driverId": "drivers",
        "constructorId": "constructors",
        "statusId": "statuses",
    }
    assert parents(schema, "races") == {"circuitId": "circuits"}
    assert schema.table("races").time_column == "date"
    assert schema.table("drivers").time_column is None
    assert schema.table("drivers").column("dob").kind is ColumnKind.TIMESTAMP


def test_real_grocery(data: Path) -> None:
    """Grocery: eight tables joined over products, households, campaigns, and over stores and baskets without files."""
    schema = infer_schema(sorted((data / "grocery").glob("*.parquet")))
    assert parents(schema, "transactions_sample") == {
        "household_id": "demographics",
        "product_id": "products",
        "store_id": "stores",
        "basket_id": "baskets",
    }
    assert parents(schema, "coupons") == {"product_id": "products", "campaign_id": "campaign_descriptions"}
    assert kinds(schema, "transactions_sample")["sales_value"] == "numerical"
    assert set(kinds(schema, "demographics").values()) == {"categorical"}
