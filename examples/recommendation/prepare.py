"""Makes what the commands load from UCI Online Retail's invoice lines: products, customers and lines.

A product has the time, description and price of its first sale: what came later was not known then. Lines of an unknown
customer keep their product and have no customer; postage, fees and corrections are no products and are left out.

Usage: python examples/recommendation/prepare.py out/ [--data FOLDER] [--until 2011-11-01]
"""

from __future__ import annotations

import argparse
import os
from datetime import datetime
from pathlib import Path

import duckdb

NO_PRODUCTS = ("POST", "DOT", "M", "C2", "S", "D", "BANK CHARGES", "AMAZONFEE", "CRUK", "ADJUST", "TEST001")
UNKNOWN_CUSTOMER = 0

LINES = f"""
    create view sold as
    select
      row_number() over (order by invoice_date, invoice_no, stock_code, quantity, unit_price, description) as line_id,
      upper(stock_code) as product_id, description, quantity, unit_price,
      nullif(customer_id, {UNKNOWN_CUSTOMER}) as customer_id, country, invoice_date as invoiced_at
    from raw where upper(stock_code) not in {NO_PRODUCTS}"""
TABLES = {
    "products": """
        select product_id, min(invoiced_at) as first_sold_at, arg_min(description, line_id) as description,
          arg_min(unit_price, line_id) as first_price
        from sold group by product_id order by first_sold_at, product_id""",
    "customers": """
        select customer_id, arg_min(country, line_id) as country
        from sold where customer_id is not null group by customer_id order by customer_id""",
    "lines": """
        select line_id, invoiced_at, customer_id, product_id, quantity, unit_price from sold order by line_id""",
}


def main() -> None:
    """Writes the three tables as they were before ``--until``."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path, help="folder of invoice_lines.parquet; default: NOWGRAPH_DATA's retail")
    parser.add_argument("--until", type=datetime.fromisoformat, help="leave out what was sold from here on")
    arguments = parser.parse_args()
    file = (arguments.data or Path(os.environ.get("NOWGRAPH_DATA", ".")) / "retail") / "invoice_lines.parquet"
    if not file.is_file():
        parser.error(f"no {file}: give --data, or set NOWGRAPH_DATA to the folder of retail/")
    arguments.output.mkdir(parents=True, exist_ok=True)
    cut = "" if arguments.until is None else f"where invoice_date < timestamp '{arguments.until.isoformat(sep=' ')}'"
    with duckdb.connect() as database:
        database.execute(f"create view raw as select * from '{file}' {cut}")
        database.execute(LINES)
        for table, query in TABLES.items():
            database.execute(f"copy ({query}) to '{arguments.output / table}.parquet' (format parquet)")
    print(f"{len(TABLES)} tables in {arguments.output}")


if __name__ == "__main__":
    main()
