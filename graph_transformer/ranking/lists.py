"""What is asked of a ranker, and what it answers: plain values between the server and the model.

RankQuestion ─► ListRanker.rank ─► RankedLists of one RankedList a question
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from temporal_graph.view import GraphPosition, Key

if TYPE_CHECKING:
    from graph_transformer.task import Task

LIMIT_MAX = 1000
"""Most items of one answer: what is ranked is a few hundred candidates, and a page shows tens."""


class Source(IntFlag):
    """Why an item was ranked; one item may have several."""

    CO_VISIT = 1
    """Others who had an item of the history came to it, over two links or four."""
    POPULAR = 2
    """Recently popular."""
    NEW = 4
    """Among those that became visible last."""
    NEAREST = 8
    """Its vector is near the user's."""
    HISTORY = 16
    """The user had it before."""
    GIVEN = 32
    """The question named it."""


@dataclass(frozen=True, slots=True)
class ItemFilter:
    """Keeps items whose cell of `column`, as of the cut-off, is one of `values`; `negate` keeps the others.

    Of a multicategorical column one element in common is enough. A null cell is equal to no value.
    """

    column: str
    values: tuple[str | float | bool, ...]
    negate: bool = False


@dataclass(frozen=True, slots=True)
class RankQuestion:
    """Which items come next for a user, a session, or both, as of `cutoff_time_us`; at most `limit` of them.

    user: a key that is not in the graph is a user without history; None is nobody. session: serialized RowEvents of
    the interaction table, oldest first, that count as the newest of the history. candidates: rank these alone, in the
    graph or not (those that are not are left out). exclude: never these. exclude_seen: none of the history and the
    session. filters: all of them must hold. asked_time_us: when it is asked, where the graph is read only up to an
    earlier cut-off: what the session may know, and what ages count from.
    """

    user: Key | None
    session: tuple[bytes, ...]
    cutoff_time_us: int
    limit: int = 10
    candidates: tuple[Key, ...] | None = None
    exclude: tuple[Key, ...] = ()
    exclude_seen: bool = False
    filters: tuple[ItemFilter, ...] = ()
    asked_time_us: int | None = None


@dataclass(frozen=True, slots=True)
class RankedList:
    """An answer: n items, the best first, ties in the order of their keys; no item twice.

    item int64[n]: rows. key: their keys. score float64[n], falling, comparable within the list alone. source int64[n]:
    flags of `Source`. first_seen_us int64[n]: when the item became visible, ALWAYS_US in a table without time.
    history_count: interactions of the user in the graph that the answer saw, the newest few thousand at most;
    session_count: those of the session. newest_age_us: of the newest of both at the cut-off, None where there is none.
    candidate_count: items that were ranked, before the limit.
    """

    item: NDArray[np.int64]
    key: list[Key]
    score: NDArray[np.float64]
    source: NDArray[np.int64]
    first_seen_us: NDArray[np.int64]
    history_count: int
    session_count: int
    newest_age_us: int | None
    candidate_count: int

    def __len__(self) -> int:
        """The number of items."""
        return len(self.item)


@dataclass(frozen=True, slots=True)
class RankedLists:
    """Answers in the order of the questions, all computed at one position of the graph, with the time two stages took.

    retrieve_us: new rows taken in, histories, walks and candidates; forward_us: features and the model. Of all
    questions together.
    """

    lists: tuple[RankedList, ...]
    position: GraphPosition
    retrieve_us: int
    forward_us: int

    def __len__(self) -> int:
        """The number of questions."""
        return len(self.lists)


class ListRanker(Protocol):
    """What a server needs of a ranker. One thread at a time."""

    @property
    def task(self) -> Task:
        """What is ranked: `task.target.ranked` names the tables and links."""

    @property
    def version(self) -> str:
        """The checkpoint's."""

    def rank(self, questions: Sequence[RankQuestion]) -> RankedLists:
        """Answer the questions, each at its own cut-off, on the graph as it is now.

        Raises:
            RankQuestionError: a question can not be answered as it is asked: which one, and its field.
        """
