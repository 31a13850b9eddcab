"""What is taken next to what, from the live graph as of each question's cut-off: histories, co-visits, degrees.

    users, cut-offs ──► histories ──► with_sessions ──► walk ──► CoVisits: (history entry, item) and three weights
    items, cut-offs ──► degrees

An interaction is a row that links a user and an item: a purchase line, a click. It counts when it is visible at the
cut-off, not deleted, and names, as of the cut-off, its user and an item that is not deleted. Among a user's
interactions it stands at the time from which it has been this user's: its visible time, or, if its link moved, the
visible time of the move. Nothing later than the cut-off is counted, of whichever user.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from online_sampler.errors import SeedError
from temporal_graph import _native
from temporal_graph.view import GraphView

COUNT_MAX: Final = 65_536
"""The longest history, the most visits and the widest window that are walked."""

Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Histories:
    """The interactions of B users, H in all, newest first per user."""

    offset: Int64
    """int64 [B + 1]: user b's are [offset[b], offset[b + 1])."""
    interaction: Int64
    """int64 [H]: rows of the interactions' table; -1 for those of a session, which are not in the graph."""
    item: Int64
    """int64 [H]: rows of the items' table; -1 for an item of a session that the graph does not know."""
    event_time_us: Int64
    """int64 [H]."""
    visible_time_us: Int64
    """int64 [H]: from when on the interaction has been this user's; the event time, of a session."""

    def __len__(self) -> int:
        """The number of users."""
        return len(self.offset) - 1

    def with_sessions(self, offset: Int64, item: Int64, event_time_us: Int64) -> Histories:
        """Return the histories with each user's session in front, as its newest interactions.

        A session's interactions that are in the graph already are the caller's to leave out.

        Args:
            offset: int64 [B + 1] over the sessions' interactions, M in all.
            item: int64 [M], rows of items, oldest first per session; -1 for an item that the graph does not know.
            event_time_us: int64 [M].

        Raises:
            SeedError: the arrays do not fit each other or the histories.
        """
        offset, item, event_time_us = _int64(offset), _int64(item), _int64(event_time_us)
        given, own = np.diff(offset), np.diff(self.offset)
        if len(offset) != len(self.offset) or len(item) != len(event_time_us):
            raise SeedError("sessions: as many offsets as histories, and as many times as items, are needed")
        if offset[0] != 0 or offset[-1] != len(item) or bool((given < 0).any()):
            raise SeedError("sessions: the offsets do not divide their items")
        starts = np.zeros(len(offset), np.int64)
        np.cumsum(given + own, out=starts[1:])
        # The n-th of a session, oldest first, stands n places before the session's end.
        of_session = np.repeat(starts[:-1] + given - 1 + offset[:-1], given) - np.arange(len(item))
        of_graph = np.repeat(starts[:-1] + given - self.offset[:-1], own) + np.arange(len(self.item))

        def merged(session: Int64, graph: Int64) -> Int64:
            column = np.empty(len(session) + len(graph), np.int64)
            column[of_session], column[of_graph] = session, graph
            return column

        return Histories(
            offset=starts,
            interaction=merged(np.full(len(item), -1, np.int64), self.interaction),
            item=merged(item, self.item),
            event_time_us=merged(event_time_us, self.event_time_us),
            visible_time_us=merged(event_time_us, self.visible_time_us),
        )


@dataclass(frozen=True, slots=True)
class CoVisits:
    """What other users took around the items of B histories: P pairs of a history entry and another item.

    The three weights are of what was taken after the entry's item, before it, and at the same time.
    """

    offset: Int64
    """int64 [B + 1] over the pairs."""
    history: Int64
    """int64 [P]: index into the histories' arrays, ascending by newest first."""
    item: Int64
    """int64 [P]: rows of items; each at most once for a history entry, never the entry's own."""
    weight: Float32
    """float32 [P, 3]: forward, backward, same."""
    total: Float32
    """float32 [H, 3]: sums of the weights over the entry's pairs."""
    visits: Int64
    """int64 [H]: how many interactions of the entry's item were looked around; 0 for an item walked before."""


