"""What these tests share: a graph in the cluster, and its shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from temporal_graph.redis.shards import Shards
from temporal_graph.schema import Schema


@pytest.fixture
def cluster(redis_stores: Any, shared_redis_cluster: Callable[[], str], schema: Schema) -> Any:
    """A graph of the payments in the cluster."""
    return redis_stores(shared_redis_cluster(), schema)


@pytest.fixture(params=["one", "six"])
def shards(
    request: pytest.FixtureRequest, shared_redis: Callable[[], str], shared_redis_cluster: Callable[[], str]
) -> Iterator[Shards]:
    """Connections to one Redis and to the cluster of six nodes."""
    url = shared_redis if request.param == "one" else shared_redis_cluster
    made = Shards(url())
    yield made
    made.close()
