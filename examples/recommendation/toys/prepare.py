"""Makes what the commands load from the Toys & Games sequences: users, items and interactions, with a made-up clock.

The data know the order of each user's interactions and no time. Here all sequences end together: an interaction p
places from its user's last happens p days before the end, at noon. It is an exception of this example: users who in
truth lived years apart share days, so counts over other users have seen some of their future, as in every published
figure.

Numbers of items and users follow their first appearance in the raw files, which gives answers away: they are permuted.

Usage: python examples/recommendation/toys/prepare.py out/ [--data FOLDER]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

LAST_INTERACTION = "timestamp '2024-12-31 12:00:00'"
SEED = 20241231

TABLES = {
    "users": "select distinct new as user_id from raw_interactions join user_numbers on old = user_id order by 1",
    "items": """
        select new as item_id, list_sort(attributes::varchar[]) as attributes
        from raw_items join item_numbers on old = item_id order by 1""",
    "interactions": f"""
        select u.new as user_id, position, i.new as item_id,
          {LAST_INTERACTION} - to_days((max(position) over (partition by user_id) - position)::integer) as happened_at
        from raw_interactions
        join user_numbers u on u.old = user_id
        join item_numbers i on i.old = item_id
        order by happened_at, u.new""",
}


def permuted(database: duckdb.DuckDBPyConnection, name: str, query: str, random: np.random.Generator) -> None:
    """Makes a table `name` of the old numbers and new ones in another order."""
    old = database.execute(query).fetchnumpy()
    numbers = np.sort(next(iter(old.values())))
    made = pa.table({"old": numbers, "new": random.permutation(len(numbers)) + 1})
    database.register(f"{name}_made", made)
    database.execute(f"create table {name} as select * from {name}_made")


def main() -> None:
    """Writes users, items and interactions."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path, help="folder of the two files; default: NOWGRAPH_DATA's toys")
    arguments = parser.parse_args()
    folder = arguments.data or Path(os.environ.get("NOWGRAPH_DATA", ".")) / "toys"
    if not (folder / "interactions.parquet").is_file():
        parser.error(f"no interactions.parquet in {folder}: give --data, or set NOWGRAPH_DATA to the folder of toys/")
    arguments.output.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(SEED)
    with duckdb.connect() as database:
        for raw in ("interactions", "items"):
            database.execute(f"create view raw_{raw} as select * from '{folder / raw}.parquet'")
        items = "select item_id from raw_items union select item_id from raw_interactions"
        permuted(database, "item_numbers", items, random)
        permuted(database, "user_numbers", "select distinct user_id from raw_interactions", random)
        for table, query in TABLES.items():
            database.execute(f"copy ({query}) to '{arguments.output / table}.parquet' (format parquet)")
    print(f"{len(TABLES)} tables in {arguments.output}")


if __name__ == "__main__":
    main()
