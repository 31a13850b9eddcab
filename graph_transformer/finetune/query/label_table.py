"""Labels by entity and anchor time, as columns: what a model trains on, and what becomes rows of a task table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from graph_transformer.target import Kind, Target
from temporal_graph.time_rule import cutoff_for_event

if TYPE_CHECKING:
    from graph_transformer.finetune.examples import Examples

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LabelTable:
    """n labels of a target, by anchor time and row.

    row int64 [n] of the target's table; anchor_time_us int64 [n], the time the entity is asked at (of an event-level
    target the row's event time); known_time_us int64 [n], from when the label may be known; label float64 [n]: 0 or 1,
    a class's index, a number; [n, classes] 0 or 1 of a multilabel, [n, steps] of a forecast target; of a ranking the
    number of items, and the items of label i are the rows item[item_offset[i] : item_offset[i + 1]] of `item_table`.

    `first`: labels that changed after their windows were over, as they stood then and known from then. A question sees
    those until the change: were they missing until it, it would see that a change is coming.
    """

    target: Target
    row: Int64
    anchor_time_us: Int64
    known_time_us: Int64
    label: NDArray[np.float64]
    item_offset: Int64 | None = None
    item: Int64 | None = None
    item_table: str | None = None
    first: LabelTable | None = None

    def __len__(self) -> int:
        """The number of labels."""
        return len(self.row)

    def select(self, chosen: NDArray[Any]) -> LabelTable:
        """Return the labels at these positions, or where this mask is true, as they finally stand."""
        places = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
        offset, item = self.item_offset, self.item
        if offset is not None and item is not None:
            counts = np.diff(offset)[places]
            new = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
            item = item[np.repeat(offset[places] - new[:-1], counts) + np.arange(new[-1])]
            offset = new
        return replace(
            self,
            row=self.row[places],
            anchor_time_us=self.anchor_time_us[places],
            known_time_us=self.known_time_us[places],
            label=self.label[places],
            item_offset=offset,
            item=item,
            first=None,
        )

    def known_by(self, time_us: int | None) -> LabelTable:
        """Return each label as it was known by a time (None: ever), by anchor and row, where it was known at all."""
        final = replace(self, first=None)
        if time_us is None:
            return final
        final = final.select(self.known_time_us <= time_us)
        if self.first is None or self.item is not None:
            return final
        first = self.first.select((self.first.known_time_us <= time_us) & ~_named_in(self.first, final))
        return concatenated([final, first])

    def known(self, known_by_us: int | None) -> Examples:
        """Return the labels known by a time (None: ever), as known then, as examples: see `examples.Labels`."""
        return self.known_by(known_by_us).to_examples()

    def to_examples(self) -> Examples:
        """Return the labels as examples: an entity is asked as of its anchor, a row just before its event."""
        from graph_transformer.finetune.examples import Examples

        cutoff_time_us = self.anchor_time_us
        if self.target.event_level:
            cutoff_time_us = cutoff_for_event(self.anchor_time_us)
        label = self.label.astype(np.float32)
        return Examples(self.row, self.anchor_time_us, cutoff_time_us, self.known_time_us, label)

    def shares(self) -> dict[str, float]:
        """Return what the labels are like: the share of each class or of yes, or a number's mean and quartiles."""
        if not len(self):
            return {}
        if self.target.kind is Kind.BINARY:
            return {"positive": float(self.label.mean())}
        if self.target.kind is Kind.MULTICLASS:
            counts = np.bincount(self.label.astype(np.int64), minlength=len(self.target.classes))
            return {name: float(count / len(self)) for name, count in zip(self.target.classes, counts, strict=True)}
        if self.target.kind is Kind.MULTILABEL:
            shares = self.label.mean(axis=0)
            return {name: float(share) for name, share in zip(self.target.classes, shares, strict=True)}
        low, middle, high = np.quantile(self.label, (0.25, 0.5, 0.75))
        return {"mean": float(self.label.mean()), "q25": float(low), "median": float(middle), "q75": float(high)}


def concatenated(tables: Sequence[LabelTable]) -> LabelTable:
    """Return the labels of tables of one target, without lists, by anchor and row."""
    row = np.concatenate([table.row for table in tables])
    anchor_time_us = np.concatenate([table.anchor_time_us for table in tables])
    known_time_us = np.concatenate([table.known_time_us for table in tables])
    label = np.concatenate([table.label for table in tables])
    order = np.lexsort((row, anchor_time_us))
    return LabelTable(tables[0].target, row[order], anchor_time_us[order], known_time_us[order], label[order])


def _named_in(labels: LabelTable, other: LabelTable) -> NDArray[np.bool_]:
    """Return which labels are of a row and an anchor that the other table has a label of."""
    anchors, place = np.unique(np.concatenate([labels.anchor_time_us, other.anchor_time_us]), return_inverse=True)
    pair = np.concatenate([labels.row, other.row]) * np.int64(max(len(anchors), 1)) + place
    return np.isin(pair[: len(labels)], pair[len(labels) :])
