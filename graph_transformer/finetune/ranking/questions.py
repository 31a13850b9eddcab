"""Questions of a ranking whose answers are known: a user, a cut-off, and the items that followed.

    fixed anchors ─► make_labels ─┐
    anchors before interactions ──┴─► RankingQuestions ─► an interval, those known by a time, those of a frozen graph

Asked just before an interaction the cut-off is one microsecond before its event time; several at one time are one
question, and its answer all that falls into the window.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph_transformer.errors import TaskError
from graph_transformer.finetune.query.aggregate import Contributions, contributions_of
from graph_transformer.finetune.query.bound import BoundQuery
from graph_transformer.finetune.query.calendar import shifted
from graph_transformer.finetune.query.label_table import LabelTable
from graph_transformer.finetune.query.rows import RowSource, States
from graph_transformer.finetune.query.syntax import Aggregation
from graph_transformer.finetune.ranking.presence import Presence
from graph_transformer.finetune.task_file import Anchors
from graph_transformer.ranking.asked import distinct, offsets, owners, spans, taken
from graph_transformer.splits import Interval
from graph_transformer.target import Kind, Ranked, Target
from temporal_graph.time_rule import cutoff_for_event

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sessions:
    """Interactions that come with n questions and not from the graph, oldest first.

    offset int64 [n + 1]; interaction int64 [s], rows of the interactions' table; item and event_time_us
    int64 [s].
    """

    offset: Int64
    interaction: Int64
    item: Int64
    event_time_us: Int64


@dataclass(frozen=True, slots=True)
class RankingQuestions:
    """n questions by time and user, each with at least one item.

    user int64 [n], rows; time_us int64 [n], when the user is asked; cutoff_time_us int64 [n], what the graph may show,
    at most time_us; known_time_us int64 [n], from when on the items may be known. The distinct items of question i are
    the rows item[item_offset[i] : item_offset[i + 1]], ascending. `sessions`: what a graph that ended before time_us
    lacks of the users' own interactions.
    """

    user: Int64
    time_us: Int64
    cutoff_time_us: Int64
    known_time_us: Int64
    item_offset: Int64
    item: Int64
    sessions: Sessions | None = None

    def __len__(self) -> int:
        """The number of questions."""
        return len(self.user)

    @property
    def question(self) -> Int64:
        """int64 [items]: whose question each of the items answers."""
        return owners(self.item_offset)

    def select(self, chosen: NDArray[Any]) -> RankingQuestions:
        """Return the questions at these positions, or where this mask is true."""
        places = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
        count, at = taken(self.item_offset, places)
        sessions = self.sessions
        if sessions is not None:
            theirs, of = taken(sessions.offset, places)
            sessions = Sessions(
                offsets(theirs), sessions.interaction[of], sessions.item[of], sessions.event_time_us[of]
            )
        return RankingQuestions(
            self.user[places],
            self.time_us[places],
            self.cutoff_time_us[places],
            self.known_time_us[places],
            offsets(count),
            self.item[at],
            sessions,
        )

    def drawn(self, most: int, random: np.random.Generator) -> RankingQuestions:
        """Return at most so many questions, drawn alike and in their order; all of them where they are no more."""
        if len(self) <= most:
            return self
        return self.select(np.sort(random.permutation(len(self))[:most]))

    def interval(self, interval: Interval) -> RankingQuestions:
        """Return the questions that are asked in an interval."""
        return self.select((self.time_us >= interval.start_us) & (self.time_us < interval.end_us))

    def known_by(self, time_us: int | None) -> RankingQuestions:
        """Return the questions whose items are known by a time (None: ever)."""
        return self if time_us is None else self.select(self.known_time_us <= time_us)

    def frozen(self, frozen_us: int | None, source: RowSource, ranked: Ranked) -> RankingQuestions:
        """Return the questions as asked of a graph that ended at a time (None: as they are).

        What the user did since, and would have been visible when asked, comes as a session.
        """
        if frozen_us is None:
            return self
        cutoff_time_us = np.minimum(self.cutoff_time_us, frozen_us)
        sessions = _sessions(self, cutoff_time_us, source, ranked)
        return replace(self, cutoff_time_us=cutoff_time_us, sessions=sessions)

    def to_labels(self, target: Target) -> LabelTable:
        """Return the questions as a table of labels, for a file."""
        assert target.ranked is not None
        label = np.diff(self.item_offset).astype(np.float64)
        return LabelTable(
            target, self.user, self.time_us, self.known_time_us, label, self.item_offset, self.item, target.ranked.items
        )


def questions_of_labels(labels: LabelTable) -> RankingQuestions:
    """Return the questions of a ranking's labels, asked as of their anchors; items the graph lacks are left out."""
    assert labels.item_offset is not None
    assert labels.item is not None
    present = labels.item >= 0
    count = np.add.reduceat(np.append(present, False).astype(np.int64), labels.item_offset[:-1]) if len(labels) else 0
    count = np.where(np.diff(labels.item_offset) > 0, count, 0)
    made = RankingQuestions(
        labels.row,
        labels.anchor_time_us,
        labels.anchor_time_us,
        labels.known_time_us,
        offsets(count),
        labels.item[present],
    )
    return made if (count > 0).all() else made.select(count > 0)


