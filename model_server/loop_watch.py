"""How long the event loop keeps a request waiting before it is read: the lateness of a timer of its own."""

from __future__ import annotations

import asyncio

from prometheus_client import Histogram

# Often enough to see what lasts longer than the promise of 5 ms, at a ten-thousandth of a core.
LOOK_EVERY_S = 0.02


async def watch_loop(stall: Histogram, every_s: float = LOOK_EVERY_S) -> None:
    """Observes how late each of its timers is, until it is cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + every_s
        await asyncio.sleep(every_s)
        stall.observe(max(0.0, loop.time() - due_s))
