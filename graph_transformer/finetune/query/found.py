"""Labels as they are found, before they are encoded for a model, and their encoding into a `LabelTable`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from graph_transformer.finetune.query.bound import BoundQuery
from graph_transformer.finetune.query.label_table import LabelTable
from graph_transformer.finetune.query.values import ELEMENT_SEPARATOR, Values
from graph_transformer.target import Kind

Int64 = NDArray[np.int64]
Labels64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Found:
    """n labels: int64 [n] each of row, time and known time; `values` [n] or [n, steps].

    Of lists `offset` int64 [n + 1] and `item` int64: codes into `values.texts`, or rows of `values.parent`. `first`:
    how labels that changed after their windows were over stood then.
    """

    row: Int64
    time_us: Int64
    known_time_us: Int64
    values: Values
    offset: Int64 | None = None
    item: Int64 | None = None
    first: Found | None = None


def joined(parts: Sequence[Found]) -> Found:
    """Return the labels of all parts, which are of one query, as one."""
    first = parts[0]
    offset, item = first.offset, first.item
    if offset is not None:
        counts = [np.diff(part.offset) for part in parts if part.offset is not None]
        offset = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
        item = np.concatenate([part.item for part in parts if part.item is not None])
    data = np.concatenate([part.values.data for part in parts])
    null = np.concatenate([part.values.null for part in parts])
    return Found(
        np.concatenate([part.row for part in parts]),
        np.concatenate([part.time_us for part in parts]),
        np.concatenate([part.known_time_us for part in parts]),
        Values(data, null, first.values.texts, first.values.parent, first.values.is_set),
        offset,
        item,
        joined(firsts) if (firsts := [part.first for part in parts if part.first is not None]) else None,
    )


def encoded(bound: BoundQuery, task_name: str, found: Found, classes: Sequence[str] | None) -> LabelTable:
    """Return the labels as numbers; of classes, as indices into those given or else into those that occur."""
    if classes is None and found.first is not None and bound.kind in (Kind.MULTICLASS, Kind.MULTILABEL):
        classes = sorted({*_names_in(found), *_names_in(found.first)})
    names: Sequence[str] = ()
    item_offset = item = None
    keep = np.ones(len(found.row), dtype=bool)
    label: Labels64
    if bound.kind is Kind.MULTICLASS:
        names = _names_in(found) if classes is None else classes
        label = _class_of_code(found.values, names)[found.values.data.astype(np.int64)]
        keep = label >= 0
    elif bound.kind is Kind.MULTILABEL:
        codes = found.values.data.astype(np.int64) if found.item is None else found.item
        names = _names_in(found) if classes is None else classes
        label = _several(found, codes, names)
    else:
        label = found.values.data.astype(np.float64)
        if bound.kind is Kind.RANKING:
            item_offset, item = found.offset, found.item
    table = LabelTable(
        target=bound.target(task_name, names),
        row=found.row,
        anchor_time_us=found.time_us,
        known_time_us=found.known_time_us,
        label=label,
        item_offset=item_offset,
        item=item,
        item_table=found.values.parent if item is not None else None,
    )
    table = table if keep.all() else table.select(keep)
    return table if found.first is None else replace(table, first=encoded(bound, task_name, found.first, names))


def _names_in(found: Found) -> list[str]:
    values = found.values
    assert values.texts is not None
    codes = values.data if found.item is None else found.item
    texts = [values.texts[int(code)] for code in np.unique(codes).tolist()]
    return sorted({part for text in texts if text is not None for part in _parts(values, text)})


def _parts(values: Values, text: str) -> list[str]:
    return [part for part in text.split(ELEMENT_SEPARATOR) if part] if values.is_set else [text]


def _class_of_code(values: Values, names: Sequence[str]) -> Labels64:
    assert values.texts is not None
    place = {name: index for index, name in enumerate(names)}
    return np.array([place.get(text or "", -1) for text in values.texts], dtype=np.float64)


def _several(found: Found, codes: Int64, names: Sequence[str]) -> Labels64:
    """Return float64 [n, classes]: which of the classes are among the elements of each label."""
    values, place = found.values, {name: index for index, name in enumerate(names)}
    assert values.texts is not None
    used, position = np.unique(codes, return_inverse=True)
    member = np.zeros((len(used), len(names)))
    for line, code in zip(member, used.tolist(), strict=True):
        line[[place[part] for part in _parts(values, values.texts[code] or "") if part in place]] = 1.0
    if found.offset is None:
        return member[position]
    label = np.zeros((len(found.row), len(names)))
    np.maximum.at(label, np.repeat(np.arange(len(found.row)), np.diff(found.offset)), member[position])
    return label
