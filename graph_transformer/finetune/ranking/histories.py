"""What users did: every interaction with the time it was visible, and what of it each question may see.

versions of the interactions ─► Interactions ─► Histories of questions | all that was visible at one time
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.query.rows import RowSource
from graph_transformer.finetune.ranking.questions import RankingQuestions
from graph_transformer.ranking.asked import offsets, owners, spans, taken
from graph_transformer.target import Ranked

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Histories:
    """The interactions that n questions see, sessions included, oldest first by event time.

    offset int64 [n + 1]; item and event_time_us int64 [h].
    """

    offset: Int64
    item: Int64
    event_time_us: Int64

    def select(self, places: Int64) -> Histories:
        """Return the histories of the questions at these positions."""
        count, at = taken(self.offset, places)
        return Histories(offsets(count), self.item[at], self.event_time_us[at])

    @property
    def question(self) -> Int64:
        """int64 [h]: whose history each interaction is of."""
        return owners(self.offset)

    @property
    def place(self) -> Int64:
        """int64 [h]: how many interactions of the same history came later: 0 for the newest."""
        owner = self.question
        return self.offset[1:][owner] - 1 - np.arange(len(owner))


@dataclass(frozen=True)
class Interactions:
    """Every state in which a row names an item, by user and then event time; int64 [m] each.

    row, of the interactions' table; user, -1 for nobody; item; event_time_us; it held from `from_us` until before
    `to_us`.
    """

    row: Int64
    user: Int64
    item: Int64
    event_time_us: Int64
    from_us: Int64
    to_us: Int64

    @classmethod
    def of(cls, source: RowSource, ranked: Ranked) -> Interactions:
        """Return the interactions of a ranking."""
        versions = source.versions(ranked.interactions)
        user = versions.parents[:, versions.link_names.index(ranked.user_link)]
        item = versions.parents[:, versions.link_names.index(ranked.item_link)]
        kept = np.flatnonzero(~versions.deleted & (item >= 0))
        kept = kept[np.lexsort((versions.event_time_us[kept], user[kept]))]
        return cls(
            versions.row[kept],
            user[kept],
            item[kept],
            versions.event_time_us[kept],
            versions.valid_from_us[kept],
            versions.valid_to_us[kept],
        )

    def __len__(self) -> int:
        """The number of states."""
        return len(self.user)

    def select(self, mask: NDArray[np.bool_]) -> Interactions:
        """Return the states where this mask is true."""
        return Interactions(
            self.row[mask],
            self.user[mask],
            self.item[mask],
            self.event_time_us[mask],
            self.from_us[mask],
            self.to_us[mask],
        )

    @property
    def arrived(self) -> tuple[Int64, Int64]:
        """The item of every row and when it was first visible, by that time."""
        order = np.lexsort((self.row, self.from_us))
        _, first = np.unique(self.row[order], return_index=True)
        first = order[np.sort(first)]
        return self.item[first], self.from_us[first]

    def visible(self, cutoff_time_us: int) -> Interactions:
        """Return what was visible at a time, each row once."""
        return self.select((self.from_us <= cutoff_time_us) & (cutoff_time_us < self.to_us))

    @cached_property
    def first_us(self) -> dict[str, Int64]:
        """From when each `user` and each `item` was seen in an interaction, int64 by row, as long as the rows go."""
        found = {}
        for name, row in (("user", self.user), ("item", self.item)):
            first = np.full(int(row.max(initial=-1)) + 1, np.iinfo(np.int64).max)
            np.minimum.at(first, row[row >= 0], self.from_us[row >= 0])
            found[name] = first
        return found

    def histories(self, questions: RankingQuestions) -> Histories:
        """Return what each question sees of its user's interactions at its cut-off, and its session."""
        low = np.searchsorted(self.user, questions.user, side="left")
        high = np.searchsorted(self.user, questions.user, side="right")
        at, owner = spans(low, np.where(questions.user >= 0, high, low))
        cutoff_us = questions.cutoff_time_us[owner]
        seen = (self.from_us[at] <= cutoff_us) & (cutoff_us < self.to_us[at])
        owner, item, time_us = owner[seen], self.item[at[seen]], self.event_time_us[at[seen]]
        if questions.sessions is not None:
            session = questions.sessions
            theirs = owners(session.offset)
            owner = np.concatenate([owner, theirs])
            item, time_us = np.append(item, session.item), np.append(time_us, session.event_time_us)
            order = np.lexsort((time_us, owner))
            owner, item, time_us = owner[order], item[order], time_us[order]
        offset = np.searchsorted(owner, np.arange(len(questions) + 1)).astype(np.int64)
        return Histories(offset, item, time_us)
