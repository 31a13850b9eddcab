"""What is being answered, counted: so that a drain can wait for it, or end it, and who comes alone be known."""

from __future__ import annotations

import asyncio
from typing import Any


class InFlight:
    """Counts what is being answered: a context manager around each. Belongs to the event loop."""

    def __init__(self) -> None:
        self.count = 0
        self.draining = asyncio.Event()
        # The tasks that answer: what `end` cancels.
        self.tasks: set[asyncio.Task[Any]] = set()
        self.ended = False
        self._idle = asyncio.Event()
        self._idle.set()

    def __enter__(self) -> None:
        self.count += 1
        self._idle.clear()

    def __exit__(self, *_: object) -> None:
        self.count -= 1
        if self.count == 0:
            self._idle.set()

    async def idle(self) -> None:
        """Returns when nothing is being answered."""
        await self._idle.wait()

    def end(self) -> None:
        """Cancels the tasks that answer; from then on `ended` tells them why."""
        self.ended = True
        for task in list(self.tasks):
            task.cancel()
