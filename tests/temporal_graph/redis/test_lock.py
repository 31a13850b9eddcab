"""Who erases has the graph to itself; who finds it taken waits, and takes it from the dead."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from temporal_graph.redis import lock
from temporal_graph.redis.errors import ErasingError, StaleWriterError
from temporal_graph.redis.graph import RedisGraph
from temporal_graph.redis.scripts import SET_FIELDS

pytestmark = pytest.mark.integration

OTHER = ("payments", 1)


@pytest.fixture
def other(cluster: Any) -> Any:
    """Another writer of the same graph."""
    with RedisGraph.open(cluster.url, cluster.schema, namespace=cluster.namespace) as graph:
        graph.claim([OTHER])
        yield graph


def test_nobody_else_writes_while_it_is_held(cluster: Any, other: RedisGraph, payment: Any) -> None:
    """A batch waits until the lock is free, is written then, and the account tells readers of both."""
    done = threading.Event()

    def writes() -> None:
        other.apply([payment(1, 5)], positions={OTHER: 1})
        done.set()

    with cluster.graph._lock.held():
        assert cluster.view.state().erasures < 0
        with pytest.raises(ErasingError), other._lock.held():
            pass
        thread = threading.Thread(target=writes)
        thread.start()
        assert not done.wait(0.3)
    assert done.wait(20)
    thread.join()
    assert cluster.view.state().erasures > 0
    assert other.positions == {OTHER: 1}


def test_a_lock_of_the_dead_is_taken(
    cluster: Any, other: RedisGraph, payment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An eraser that says nothing for so long is gone; if it comes back it may write nothing under its lock."""
    monkeypatch.setattr(lock, "PATIENCE_S", 0.1)
    cluster.graph.claim([("payments", 0)])
    graph = cluster.graph

    def comes_back_too_late() -> None:
        with graph._lock.held():
            other.apply([payment(1, 5)], positions={OTHER: 1})
            position = graph._names.positions, b"payments/0", 1
            graph._shards.run(SET_FIELDS, [(0, position)], head=graph._head([("payments", 0)]))

    with pytest.raises(ErasingError):
        comes_back_too_late()
    assert other.positions == {OTHER: 1}
    cluster.graph.apply([payment(2, 5)])
    assert cluster.view.state().erasures > 0


def test_an_error_frees_it(cluster: Any, other: RedisGraph, payment: Any) -> None:
    """Others need not wait for who was refused on the way."""
    with pytest.raises(StaleWriterError), cluster.graph._lock.held():
        raise StaleWriterError("another has the partition")
    assert other.apply([payment(1, 5)], positions={OTHER: 1}).applied == 1
