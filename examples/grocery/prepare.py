"""Makes what the commands load from CompleteJourney's eight files: eight history files, each row with its time.

The raw files count days and seconds since 1970 as fractions, name some rows by week, and leave others without a time;
here each row gets the time from which it was known (see schema.yaml).

Usage: python examples/grocery/prepare.py out/ [--data FOLDER] [--until 2017-11-01]
"""

from __future__ import annotations

import argparse
import os
from datetime import datetime
from pathlib import Path

import duckdb

DAY_BEGINS = "interval 5 hour"
"""Midnight of the chain's days, in UTC; the same all year, so that a day never begins before its local midnight."""
FIRST_WEEK = "timestamp '2016-12-26'"
"""Monday of week 1, of which the data hold the Sunday."""

CAMPAIGN_STARTS = f"""(
    select campaign_id, timestamp '1970-01-01' + to_days(start_date::integer) + {DAY_BEGINS} as start_date
    from raw_campaign_descriptions
)"""

TABLES = {
    "households": ("demographics", "select * from raw_demographics order by household_id"),
    "products": ("products", "select * from raw_products order by product_id"),
    "transactions": (
        "transactions_sample",
        """
        select * exclude (week)
          replace (make_timestamp((transaction_timestamp * 1000000)::bigint) as transaction_timestamp)
        from raw_transactions_sample order by transaction_timestamp, basket_id, product_id""",
    ),
    "promotions": (
        "promotions_sample",
        f"""
        select *, {FIRST_WEEK} + to_days(7 * (week - 1)) + {DAY_BEGINS} as week_start
        from raw_promotions_sample order by week_start, store_id, product_id""",
    ),
    "campaigns": (
        "campaign_descriptions",
        f"""
        select campaign_id, campaign_type, s.start_date,
          timestamp '1970-01-01' + to_days(end_date::integer + 1) + {DAY_BEGINS} as end_date
        from raw_campaign_descriptions d join {CAMPAIGN_STARTS} s using (campaign_id) order by s.start_date""",
    ),
    "campaign_households": (
        "campaigns",
        f"""
        select * from raw_campaigns join {CAMPAIGN_STARTS} using (campaign_id)
        order by start_date, campaign_id, household_id""",
    ),
    "coupon_products": (
        "coupons",
        f"""
        select distinct * from raw_coupons join {CAMPAIGN_STARTS} using (campaign_id)
        order by start_date, coupon_upc, product_id""",
    ),
    "coupon_redemptions": (
        "coupon_redemptions",
        f"""
        select * replace (
          timestamp '1970-01-01' + to_days(redemption_date::integer + 1) + {DAY_BEGINS} as redemption_date)
        from raw_coupon_redemptions order by redemption_date, household_id, coupon_upc""",
    ),
}
"""Output table -> raw file and the SQL over it."""

TIMES = {
    "transactions": "transaction_timestamp",
    "promotions": "week_start",
    "campaigns": "start_date",
    "campaign_households": "start_date",
    "coupon_products": "start_date",
    "coupon_redemptions": "redemption_date",
}


def main() -> None:
    """Writes the eight tables as they were known before ``--until``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path, help="folder of the eight files; default: NOWGRAPH_DATA's grocery")
    parser.add_argument("--until", type=datetime.fromisoformat, help="leave out what was known from here on")
    arguments = parser.parse_args()
    folder = arguments.data or Path(os.environ.get("NOWGRAPH_DATA", ".")) / "grocery"
    if not (folder / "products.parquet").is_file():
        parser.error(f"no products.parquet in {folder}: give --data, or set NOWGRAPH_DATA to the folder of grocery/")
    arguments.output.mkdir(parents=True, exist_ok=True)
    with duckdb.connect() as database:
        for raw, _ in TABLES.values():
            database.execute(f"create view raw_{raw} as select * from '{folder / raw}.parquet'")
        for table, (_, query) in TABLES.items():
            cut = ""
            if arguments.until is not None and table in TIMES:
                cut = f"where {TIMES[table]} < timestamp '{arguments.until.isoformat(sep=' ')}'"
            output = arguments.output / f"{table}.parquet"
            database.execute(f"copy (select * from ({query}) {cut}) to '{output}' (format parquet)")
    print(f"{len(TABLES)} tables in {arguments.output}")


if __name__ == "__main__":
    main()
