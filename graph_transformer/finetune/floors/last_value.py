"""What was known last: the newest label of the same entity that is visible at an example's cut-off.

past labels, by entity and visible time ─► as-of search ─► last label ─► what followed such a label in training
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from graph_transformer.calibration.maps import nested
from graph_transformer.finetune.examples import Examples, linked_rows
from graph_transformer.finetune.floors.constant import constant_output, log_odds, log_shares
from graph_transformer.target import MEDIAN, QUANTILES, Kind, Target

if TYPE_CHECKING:
    from temporal_graph.view import GraphView

LAST_VALUE = "last value"
PRIOR_COUNT = 5.0
"""A last label that training saw a few times only is believed as if the mean had followed it this often."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Labels = NDArray[np.float32]


@dataclass(frozen=True)
class History:
    """Labels with the time from which each is known, and whose they are: `owner` int64[m], -1 for nobody's.

    At entity level a label is its row's own; at event level it is the parent's that the row points to by `link`.
    """

    view: GraphView
    target: Target
    link: str | None
    past: Examples
    owner: Ints

    @classmethod
    def of(cls, view: GraphView, target: Target, link: str | None, past: Examples) -> History:
        """Return the history of labels by a link."""
        return cls(view, target, link, past, _owners(view, target, link, past))

    def last(self, asked: Examples, *, read_until_us: int | None = None) -> tuple[Labels, NDArray[np.bool_]]:
        """Return each question's last known label, of the labels' form, and which questions have one."""
        cutoff = asked.cutoff_time_us
        if read_until_us is not None:
            cutoff = np.minimum(cutoff, read_until_us)
        whose = _owners(self.view, self.target, self.link, asked)
        at = last_known(self.owner, self.past.visible_time_us, whose, cutoff, time_us=self.past.time_us)
        if not len(self.past):
            return np.zeros((len(asked), *asked.label.shape[1:]), dtype=np.float32), at >= 0
        return self.past.label[np.maximum(at, 0)], at >= 0


def _owners(view: GraphView, target: Target, link: str | None, examples: Examples) -> Ints:
    if not target.event_level:
        return examples.row
    assert link is not None
    return linked_rows(view, target.table, link, examples.row, examples.cutoff_time_us)


def last_known(
    entity: Ints, visible_time_us: Ints, asked_entity: Ints, cutoff_time_us: Ints, *, time_us: Ints | None = None
) -> Ints:
    """Return for each question the position of its entity's newest label with visible time <= cut-off; -1 for none.

    entity and visible_time_us int64[m] are of the labels, asked_entity and cutoff_time_us int64[n] of the questions.
    Of labels that became visible at once the one later in `time_us` int64[m] counts. Entity -1 has no labels.
    """
    order = np.lexsort((visible_time_us if time_us is None else time_us, visible_time_us, entity))
    # One sorted number per label: its entity, then how many distinct visible times lie before its own.
    moments = np.unique(visible_time_us)
    width = len(moments) + 1
    keys = entity[order] * width + np.searchsorted(moments, visible_time_us[order], side="left")
    asked = asked_entity * width + np.searchsorted(moments, cutoff_time_us, side="right")
    before = np.searchsorted(keys, asked, side="left") - 1
    if not len(order):
        return np.full(len(asked), -1, dtype=np.int64)
    found = (before >= 0) & (entity[order][before] == asked_entity) & (asked_entity >= 0)
    return np.where(found, order[before], -1)


class LastValue:
    """Answers from the last known label, with what training says follows it."""

    def __init__(self, target: Target, train: Examples, last: Labels, has: NDArray[np.bool_]) -> None:
        """`last` are the last known labels of training examples, of the labels' form; `has` says which there are."""
        self._target = target
        self._constant = constant_output(target, train.label)
        self._fit(train.label.astype(np.float64), last.astype(np.float64), has)

    def answer(self, last: Labels, has: NDArray[np.bool_]) -> Floats:
        """Return outputs float64[n, outputs]; the constant where there is no last label."""
        value = last.astype(np.float64)
        if self._target.is_number:
            latest = value.reshape(len(value), -1)[:, -1]
            found = (latest[:, None, None] + self._table).reshape(len(value), -1)
        elif self._target.kind is Kind.MULTICLASS:
            found = self._table[np.where(has, value, 0).astype(np.int64)]
        else:
            each = value.reshape(len(value), -1) > 0.5
            found = np.where(each, self._table[1], self._table[0])
        return np.where(has[:, None], found, self._constant)

    def _fit(self, label: Floats, last: Floats, has: NDArray[np.bool_]) -> None:
        """Make the table: shares after each last label, or per step quantiles of what is added to it."""
        if self._target.is_number:
            self._table = _increments(label[has], last[has], self._target.steps)
        elif self._target.kind is Kind.MULTICLASS:
            classes = len(self._target.classes)
            counts = np.zeros((classes, classes))
            np.add.at(counts, (last[has].astype(np.int64), label[has].astype(np.int64)), 1.0)
            self._table = log_shares(counts + PRIOR_COUNT * np.exp(self._constant))
        else:
            truth, before = label.reshape(len(label), -1) > 0.5, last.reshape(len(last), -1) > 0.5
            share = 1.0 / (1.0 + np.exp(-self._constant))
            rows = []
            for value in (False, True):
                after = has[:, None] & (before == value)
                positives = (after & truth).sum(axis=0) + PRIOR_COUNT * share
                negatives = (after & ~truth).sum(axis=0) + PRIOR_COUNT * (1.0 - share)
                rows.append(log_odds(positives, negatives))
            self._table = np.stack(rows)


def _increments(label: Floats, last: Floats, steps: int) -> Floats:
    """Return quantiles float64[steps, QUANTILES] of label minus last label, the median set to 0."""
    if not len(label):
        return np.zeros((steps, len(QUANTILES)))
    gap = label.reshape(len(label), steps) - last.reshape(len(last), -1)[:, -1:]
    found = np.quantile(gap, QUANTILES, axis=0).T
    found[:, MEDIAN] = 0.0
    return nested(found)
