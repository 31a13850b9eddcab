"""The walk of an erasure: what it finds, in portions, and what it counts. Against RAM: `test_redis_erasure.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protos.nowgraph.v1 import row_event_pb2 as pb
from temporal_graph.redis import erasing
from temporal_graph.redis.erasure_scripts import LOCK
from temporal_graph.redis.shards import Shards

pytestmark = pytest.mark.integration

Payment = Callable[..., bytes]


def test_a_hub_is_erased_in_portions(cluster: Any, payment: Payment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a customer with more payments than one portion all links are cut, and each portion is a sign of life."""
    monkeypatch.setattr(erasing, "ENTRIES_AT_ONCE", 3)
    monkeypatch.setattr(erasing, "ROWS_AT_ONCE", 4)
    cluster.apply([payment(number, 5, customer=1) for number in range(10)])
    beats = []
    monkeypatch.setattr("temporal_graph.redis.lock.Lock.beat", lambda _: beats.append(1))
    customer = pb.RowEvent(table="customers", operation=pb.OPERATION_ERASE, event_time_us=6)
    customer.key.parts.add().integer = 1
    cluster.apply([customer.SerializeToString()])
    assert len(beats) == 1 + 3
    told = cluster.graph.erased("payments")
    assert (told.rows, told.versions, told.links) == (0, 0, 10)
    assert cluster.graph.erased("customers").rows == 1


def test_what_nobody_knows_is_marked_and_leaves_no_name(
    cluster: Any, payment: Payment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An erasure that comes before all else holds for what comes later, and is done once."""
    assert cluster.apply([payment(1, 6, operation="ERASE")] * 2).applied == 1
    calls: list[Any] = []
    run = Shards.run

    def notes(self: Shards, script: Any, *more: Any, **head: Any) -> Any:
        calls.append(script)
        return run(self, script, *more, **head)

    monkeypatch.setattr(Shards, "run", notes)
    assert cluster.apply([payment(1, 6, operation="ERASE")]).duplicate == 1
    assert LOCK not in calls
    late = cluster.apply([payment(1, 6), payment(1, 7)])
    assert (late.applied, late.erased) == (1, 1)
