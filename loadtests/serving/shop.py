"""The ranking bench's world: a catalogue of thousands of items, users with a history each, and a question about them.

How fast a list is made depends on the catalogue, the histories and the candidates, not on what weights have learned:
the plan trains for a few steps only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

START_US = 1_700_000_000_000_000
DAY_US = 86_400_000_000
USERS = 19_000
ITEMS = 12_000
CLICKS = 170_000  # the size of the toys that the figures to reach are about
CATEGORIES = 60
DAYS = 100

SCHEMA = """
version: 1
name: shop
tables:
  users: {primary_key: {user_id: integer}}
  items:
    primary_key: {item_id: integer}
    time_column: listed_at
    columns: {category: categorical, tags: multicategorical, price: numerical}
  clicks:
    primary_key: {click_id: integer}
    time_column: clicked_at
    columns: {amount: numerical}
    links: {user_id: users, item_id: items}
"""
TASK = """
version: 1
name: next_click
query: >-
  PREDICT LIST_DISTINCT(clicks.item_id, 0, 1, days) RANK TOP 10 FOR EACH users.user_id
anchors: {before: clicks, last: 2024-02-22}
splits:
  train: {start: 2024-02-18, end: 2024-02-20}
  validation: {start: 2024-02-20, end: 2024-02-22}
training: {steps: 2, batch: 32, evaluate_every: 2}
ranking: {fusion_span: 1d, fusion_steps: 2}
"""


def write_tables(folder: Path) -> None:
    """Writes items.parquet, clicks.parquet, schema.yaml and task.yaml; users are known from their clicks."""
    random = np.random.default_rng(0)
    popularity = 1.0 / (1.0 + random.permutation(ITEMS)) ** 0.8
    # Users stay near each other in the catalogue, so that lists of co-visited items are as long as real ones.
    home = random.integers(ITEMS, size=USERS)
    user = random.integers(USERS, size=CLICKS)
    near = (home[user] + random.normal(0.0, 200.0, CLICKS).astype(np.int64)) % ITEMS
    anywhere = random.choice(ITEMS, CLICKS, p=popularity / popularity.sum())
    item = np.where(random.random(CLICKS) < 0.6, near, anywhere)
    time_us = np.sort(START_US + random.integers(DAYS * DAY_US, size=CLICKS))
    folder.mkdir(parents=True, exist_ok=True)
    tags = [[f"t{number % 11}", f"t{number % 13}"] for number in range(ITEMS)]
    items = {
        "item_id": np.arange(ITEMS),
        "listed_at": pa.array(np.full(ITEMS, START_US - DAY_US), pa.timestamp("us")),
        "category": [f"c{number % CATEGORIES}" for number in range(ITEMS)],
        "tags": tags,
        "price": np.round(random.lognormal(2.0, 1.0, ITEMS), 2),
    }
    clicks = {
        "click_id": np.arange(CLICKS),
        "clicked_at": pa.array(time_us, pa.timestamp("us")),
        "user_id": user,
        "item_id": item,
        "amount": np.ones(CLICKS),
    }
    (folder / "history").mkdir()
    pq.write_table(pa.table(items), folder / "history" / "items.parquet")
    pq.write_table(pa.table(clicks), folder / "history" / "clicks.parquet")
    (folder / "schema.yaml").write_text(SCHEMA, encoding="utf-8")
    (folder / "task.yaml").write_text(TASK, encoding="utf-8")


def requests(count: int, *, k: int) -> list[service_pb2.RankRequest]:
    """Lists for known users, after everything in the graph."""
    random = np.random.default_rng(1)
    made = []
    for user in random.integers(USERS, size=count).tolist():
        request = service_pb2.RankRequest(k=k, event_time_us=START_US + (DAYS + 1) * DAY_US)
        request.user.parts.add(integer=user)
        made.append(request)
    return made