@dataclass(frozen=True, slots=True)
class Degrees:
    """The interactions of n items that are visible at their cut-offs, whoever's.

    Rows that were moved or deleted are left out of the count of up to 1,024 interactions; among more they are counted,
    as telling them apart would read each of them.
    """

    count: Int64
    """int64 [n]."""
    first_us: Int64
    """int64 [n]: from when on the oldest has been the item's; ALWAYS_US where there is none."""
    last_us: Int64
    """int64 [n]: from when on the newest has been."""


class CoVisitWalk:
    """Walks user -> interaction -> item and back over one graph. One per thread: it owns memory that it uses again."""

    def __init__(self, view: GraphView, interactions: str, user_link: str, item_link: str) -> None:
        """Takes the table of interactions and the names of its links to the user and to the item.

        Raises:
            SchemaError: the schema has no such table, or the table no such link.
            SeedError: both are the same link.
        """
        table = view.schema.table(interactions)
        links = view.schema.links
        user, item = links.index(table.link(user_link)), links.index(table.link(item_link))
        if user == item:
            raise SeedError(f"{interactions}.{user_link} can't lead to both the user and the item")
        self.view = view
        self._native = _native.CoVisitWalk(view.native, user, item)

    def histories(self, user_row: Int64, cutoff_time_us: Int64, limit: int) -> Histories:
        """Return the newest `limit` interactions of each user.

        Args:
            user_row: int64 [B], -1 for nobody.
            cutoff_time_us: int64 [B].
            limit: at most this many of each, 0 to 65,536.

        Raises:
            SeedError: a row is not in the graph, the arrays differ in length, or the limit is out of range.
        """
        if not 0 <= limit <= COUNT_MAX:
            raise SeedError(f"limit: expected 0 to {COUNT_MAX}, found {limit}")
        try:
            return Histories(*self._native.histories(_int64(user_row), _int64(cutoff_time_us), limit))
        except (ValueError, IndexError) as error:
            raise SeedError(str(error)) from error

    def walk(
        self,
        histories: Histories,
        user_row: Int64,
        cutoff_time_us: Int64,
        *,
        visits: int = 256,
        window: int = 20,
        exponent: float = 0.35,
    ) -> CoVisits:
        """Return what other users took around each item of the histories.

        Of an entry's item, the newest `visits` interactions of users other than `user_row` are looked around. In that
        user's order, an interaction g places after it adds g^-exponent to the pair's forward weight, one g places
        before it to its backward weight, up to `window` places; one at the very same time adds 1 to its same weight and
        takes no place (up to 1,024 such on a side). The entry's own item takes places but is no pair. An item that
        stands in a history several times is walked once, for its newest entry.

        Args:
            histories: of B users.
            user_row: int64 [B], whose own interactions are no visits; -1 for nobody.
            cutoff_time_us: int64 [B].
            visits: the most interactions of an item that are looked around, at least 1.
            window: the most places on a side, at least 1.
            exponent: how weights fall with distance, from 0 on.

        Raises:
            SeedError: a row is not in the graph, the arrays differ in length, or a number is out of range.
        """
        for name, number in (("visits", visits), ("window", window)):
            if not 1 <= number <= COUNT_MAX:
                raise SeedError(f"{name}: expected 1 to {COUNT_MAX}, found {number}")
        try:
            found = self._native.walk(
                histories.offset,
                histories.item,
                _int64(user_row),
                _int64(cutoff_time_us),
                visits,
                window,
                exponent,
            )
        except (ValueError, IndexError) as error:
            raise SeedError(str(error)) from error
        return CoVisits(*found)

    def degrees(self, item_row: Int64, cutoff_time_us: Int64) -> Degrees:
        """Return how many interactions each item has, and since and until when.

        Args:
            item_row: int64 [n]; -1 for an item that the graph does not know, which has none.
            cutoff_time_us: int64 [n].

        Raises:
            SeedError: a row is not in the graph, or the arrays differ in length.
        """
        try:
            return Degrees(*self._native.degrees(_int64(item_row), _int64(cutoff_time_us)))
        except (ValueError, IndexError) as error:
            raise SeedError(str(error)) from error


def _int64(values: Int64) -> Int64:
    return np.ascontiguousarray(values, dtype=np.int64)
