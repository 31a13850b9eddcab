"""The interactions of a ranking as columns: which user had which item when, as was known by a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.query.rows import RowSource
from graph_transformer.target import Ranked
from temporal_graph.time_rule import TIME_MAX_US

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Visits:
    """m interactions by user and event time: user, item int64 [m] rows; event_time_us, visible_time_us int64 [m]."""

    user: Int64
    item: Int64
    event_time_us: Int64
    visible_time_us: Int64

    def __len__(self) -> int:
        """The number of interactions."""
        return len(self.user)

    def select(self, chosen: NDArray[Any]) -> Visits:
        """Return the interactions at these positions, or where this mask is true."""
        return Visits(self.user[chosen], self.item[chosen], self.event_time_us[chosen], self.visible_time_us[chosen])

    def seen(self, user: Int64, cutoff_time_us: Int64) -> tuple[Int64, Int64]:
        """Return (question int64 [s], item int64 [s]): what users int64 [n] had that is visible at their cut-offs."""
        low, high = np.searchsorted(self.user, user, side="left"), np.searchsorted(self.user, user, side="right")
        count = high - low
        question = np.repeat(np.arange(len(user)), count)
        at = np.repeat(low - np.cumsum(count) + count, count) + np.arange(int(count.sum()))
        visible = self.visible_time_us[at] <= cutoff_time_us[question]
        return question[visible], self.item[at[visible]]


def visits_of(source: RowSource, ranked: Ranked, *, known_by_us: int | None = None) -> Visits:
    """Return the interactions that were known by a time (None: ever), each as it stood then."""
    versions = source.versions(ranked.interactions)
    known_by = TIME_MAX_US - 1 if known_by_us is None else known_by_us
    user = versions.parents[:, versions.link_names.index(ranked.user_link)]
    item = versions.parents[:, versions.link_names.index(ranked.item_link)]
    first = np.flatnonzero(np.diff(versions.row, prepend=-1) != 0)
    visible_us = np.repeat(versions.valid_from_us[first], np.diff(np.append(first, len(versions))))
    known = (versions.valid_from_us <= known_by) & (known_by < versions.valid_to_us) & ~versions.deleted
    stands = np.flatnonzero(known & (user >= 0) & (item >= 0))
    order = stands[np.lexsort((versions.row[stands], versions.event_time_us[stands], user[stands]))]
    return Visits(user[order], item[order], versions.event_time_us[order], visible_us[order])
