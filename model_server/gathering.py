"""When what came together may be answered together: once the event loop has read it all.

    row ─► idle, and the last batch was of one row: now
        └► turns of the event loop until no more rows come ─► now
    batch answered ─► rows came meanwhile: turns of the event loop, the same

Between a row's bytes and the backlog lie some turns of the event loop, each of which brings more rows where many came
at once. A batch that is taken before costs its base and two changes of threads for a few of them, and takes the time
in which the loop would have read the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from model_server.quiet import Quiet

# No row waits longer for others: an event loop that is never quiet is the one that has no time.
GATHER_S = 0.02


class Gathering:
    """Says between batches when the next one is complete; all of it belongs to the event loop."""

    def __init__(
        self,
        waiting: Callable[[], int],
        take: Callable[[], None],
        *,
        unread: Callable[[], int] = lambda: 0,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`waiting` says how many rows wait, `take` is called when they are all that had come.

        `unread` says how many calls have come that may bring rows.
        """
        self._waiting = waiting
        self._take = take
        self._quiet = Quiet(lambda: waiting() + unread(), self._complete, limit_s=GATHER_S, clock_s=clock_s)
        self._busy = False
        self._alone = True

    def row_came(self, *, urgent: bool) -> None:
        """Notes a row that waits now; an `urgent` one waits for nobody."""
        if urgent or (self._alone and not self._busy and self._waiting() == 1):
            self._ready()
        elif not self._busy:
            self._quiet.begin()

    def answered(self, rows: int) -> None:
        """Notes that a batch of so many rows is answered: what came meanwhile is the next one."""
        self._busy = False
        self._alone = rows <= 1
        if self._waiting():
            self._quiet.begin()

    def _complete(self) -> None:
        if self._waiting() and not self._busy:
            self._ready()

    def _ready(self) -> None:
        self._busy = True
        self._take()