def questions_before(
    source: RowSource, bound: BoundQuery, anchors: Anchors, *, known_by_us: int | None = None
) -> RankingQuestions:
    """Return a question just before each distinct user and event time of the interactions that the query lists.

    A user who is not there at the cut-off is not asked. Without `anchors.last_us` the newest questions are left out
    whose window is not over by the last interaction; with it the data count as whole. `known_by_us` limits what the
    items rest on to what was known by a time.

    Raises:
        TaskError: the query is no ranking of that table, has a WHERE or ASSUMING, or the anchors have a step.
    """
    target = _checked(bound, anchors)
    states = States(source, bound.aggregations[target].table)
    found = contributions_of(states, bound, bound.aggregations[target], known_by_us=known_by_us)
    order = np.lexsort((found.event_time_us, found.entity))
    entity, event_us = found.entity[order], found.event_time_us[order]
    window = target.window
    assert window is not None
    assert window.start is not None
    asked = np.ones(len(order), dtype=bool)
    asked[1:] = (entity[1:] != entity[:-1]) | (event_us[1:] != event_us[:-1])
    asked &= _any_of_group(asked, found.final[order])
    asked = np.flatnonzero(asked)
    user, cutoff_us = entity[asked], cutoff_for_event(event_us[asked])
    ends_us = shifted(cutoff_us, window.end, window.unit)
    last_us = anchors.last_us
    keep = Presence(source, bound.entity).at(user, cutoff_us)
    keep &= ends_us <= event_us.max(initial=0) if last_us is None else cutoff_us <= last_us
    keep &= cutoff_us >= (cutoff_us.min(initial=0) if anchors.first_us is None else anchors.first_us)
    user, cutoff_us, ends_us = user[keep], cutoff_us[keep], ends_us[keep]
    # Both ends of each window among the rows of its user, which stand by user and time.
    times = distinct(event_us)
    place = entity * np.int64(len(times) + 1) + np.searchsorted(times, event_us, side="right")

    def bounds(time_us: Int64) -> Int64:
        at = user * np.int64(len(times) + 1) + np.searchsorted(times, time_us, side="right")
        return np.searchsorted(place, at, side="right")

    low, high = bounds(shifted(cutoff_us, window.start, window.unit)), bounds(ends_us)
    made = _listed(found, order, low, high, np.stack([user, cutoff_us, ends_us]))
    return made.select(np.lexsort((made.user, made.time_us)))


def _checked(bound: BoundQuery, anchors: Anchors) -> Aggregation:
    target = bound.query.target
    if bound.kind is not Kind.RANKING or not isinstance(target, Aggregation):
        raise TaskError("anchors.before", "a query that ranks (LIST_DISTINCT of a link, RANK TOP k)", bound.kind.value)
    if anchors.before != bound.aggregations[target].table:
        raise TaskError(
            "anchors.before", f"the table that is listed, {bound.aggregations[target].table}", anchors.before
        )
    if bound.query.where is not None or bound.query.assuming is not None:
        raise TaskError("anchors.before", "a query without WHERE and ASSUMING of the user", "one with them")
    if anchors.step_us is not None:
        raise TaskError("anchors.step", "none beside `before`: interactions say when it is asked", anchors.step_us)
    return target


def _any_of_group(starts: NDArray[np.bool_], flag: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return, at each start of a group, whether the flag is set anywhere in it; what is no start is as it comes."""
    if not len(starts):
        return starts
    at = np.flatnonzero(starts)
    found = np.ones(len(starts), dtype=bool)
    found[at] = np.logical_or.reduceat(flag, at)
    return found


def _listed(found: Contributions, order: Int64, low: Int64, high: Int64, asked: Int64) -> RankingQuestions:
    """Return the questions `asked` (int64 [3, n]: user, cut-off, end) with what finally stands at [low, high)."""
    user, cutoff_us, ends_us = asked
    at, owner = spans(low, high)
    at = order[at]
    known_us = ends_us.copy()
    np.maximum.at(known_us, owner, np.where(found.final[at], found.from_us[at], found.to_us[at]))
    stands = found.final[at]
    items = found.value.data[at[stands]].astype(np.int64)
    span = np.int64(items.max(initial=0) + 1)
    pair = distinct(owner[stands] * span + items)
    owner, items = np.divmod(pair, span)
    count = np.bincount(owner, minlength=len(low))
    made = RankingQuestions(user, cutoff_us, cutoff_us, known_us, offsets(count), items)
    return made.select(count > 0)


def _sessions(questions: RankingQuestions, cutoff_us: Int64, source: RowSource, ranked: Ranked) -> Sessions:
    """Return the users' interactions that are visible at time_us and were not at the cut-off."""
    versions = source.versions(ranked.interactions)
    first = np.flatnonzero(np.diff(versions.row, prepend=-1) != 0)
    born_us = np.repeat(versions.valid_from_us[first], np.diff(np.append(first, len(versions))))
    user = versions.parents[:, versions.link_names.index(ranked.user_link)]
    item = versions.parents[:, versions.link_names.index(ranked.item_link)]
    shown = np.flatnonzero(~versions.deleted & (user >= 0) & (item >= 0) & (born_us > cutoff_us.min(initial=0)))
    shown = shown[np.lexsort((versions.event_time_us[shown], user[shown]))]
    low = np.searchsorted(user[shown], questions.user, side="left")
    high = np.searchsorted(user[shown], questions.user, side="right")
    at, owner = spans(low, high)
    at = shown[at]
    asked_us = questions.time_us[owner]
    keep = (born_us[at] > cutoff_us[owner]) & (versions.valid_from_us[at] <= asked_us)
    keep &= asked_us < versions.valid_to_us[at]
    owner, at = owner[keep], at[keep]
    offset = offsets(np.bincount(owner, minlength=len(low)))
    return Sessions(offset, versions.row[at], item[at], versions.event_time_us[at])
