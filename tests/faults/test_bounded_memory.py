"""A hub that never stops growing, and ever new nodes: what retention bounds, and what it does not."""

from __future__ import annotations

import numpy as np
import pytest

from online_sampler import Sampler, SamplingPlan
from temporal_graph.graph import TemporalGraph
from temporal_graph.schema import parse_schema

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

NODES, HUB_EVERY, BATCH = 10_000_000, 5, 100_000
DEGREE, AGE_S = 1_000_000, 6_000_000
S = 1_000_000
START_US = 1_700_000_000 * S
# What is forgotten leaves a row's place, which is not used again: both clocks, links, key, and its part of the key map.
PLACE_BYTES_MAX = 48
SCHEMA = f"""
version: 1
name: shops
tables:
  users: {{primary_key: {{user_id: integer}}}}
  shops: {{primary_key: {{shop_id: integer}}}}
  visits:
    primary_key: {{visit_id: integer}}
    time_column: at
    links: {{user_id: users, shop_id: shops}}
    retention: {{age: {AGE_S}s, degree: {DEGREE}}}
"""
FANOUT = 20
PLAN = SamplingPlan.from_dict({"num_neighbors": [{"hop1": {"default": FANOUT}}], "strategy": "most_recent"})


def test_a_hub_and_ever_new_nodes_stay_within_their_memory() -> None:
    """Ten million visits, one a second, each of a new user and one of five at the hub, in 1.4 GB: lists hold the
    newest million and what is not too old, exactly; past that age a visit costs no more than two rows' places; and the
    hub's neighborhood is right now, at the oldest time that it remembers, and before.
    """
    schema = parse_schema(SCHEMA)
    used = []
    with TemporalGraph.create(schema, arena_bytes=1_400_000_000) as graph:
        for start in range(0, NODES, BATCH):
            visit = np.arange(start, start + BATCH)
            shop = np.where(visit % HUB_EVERY == 0, 0, 1 + visit % 9_973)
            parents = {"user_id": visit, "shop_id": shop}
            graph.append("visits", visit, event_time_us=START_US + visit * S, parents=parents)
            graph.evict()
            used.append(graph.memory().used_bytes)
        kept = AGE_S + 1  # the bound is kept too
        elsewhere = kept - AGE_S // HUB_EVERY
        assert graph.memory().adjacency_entries == kept + DEGREE + elsewhere
        settled = AGE_S // BATCH + 10
        assert used[-1] - used[settled] < 2 * PLACE_BYTES_MAX * BATCH * (len(used) - 1 - settled)

        view = graph.view()
        newest = NODES - HUB_EVERY  # at the hub
        oldest = newest - HUB_EVERY * (DEGREE - 1)
        times = START_US + S * np.array([NODES, oldest, oldest - 1])
        found = Sampler(view, PLAN).sample_keys("shops", [0, 0, 0], times)
        expected = [range(newest, newest - HUB_EVERY * FANOUT, -HUB_EVERY), [oldest], []]
        for seed, visits in enumerate(expected):
            nodes = slice(int(found.seed_offset[seed]) + 1, int(found.seed_offset[seed + 1]))
            assert view.keys("visits", found.row[nodes]) == [*visits]
        assert view.row_index("visits", [0, NODES - 1 - AGE_S - 1, NODES - 1 - AGE_S]).tolist()[:2] == [-1, -1]
        assert view.row_index("visits", [NODES - 1 - AGE_S])[0] >= 0
