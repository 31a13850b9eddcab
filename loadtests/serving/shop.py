"""The ranking bench's world: a catalogue of thousands of items, users with a history each, and a question about them.

How fast a list is made depends on the catalogue, the histories and the candidates, not on what weights have learned:
these are random.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from graph_transformer.calibration import Calibration
from graph_transformer.checkpoint import Checkpoint
from graph_transformer.encoding.encoding import Encoding
from graph_transformer.encoding.statistics import fit_statistics
from graph_transformer.heads import Unit
from graph_transformer.ranking.config import RankingConfig
from graph_transformer.ranking.features import feature_names
from graph_transformer.ranking.fusion import Fusion, FusionConfig
from graph_transformer.ranking.identity import identities_of
from graph_transformer.ranking.model import build_ranking
from graph_transformer.ranking.parts import RankingParts
from graph_transformer.ranking.plans import default_plan
from graph_transformer.splits import Interval, Splits
from graph_transformer.target import Kind, Ranked, Target
from graph_transformer.task import Task
from nowgraph.loading import load_files
from online_sampler.sampler import Sampler
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import load_schema

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
FIT_USERS = 2_000
MEMBERS = 4  # as training fits them
CANDIDATES = {"co_visit": 230, "far": 100, "popular": 40, "new": 40, "nearest": 150}
"""The default's sources in about its proportions: 500 items or so are ranked, as the objective has it."""


def write_tables(folder: Path) -> None:
    """Writes items.parquet, clicks.parquet and schema.yaml; users are known from their clicks."""
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


def save_model(folder: Path) -> None:
    """Saves a ranking of the default size over the tables of the folder, with random weights, as `folder/model`."""
    schema = load_schema(folder / "schema.yaml")
    ranked = Ranked("clicks", "user_id", "item_id", "items", 10)
    target = Target(Kind.RANKING, "users", event_level=False, horizon_us=DAY_US, ranked=ranked)
    config = RankingConfig(**CANDIDATES)
    splits = Splits(train=Interval(START_US, START_US + DAYS * DAY_US))
    task = Task("next_click", target, splits, default_plan(schema, target, config), ranking=config)
    with TemporalGraph.create(schema) as graph:
        load_files(graph, [folder / "history"], quiet=True)
        view = graph.view()
        users = np.arange(FIT_USERS)
        asked = Sampler(view, task.sampling_plan).sample_rows(
            "users", users, np.full(FIT_USERS, view.watermark_us), as_of=True
        )
        statistics = fit_statistics([asked], schema, view.strings, target=target)
        encoding = Encoding(statistics, schema, view.strings, identified="items")
        identities = identities_of(view, "items", np.arange(view.row_count("items")))
    names = feature_names(towers=True)
    unit = (0.0,) * len(names), (1.0,) * len(names)
    torch.manual_seed(0)
    fusion = Fusion(FusionConfig(names, *unit, width=config.fusion_width, members=MEMBERS))
    model = build_ranking(encoding, task, identities.count, fusion)
    Checkpoint(
        task=task,
        fingerprint=schema.fingerprint(statistics.tables()),
        statistics=statistics,
        model=task.model,
        unit=Unit(),
        calibration=Calibration.of(target),
        weights=model.state_dict(),
        ranking=RankingParts(identities, fusion.to_dict()),
    ).save(folder / "model")
    (folder / "model" / "schema.yaml").write_text(SCHEMA, encoding="utf-8")


def requests(count: int, *, k: int) -> list[service_pb2.RankRequest]:
    """Lists for known users, after everything in the graph."""
    random = np.random.default_rng(1)
    made = []
    for user in random.integers(USERS, size=count).tolist():
        request = service_pb2.RankRequest(k=k, event_time_us=START_US + (DAYS + 1) * DAY_US)
        request.user.parts.add(integer=user)
        made.append(request)
    return made
