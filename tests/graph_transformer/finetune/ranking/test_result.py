"""What a training of a ranking tells, as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from graph_transformer.finetune.ranking.metrics import RankingMetrics
from graph_transformer.finetune.ranking.result import OURS, RankingResult
from graph_transformer.finetune.ranking.time_budget import Cut
from graph_transformer.task import parse_task

TASK = """
version: 1
name: next_order
table: users
level: entity
kind: ranking
ranked: {interactions: orders, user_link: user_id, item_link: sku, items: items, top: 10}
splits: {train: {start: 2024-01-01, end: 2024-02-01}}
sampling_plan: {num_neighbors: [{hop1: {default: 1}}]}
"""


def test_a_result_is_plain_values() -> None:
    """Figures by split and ranker, recall by source of candidates; what is undefined is null."""
    whole = RankingMetrics(3, 10, 0.5, 0.25, 0.01, 0.2, 0.1, 0.4)
    result = RankingResult(
        Path("out"),
        "v",
        parse_task(TASK),
        {"test": {OURS: whole, "popular": whole}},
        {"test": {"union": 0.5}},
        2.0,
        (Cut("towers", 5, 9, "steps"),),
    )
    found = json.loads(json.dumps(result.to_dict()))
    assert (found["checkpoint"], found["task"], found["recall"]) == ("out", "next_order", {"test": {"union": 0.5}})
    assert found["cuts"] == [{"phase": "towers", "done": 5, "wanted": 9, "unit": "steps"}]
    assert found["metrics"]["test"][OURS]["ndcg"] == 0.25
    assert found["metrics"]["test"]["popular"]["coverage"] is None
