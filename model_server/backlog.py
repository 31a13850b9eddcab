"""What waits for the worker: two classes, each by deadline, the interactive one first and the other never forgotten.

push ─► interactive: earliest deadline first ─┐
     ─► batch:       earliest deadline first ─┴─► take: `batch_share` of the rows is of that class
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from enum import IntEnum
from typing import Generic, Protocol, TypeVar


class Priority(IntEnum):
    """The class of a request: who is taken first, and shed last."""

    INTERACTIVE = 0
    BATCH = 1


class Timed(Protocol):
    """What can wait."""

    @property
    def deadline_s(self) -> float:
        """The moment (time.monotonic) after which nobody listens."""


WaitingT = TypeVar("WaitingT", bound=Timed)


class Backlog(Generic[WaitingT]):
    """The waiting jobs. Whoever shares it between threads guards it."""

    def __init__(self, *, batch_share: float) -> None:
        """`batch_share` of what is taken is of the batch class, as long as both classes wait."""
        # By falling deadline, of equals the last one first: what is served next stands at the end.
        self._lines: tuple[list[tuple[float, int, WaitingT]], ...] = ([], [])
        self._batch_share = batch_share
        self._credit = 0.0
        self._number = 0

    def __len__(self) -> int:
        return len(self._lines[0]) + len(self._lines[1])

    def waiting(self, priority: Priority) -> int:
        """How many of a class wait."""
        return len(self._lines[priority])

    def push(self, job: WaitingT, priority: Priority) -> None:
        """Lets a job wait."""
        self._number += 1
        bisect.insort(self._lines[priority], (-job.deadline_s, -self._number, job))

    def ahead_of(self, priority: Priority, deadline_s: float) -> float:
        """Rows that are taken before one that comes now, the other class's share included."""
        interactive, batch = self._lines
        line = self._lines[priority]
        ahead = len(line) - bisect.bisect_left(line, (-deadline_s,))
        if priority is Priority.BATCH:
            return float(len(interactive) + ahead)
        return ahead + self._meanwhile(ahead, len(batch))

    def last(self, priority: Priority) -> tuple[float, float]:
        """Rows of a class with the other's share, and the latest deadline among them; (0, 0) of none."""
        line = self._lines[priority]
        if not line:
            return 0.0, 0.0
        other = self._lines[Priority.INTERACTIVE if priority is Priority.BATCH else Priority.BATCH]
        more = len(other) if priority is Priority.BATCH else self._meanwhile(len(line), len(other))
        return len(line) + more, -line[0][0]

    def drop_newest_batch(self) -> WaitingT | None:
        """Takes the job of the batch class out that would have been served last; None where none waits."""
        line = self._lines[Priority.BATCH]
        return line.pop(0)[2] if line else None

    def __iter__(self) -> Iterator[WaitingT]:
        """Takes the jobs out one by one, in the order in which they are to be served."""
        return self

    def __next__(self) -> WaitingT:
        interactive, batch = self._lines
        if not interactive and not batch:
            raise StopIteration
        if interactive and batch:
            # The batch class gains its share with every row that is taken, and pays one for each of its own.
            self._credit += self._batch_share
            line = batch if self._credit > 0.999 else interactive  # tenths do not add up to 1
            self._credit -= line is batch
        else:
            line = interactive or batch
        return line.pop()[2]

    def _meanwhile(self, interactive: int, batch: int) -> float:
        """Rows of the batch class that are taken while so many of the interactive one are."""
        return min(batch, interactive * self._batch_share / (1.0 - self._batch_share))
