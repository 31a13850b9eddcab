from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from graph_transformer.ranking.lists import RankedList, RankQuestion
from model_server.errors import InvalidRequestError
from model_server.generation import RankServing
from model_server.metrics import Metrics
from model_server.ranking_metrics import RankMetrics
from model_server.ranking_worker import ListQuestion, RankWorker, new_items
from model_server.rules import Cap, Rules
from protos.nowgraph.v1 import row_event_pb2
from temporal_graph.time_rule import ALWAYS_US

DAY_US = 86_400_000_000


@pytest.fixture
def worker(shop: Any, metrics: Metrics) -> RankWorker:
    """Answers with the shop's ranker."""
    view = shop.graph.view()
    serving = RankServing.over(view, shop.ranker(view))
    return RankWorker(lambda: serving, RankMetrics(metrics))


def question(shop: Any, user: int, k: int = 3, rules: Rules | None = None, **more: Any) -> ListQuestion:
    """A list after everything in the shop."""
    asked = RankQuestion(shop.privacy.hash(user), (), shop.start_us + 30 * DAY_US, limit=20, **more)
    return ListQuestion(asked, k, rules or Rules(), time.monotonic() + 10)


def test_a_batch_is_ranked_in_one_call(worker: RankWorker, shop: Any, metrics: Metrics) -> None:
    """Each question gets its own list and wait, and all of them what the call took; stages are counted once a call."""
    lists = worker([question(shop, 3), question(shop, 8, k=1)], [11, 22])
    assert [[one.ranked.key[place] for place in one.order] for one in lists] == [[4, 0, 1], [9]]
    assert [one.stages.queue_us for one in lists] == [11, 22]
    assert {(one.stages.retrieve_us, one.stages.forward_us) for one in lists} == {(7, 3)}
    assert {one.model_version for one in lists} == {"counting"}
    assert lists[0].position.sequence == 40
    value = metrics.registry.get_sample_value
    assert value("nowgraph_rank_stage_seconds_count", {"stage": "retrieve"}) == 1
    assert value("nowgraph_rank_stage_seconds_count", {"stage": "queue"}) == 2


def test_rules_choose_from_all_that_was_ranked(worker: RankWorker, shop: Any) -> None:
    """With the categories as of the list's own cut-off."""
    shop.apply([shop.item(0, shop.start_us + 29 * DAY_US, color="gold")])
    (listed,) = worker([question(shop, 3, k=4, rules=Rules(caps=(Cap("color", 1),)))], [0])
    # 4 is green, 0 is gold by now, 1 and 7 are green, 2 is blue, 3 is red
    assert [listed.ranked.key[place] for place in listed.order] == [4, 0, 2, 3]
    assert [effect.removed for effect in listed.effects] == [(2,)]


def test_a_question_that_the_ranker_refuses_names_its_field(worker: RankWorker, shop: Any) -> None:
    """And never what was found there: it may be private."""
    row = row_event_pb2.RowEvent(table="clicks", event_time_us=shop.start_us)
    row.cells.add(column="item_id", integer=666)
    asked = RankQuestion(None, (row.SerializeToString(),), shop.start_us + DAY_US)
    with pytest.raises(InvalidRequestError) as caught:
        worker([ListQuestion(asked, 3, Rules(), time.monotonic() + 10)], [0])
    assert caught.value.field == "session[0].cells[0]"
    assert "666" not in str(caught.value)


def test_new_means_within_the_span_and_not_at_its_end() -> None:
    """One microsecond decides; a table without time has nothing new."""
    times_us = np.array([70, 71, 100, ALWAYS_US])
    nothing = np.zeros(4)
    ranked = RankedList(nothing, [1, 2, 3, 4], nothing, nothing, times_us, 0, 0, None, 4)
    assert new_items(ranked, 100, 30).tolist() == [False, True, True, False]
