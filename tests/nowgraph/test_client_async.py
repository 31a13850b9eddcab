from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from model_server.background import BackgroundServer
from model_server.settings import ServerSettings
from nowgraph.client import AsyncClient, InvalidRequestError, NotReadyError, Row, Score
from nowgraph.client_channel import Tls

pytestmark = pytest.mark.integration


async def test_the_async_client_says_the_same(world: Any) -> None:
    """Score, batch, stream, neighborhood and errors, on an event loop."""
    time = datetime.fromtimestamp(world.start_us / 1e6, UTC) + timedelta(days=1)  # after all that is in the graph

    async def rows() -> AsyncIterator[Row]:
        for _ in range(20):
            yield Row("transactions", 1000, {"customer_id": 3}, time)

    settings = ServerSettings(port=0, metrics_port=0, deadline_default_ms=20_000)
    with BackgroundServer(lambda: world.server(settings)) as server:
        async with AsyncClient(server.target, timeout_s=20) as client:
            score = await client.score("transactions", 1000, {"customer_id": 3}, event_time=time)
            batch = await client.score_batch([Row("transactions", 1000, {"customer_id": 3}, time)])
            stream = [result async for result in client.score_stream(rows())]
            seen = await client.neighborhood("transactions", 1000, {"customer_id": 3}, event_time=time)
            with pytest.raises(InvalidRequestError) as error:
                await client.score("transactions", 1, {"tx_amount": "much"})
            with pytest.raises(NotReadyError):
                await client.ingest("transactions", 1)
    assert error.value.field == "row.cells[0].text"
    scores = [result for result in [*batch, *stream] if isinstance(result, Score)]
    assert len(scores) == 21
    assert {round(one.logit, 4) for one in scores} == {round(score.logit, 4)}
    assert {one.request_id for one in scores[1:]} == {str(number) for number in range(20)}
    assert len(seen.neighbors) == score.neighbor_count + 1


async def test_a_client_whose_files_changed_twice_closes_what_it_opened(
    tmp_path: Path, authority: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channel before the last one is closed on the way, the others with the client."""
    monkeypatch.setattr("nowgraph.client_channel.TLS_CHECK_S", 0.0)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.pem)
    client = AsyncClient("localhost:1", tls=Tls(ca=ca))
    connection = client._connection
    seen = set(connection.channels)
    for number in range(2):
        ca.write_bytes(authority.pem + b"\n" * (number + 1))
        for _ in range(2):  # noticed, and taken at the next look
            assert connection.stub is not None
        seen |= set(connection.channels)
    assert (len(seen), len(connection.channels)) == (3, 2)
    await client.close()
    assert {channel.get_state() for channel in seen} == {grpc.ChannelConnectivity.SHUTDOWN}
