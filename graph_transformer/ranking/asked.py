"""Questions of a ranking as rows and times, many at once: what retrieval, features and towers work on.

Ranker: RankQuestions with keys and events ─┐
training: RankingQuestions of the past ─────┴─► Asked
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Mask = NDArray[np.bool_]
ScalarT = TypeVar("ScalarT", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Ragged:
    """Lists of rows, one a question: those of question b are row[offset[b] : offset[b + 1]], int64."""

    offset: Int64
    row: Int64

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> Ragged:
        """Build from lists of rows."""
        count = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
        return cls(offsets(count), np.array([row for each in lists for row in each], dtype=np.int64))

    @classmethod
    def none(cls, questions: int) -> Ragged:
        """No rows for so many questions."""
        return cls(np.zeros(questions + 1, dtype=np.int64), np.zeros(0, dtype=np.int64))

    @property
    def question(self) -> Int64:
        """int64[m]: whose list each row is in."""
        return owners(self.offset)

    def select(self, places: Int64) -> Ragged:
        """Return the lists at these places."""
        count, at = taken(self.offset, places)
        return Ragged(offsets(count), self.row[at])


@dataclass(frozen=True, slots=True)
class Asked:
    """B questions. user, cutoff_time_us, asked_time_us int64[B]: -1 is nobody; the graph is read up to the cut-off.

    Ages count from the time asked, which is later than the cut-off of a graph that has ended.

    session: rows of the items of each session, oldest first (-1: unknown to the graph), session_time_us int64 beside
    them; events: the same as serialized RowEvents, for the towers. given: rank these alone, and only where `is_given`
    bool[B]. without: items that no answer may hold. exclude_seen bool[B].
    """

    user: Int64
    cutoff_time_us: Int64
    asked_time_us: Int64
    session: Ragged
    session_time_us: Int64
    events: tuple[tuple[bytes, ...], ...]
    given: Ragged
    is_given: Mask
    without: Ragged
    exclude_seen: Mask

    def __len__(self) -> int:
        """The number of questions."""
        return len(self.user)

    @classmethod
    def plain(
        cls, user: Int64, cutoff_time_us: Int64, asked_time_us: Int64 | None = None, *, exclude_seen: bool
    ) -> Asked:
        """Questions of users alone, int64[B] each."""
        count = len(user)
        return cls(
            user,
            cutoff_time_us,
            cutoff_time_us if asked_time_us is None else asked_time_us,
            Ragged.none(count),
            np.zeros(0, dtype=np.int64),
            ((),) * count,
            Ragged.none(count),
            np.zeros(count, dtype=bool),
            Ragged.none(count),
            np.full(count, exclude_seen),
        )

    def with_sessions(self, session: Ragged, session_time_us: Int64, events: tuple[tuple[bytes, ...], ...]) -> Asked:
        """Return the questions with sessions."""
        return replace(self, session=session, session_time_us=session_time_us, events=events)

    def select(self, places: Int64) -> Asked:
        """Return the questions at these places."""
        _, at = taken(self.session.offset, places)
        return Asked(
            self.user[places],
            self.cutoff_time_us[places],
            self.asked_time_us[places],
            self.session.select(places),
            self.session_time_us[at],
            tuple(self.events[place] for place in places),
            self.given.select(places),
            self.is_given[places],
            self.without.select(places),
            self.exclude_seen[places],
        )


def offsets(count: Int64) -> Int64:
    """Return int64[n + 1], the ends of parts of these sizes."""
    found = np.zeros(len(count) + 1, dtype=np.int64)
    np.cumsum(count, out=found[1:])
    return found


def owners(offset: Int64) -> Int64:
    """Return int64[m]: the part that each position lies in."""
    return np.repeat(np.arange(len(offset) - 1), np.diff(offset))


def distinct(number: Int64) -> Int64:
    """Return the numbers int64[n], each once, rising. It sorts: `numpy.unique` hashes, which takes 20 times as long."""
    found = np.sort(number)
    return found[np.append(True, found[1:] != found[:-1])] if len(found) else found


def longer(array: NDArray[ScalarT], more: int) -> NDArray[ScalarT]:
    """Return an array [n, ...] with so many lines of zeros behind it."""
    return np.concatenate([array, np.zeros((more, *array.shape[1:]), dtype=array.dtype)])


def among(owner: Int64, item: Int64, list_owner: Int64, listed: Int64) -> Mask:
    """Return which pairs (owner, item) stand among others; an item below 0 does not. The first two broadcast."""
    span = np.int64(max(int(item.max(initial=0)), int(listed.max(initial=0))) + 1)
    known = np.sort((list_owner * span + listed)[listed >= 0])
    pair = np.where(item >= 0, owner * span + item, -1)
    if not len(known):
        return np.zeros(pair.shape, dtype=bool)
    found: Mask = known[np.minimum(np.searchsorted(known, pair), len(known) - 1)] == pair
    return found


def taken(offset: Int64, places: Int64) -> tuple[Int64, Int64]:
    """Return (sizes int64[p], positions of all that lies in them) of the parts at these places."""
    low, high = offset[:-1][places], offset[1:][places]
    return high - low, spans(low, high)[0]


def spans(low: Int64, high: Int64) -> tuple[Int64, Int64]:
    """Return (all positions of the spans [low, high) int64[n], one after the other, and the span each is of)."""
    count = high - low
    starts = np.cumsum(count) - count
    owner = np.repeat(np.arange(len(count)), count)
    return np.arange(len(owner)) + (low - starts)[owner], owner
