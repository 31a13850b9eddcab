"""The example's preparation gives each row the time from which it was known, and loads whole."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from nowgraph.loading import load_files
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema

RAW = {
    "demographics": "select '1' as household_id, '45-54' as age, '50-74K' as income, null::varchar as home_ownership, "
    "'Married' as marital_status, '2' as household_size, '2 Adults Kids' as household_comp, '1' as kids_count",
    "products": "select 'p' as product_id, '7' as manufacturer_id, 'GROCERY' as department, 'National' as brand, "
    "'MILK' as product_category, 'WHOLE' as product_type, null::varchar as package_size",
    # 2017-03-01 12:00 and 2017-03-02 12:00 UTC, in the data's fractions of seconds
    "transactions_sample": "select unnest(['1', '2']) as household_id, '3' as store_id, "
    "unnest(['a', 'b']) as basket_id, 'p' as product_id, 1e0 as quantity, 2e0 as sales_value, 0e0 as retail_disc, "
    "0e0 as coupon_disc, 0e0 as coupon_match_disc, 9 as week, "
    "unnest([1488369600e0, 1488456000e0]) as transaction_timestamp",
    "promotions_sample": "select 'p' as product_id, '3' as store_id, 'A' as display_location, '0' as mailer_location, "
    "unnest([1, 11]) as week",
    # 2017-03-01 to 2017-03-10 as days since 1970
    "campaign_descriptions": "select '5' as campaign_id, 'Type A' as campaign_type, 17226e0 as start_date, "
    "17235e0 as end_date",
    "campaigns": "select '5' as campaign_id, '1' as household_id",
    "coupons": "select '9' as coupon_upc, unnest(['p', 'p', 'q']) as product_id, '5' as campaign_id",
    "coupon_redemptions": "select '1' as household_id, '9' as coupon_upc, '5' as campaign_id, "
    "17226e0 as redemption_date",
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight tiny files with the shape of CompleteJourney's."""
    folder = tmp_path_factory.mktemp("raw")
    with duckdb.connect() as database:
        for table, query in RAW.items():
            database.execute(f"copy ({query}) to '{folder / table}.parquet' (format parquet)")
    return folder


def prepared(repository: Path, output: Path, *options: str) -> Path:
    script = repository / "examples" / "grocery" / "prepare.py"
    subprocess.run([sys.executable, str(script), str(output), *options], check=True, timeout=200, capture_output=True)
    return output


def loaded_rows(repository: Path, folder: Path) -> int:
    """How many rows the example's schema took; all of them, or the test fails."""
    schema = load_schema(repository / "examples" / "grocery" / "schema.yaml")
    with TemporalGraph.create(schema) as graph:
        loaded = load_files(graph, sorted(folder.glob("*.parquet")), quiet=True, dead_letters=folder / "letters")
    assert (loaded.dead_letters, loaded.duplicate, loaded.applied) == (0, 0, loaded.rows)
    return loaded.rows


def test_every_row_loads(repository: Path, tmp_path: Path, raw: Path) -> None:
    """All rows fit the schema; a coupon's product that is listed twice is one row."""
    output = prepared(repository, tmp_path / "out", "--data", str(raw))
    assert loaded_rows(repository, output) == 1 + 1 + 2 + 2 + 1 + 1 + 2 + 1


def test_rows_carry_the_time_they_were_known(repository: Path, tmp_path: Path, raw: Path) -> None:
    """A day's redemption is known when the day ends, a plan when its day or week begins, a purchase to the second."""
    output = prepared(repository, tmp_path / "out", "--data", str(raw))
    with duckdb.connect() as database:

        def times(table: str, column: str) -> list[datetime]:
            query = f"select distinct {column} from '{output}/{table}.parquet' order by 1"
            return [row[0] for row in database.execute(query).fetchall()]

        assert times("transactions", "transaction_timestamp") == [datetime(2017, 3, day, 12) for day in (1, 2)]
        assert times("coupon_redemptions", "redemption_date") == [datetime(2017, 3, 2, 5)]
        assert times("campaigns", "end_date") == [datetime(2017, 3, 11, 5)]
        for table in ("campaigns", "campaign_households", "coupon_products"):
            assert times(table, "start_date") == [datetime(2017, 3, 1, 5)]
        assert times("promotions", "week_start") == [datetime(2016, 12, 26, 5), datetime(2017, 3, 6, 5)]


@pytest.mark.parametrize(("until", "rows"), [("2017-03-01T12:00:00", 1), ("2017-03-01T12:00:01", 2)])
def test_what_comes_later_is_left_out(repository: Path, tmp_path: Path, raw: Path, until: str, rows: int) -> None:
    """A purchase at the cut is out, one just before it is in; households and products, without time, stay."""
    output = prepared(repository, tmp_path / "out", "--data", str(raw), "--until", until)
    assert loaded_rows(repository, output) == 1 + 1 + (rows - 1) + 1 + 1 + 1 + 2


@pytest.mark.slow
@pytest.mark.skipif("NOWGRAPH_DATA" not in os.environ, reason="needs the real data")
def test_the_real_files_load_whole(repository: Path, tmp_path: Path) -> None:
    """No row of the real data is refused or taken for another."""
    assert loaded_rows(repository, prepared(repository, tmp_path / "out")) > 600_000
