"""Click to list, through every part: embedded broker, updater, graph, server, client, predictions topic."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from graph_transformer.checkpoint import Checkpoint
from graph_transformer.ranking.lists import RankQuestion
from model_server.loading import load_model
from model_server.settings import ServerSettings
from nowgraph.client import ListRules, RankedItems, Row
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2
from stream.kafka_source import KafkaSource
from stream.settings import EVENTS_TOPIC, StreamSettings

pytestmark = pytest.mark.integration
INPUTS = {"clicks": 2, "items": 1, EVENTS_TOPIC: 1}


@pytest.fixture
def system(shop: Any, settings: ServerSettings, live: Callable[..., Any]) -> Any:
    """The shop, running, with the ranker by counts."""
    return live(shop, INPUTS, settings)


def read_lists(stream: StreamSettings, count: int) -> list[service_pb2.Prediction]:
    """What the predictions topic holds, once it holds this many, in the order of their cut-offs."""
    source = KafkaSource(["nowgraph.predictions"], settings=stream)
    records: list[service_pb2.Prediction] = []
    until_s = time.monotonic() + 20
    while len(records) < count and time.monotonic() < until_s:
        records += [service_pb2.Prediction.FromString(value or b"") for value in source.poll(1000, 0.2).values]
    source.close()
    return sorted(records, key=lambda record: record.ranking.response.cutoff_time_us)


def test_each_click_is_in_the_next_list(system: Any) -> None:
    """With the token of a click the very next list knows it, and an item just added can be in it, ten times."""
    client, shop = system.client, system.world
    start_us = shop.start_us + 40 * shop.day_us
    for number in range(10):
        at_us = start_us + number * 1_000_000
        item = 100 + 2 * number
        client.ingest("items", item + 1, {"color": "red"}, event_time=at_us)
        token = client.ingest("items", item, {"color": "red"}, event_time=at_us)
        client.rank(freshness_token=token, event_time=at_us)
        token = client.ingest("clicks", 50_000 + number, {"user_id": 77, "item_id": item}, event_time=at_us)
        found = client.rank(77, k=30, freshness_token=token, event_time=at_us)
        assert found.history_count == number + 1
        assert found.newest_age_us == 0
        assert item + 1 in found.keys[: number + 1]  # what comes after the clicked item is on top
        assert found.graph_position.offsets[token.topic, token.partition] > token.offset


def test_what_just_happened_counts_for_the_real_ranker(
    shop: Any, settings: ServerSettings, ranking_checkpoint: Path, live: Callable[..., Any]
) -> None:
    """A click that Kafka delivered a moment ago is history, and an item that appeared a moment ago is ranked."""
    system = live(shop, INPUTS, settings, checkpoint=ranking_checkpoint)
    client, at_us = system.client, shop.start_us + 40 * shop.day_us
    assert client.rank(77, k=60, event_time=at_us).fallback
    token = client.ingest("items", 900, {"color": "red", "tags": ["a"]}, event_time=at_us)
    found = client.rank(77, k=60, freshness_token=token, event_time=at_us)
    (item,) = [item for item in found.items if item.key == 900]
    assert item.is_new
    assert "new" in item.sources
    for number in range(3):
        click_us = at_us + number
        cells = {"user_id": 77, "item_id": 900 if number else 3}
        token = client.ingest("clicks", 50_000 + number, cells, event_time=click_us)
        found = client.rank(77, k=60, freshness_token=token, event_time=click_us)
        assert (found.history_count, found.newest_age_us) == (number + 1, 0)
    assert 900 in found.keys
    assert 900 not in client.rank(77, k=60, exclude_seen=True, event_time=click_us).keys


def test_an_item_that_changed_is_in_the_next_list_as_what_it_became(
    shop: Any, settings: ServerSettings, ranking_checkpoint: Path, live: Callable[..., Any], tmp_path: Path
) -> None:
    """With the token of the change: found near the user as by a ranker that is loaded afterwards, with its scores."""
    checkpoint = Checkpoint.load(ranking_checkpoint, shop.schema)
    config = replace(checkpoint.task.ranking, co_visit=0, far=0, popular=0, new=0, nearest=4)
    replace(checkpoint, task=replace(checkpoint.task, ranking=config)).save(tmp_path / "near")
    client = live(shop, INPUTS, settings, checkpoint=tmp_path / "near").client
    at_us = shop.start_us + 40 * shop.day_us

    def near(found: RankedItems) -> dict[Any, float]:
        return {item.key: item.score for item in found.items if "nearest" in item.sources}

    before = near(client.rank(k=60, event_time=at_us))
    for key in range(20):
        cells = {"color": "green", "tags": ["c"], "price": 1e4 * key, "in_stock": True}
        token = client.ingest("items", key, cells, event_time=at_us)
    after = near(client.rank(k=60, freshness_token=token, event_time=at_us))
    fresh = load_model(tmp_path / "near", shop.graph.view(), settings)
    (expected,) = fresh.rank([RankQuestion(None, (), at_us, limit=60)]).lists

    assert set(after) != set(before)
    assert after == pytest.approx(dict(zip(expected.key, expected.score.tolist(), strict=True)), abs=1e-6)
    assert near(client.rank(k=60, event_time=at_us - 1)) == pytest.approx(before, abs=1e-3)


def test_every_list_is_on_the_predictions_topic_with_its_positions(system: Any) -> None:
    """What was asked, hashed, and what was shown: enough to join a later click to what was seen."""
    client, shop = system.client, system.world
    at_us = shop.start_us + 40 * shop.day_us
    seen = Row("clicks", 900, {"item_id": 4, "user_id": 123_454_321, "note": "a private note"}, at_us)
    first = client.rank(123_454_321, session=[seen], k=3, rules=ListRules(deny=[1]), event_time=at_us)
    second = client.rank(k=2, event_time=at_us + 1)
    one, other = read_lists(system.stream, 2)
    assert one.row.table == "users"
    assert one.row.key.parts[0].text == one.ranking.request.user.parts[0].text == shop.privacy.hash(123_454_321)
    assert one.row.event_time_us == one.ranking.request.event_time_us == at_us
    assert [(item.key.parts[0].integer, item.position) for item in one.ranking.response.items] == [
        (item.key, item.position) for item in first.items
    ]
    assert one.ranking.response.applied_rules[0].removed[0].parts[0].integer == 1
    assert one.ranking.response.graph_position.sequence == 40
    assert b"private note" not in one.SerializeToString()
    assert b"123454321" not in str(one).encode()
    assert not other.row.key.parts
    assert other.ranking.response.fallback == second.fallback is True
