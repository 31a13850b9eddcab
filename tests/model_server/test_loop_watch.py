from __future__ import annotations

import asyncio
import time

from model_server.loop_watch import watch_loop
from model_server.metrics import Metrics


async def test_a_blocked_loop_is_seen() -> None:
    """Work that holds the loop for 100 ms is observed as a stall of about so long; an idle loop stalls for less."""
    metrics = Metrics()
    watch = asyncio.create_task(watch_loop(metrics.event_loop_stall, every_s=0.01))
    await asyncio.sleep(0.05)
    time.sleep(0.1)  # noqa: ASYNC251 - the stall
    await asyncio.sleep(0.05)
    watch.cancel()
    value = metrics.registry.get_sample_value
    counted = value("nowgraph_event_loop_stall_seconds_count") or 0
    below_50_ms = value("nowgraph_event_loop_stall_seconds_bucket", {"le": "0.05"})
    assert counted >= 2
    assert below_50_ms is not None
    assert counted - below_50_ms >= 1
