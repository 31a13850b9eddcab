from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from nowgraph.client import AsyncClient, Client, InvalidRequestError, NotReadyError
from nowgraph.client_lists import (
    CategoryCap,
    Diversity,
    ItemFilter,
    ListRequest,
    ListRules,
    RankedItems,
    list_from_wire,
    list_to_wire,
)
from nowgraph.client_values import FreshnessToken, Row
from protos.nowgraph.v1 import prediction_service_pb2 as service_pb2

LIMITS = {"port": 0, "metrics_port": 0, "deadline_default_ms": 20_000, "deadline_reserve_ms": 500}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def test_everything_that_can_be_asked_reaches_the_wire() -> None:
    """Python's own values are enough: keys, rows, datetimes, a filter's value alone or several."""
    request = list_to_wire(
        ListRequest(
            user=("eu", 7),
            session=[Row("clicks", 1, {"item_id": 5}, EPOCH)],
            k=3,
            candidates=[1, np.int64(2)],  # type: ignore[list-item]  # as it comes out of arrays
            exclude=["x"],
            filters=[ItemFilter("color", "red"), ItemFilter("price", [1, np.float64(2.5)], negate=True)],
            exclude_seen=False,
            diversity=Diversity(0.5, "color"),
            rules=ListRules(allow=[1], deny=[2], caps=[CategoryCap("color", 2, "red")], new_share_min=0.2),
            event_time=EPOCH + timedelta(microseconds=9),
            freshness_token=FreshnessToken("clicks", 1, 2),
            request_id="r1",
        ),
        task="t",
        tenant="bank",
    )
    assert (request.task, request.tenant, request.request_id, request.k) == ("t", "bank", "r1", 3)
    assert [part.WhichOneof("part") for part in request.user.parts] == ["text", "integer"]
    assert [key.parts[0].integer for key in request.candidates] == [1, 2]
    assert (request.session[0].table, request.session[0].event_time_us) == ("clicks", 0)
    assert request.filters[0].values[0].text == "red"
    assert [value.number for value in request.filters[1].values] == [1.0, 2.5]
    assert request.filters[1].negate
    assert request.HasField("exclude_seen")
    assert (request.diversity.weight, request.diversity.column) == (0.5, "color")
    assert (request.rules.caps[0].value, request.rules.new_share_min) == ("red", 0.2)
    assert (request.event_time_us, request.freshness_token.offset) == (9, 2)


def test_what_is_not_asked_is_absent() -> None:
    """Nobody is not a key without parts, and no opinion is not a no."""
    assert list_to_wire(ListRequest()) == service_pb2.RankRequest()
    assert list_to_wire(ListRequest(filters=[ItemFilter("in_stock", True)])).filters[0].values[0].boolean is True


def test_a_value_that_no_filter_can_hold_is_refused() -> None:
    """Before it is sent."""
    with pytest.raises(TypeError, match="datetime"):
        list_to_wire(ListRequest(filters=[ItemFilter("at", [EPOCH])]))  # type: ignore[list-item]


def test_a_word_from_after_this_clients_time_is_its_number() -> None:
    """A newer server may know sources and rules that this client has no word for."""
    response = service_pb2.RankResponse()
    response.items.add(position=1, sources=[77, 2])
    response.applied_rules.add(rule=78)
    found = list_from_wire(response)
    assert found.items[0].sources == ("77", "popular")
    assert found.applied_rules[0].rule == "78"
    assert found.newest_age_us is None


@pytest.fixture
def target(shop: Any) -> Iterator[str]:
    """Where a server of lists answers."""
    with BackgroundServer(lambda: shop.server(ServerSettings(**LIMITS))) as running:
        yield running.target


@pytest.mark.integration
async def test_both_clients_say_the_same(target: str, shop: Any) -> None:
    """List, batch and errors; a datetime is as good as microseconds."""
    at_us = shop.start_us + 30 * shop.day_us
    at = EPOCH + timedelta(microseconds=at_us)
    asked = [ListRequest(7, k=2, event_time=at), ListRequest(7, k=-2)]
    with Client(target, timeout_s=20) as client:
        found = client.rank(7, k=2, event_time=at_us)
        batch = client.rank_batch(asked)
        with pytest.raises(InvalidRequestError) as error:
            client.rank(7, diversity=Diversity(0.5, "size"))
    assert error.value.field == "diversity.column"
    assert found.keys == (8, 0)
    async with AsyncClient(target, timeout_s=20) as other:
        assert (await other.rank(7, k=2, event_time=at)).items == found.items
        both = await other.rank_batch(asked)
        with pytest.raises(NotReadyError):
            await other.rank(7, freshness_token=FreshnessToken("history", 0, 10**6), timeout_s=1.0)
    for first, second in (batch, both):
        assert isinstance(first, RankedItems)
        assert first.items == found.items
        assert isinstance(second, InvalidRequestError)
        assert second.field == "k"
